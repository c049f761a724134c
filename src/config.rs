//! Typed settings: flags, each with an environment twin.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::error::{Error, ErrorKind, Result};
use crate::inference::ProviderChoice;
use crate::scheduler::Limits;

/// Settings of `serve`.
#[derive(Debug, Clone, Args)]
pub struct ServeArgs {
    /// Port to listen on; 0 takes a free one and prints it.
    #[arg(long, env = "SAGEMAKER_BIND_TO_PORT", default_value_t = 8080)]
    pub port: u16,
    /// Address to listen on.
    #[arg(long, env = "AHI_INFERENCE_HOST", default_value = "0.0.0.0")]
    pub host: std::net::IpAddr,
    /// Folder of one model package, or of several side by side.
    #[arg(long, env = "MODEL_DIR", default_value = "/opt/ml/model", value_name = "DIR")]
    pub model: PathBuf,
    /// Where outputs go when a request does not say: s3://bucket/prefix or a folder. Into the answer
    /// where not set.
    #[arg(long, env = "OUTPUT_S3_URI", value_name = "URI")]
    pub output_uri: Option<String>,
    #[command(flatten)]
    pub limits: LimitArgs,
    #[command(flatten)]
    pub aws: AwsArgs,
    #[command(flatten)]
    pub network: NetworkArgs,
}

/// Bounds of requests.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Limits")]
pub struct LimitArgs {
    /// Largest body of a request in bytes.
    #[arg(long, env = "MAX_BODY_BYTES", default_value_t = 25 * 1024 * 1024, value_name = "BYTES")]
    pub max_body: usize,
    /// Requests that run at once.
    #[arg(long, env = "MAX_CONCURRENT_REQUESTS", default_value_t = 2, value_name = "N")]
    pub max_concurrent: usize,
    /// Requests that may wait beside those; more are refused with 503.
    #[arg(long, env = "MAX_QUEUED_REQUESTS", default_value_t = 16, value_name = "N")]
    pub queue: usize,
    /// Seconds a request may take, waiting included; 0 for no limit.
    #[arg(long, env = "REQUEST_TIMEOUT_SECONDS", default_value_t = 60, value_name = "SECONDS")]
    pub request_timeout: u64,
    /// Seconds that running requests get to finish after SIGTERM. SageMaker kills after 30.
    #[arg(long, env = "DRAIN_TIMEOUT_SECONDS", default_value_t = 25, value_name = "SECONDS")]
    pub drain_timeout: u64,
}

/// AWS HealthImaging and S3.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "AWS")]
pub struct AwsArgs {
    /// AWS region; the usual chain (environment, profile, instance) where not set.
    #[arg(long, env = "AWS_REGION")]
    pub region: Option<String>,
    /// Endpoint of AWS HealthImaging, for a local one.
    #[arg(long, env = "AHI_ENDPOINT_URL", value_name = "URL")]
    pub ahi_endpoint: Option<String>,
    /// Frames fetched at once, over all requests.
    #[arg(long, env = "AHI_FRAMES_IN_FLIGHT", default_value_t = 64, value_name = "N")]
    pub frames_in_flight: usize,
    /// GetImageFrame requests a second, over all requests.
    #[arg(long, env = "AHI_FRAMES_PER_SECOND", default_value_t = 1000, value_name = "N")]
    pub frames_per_second: u32,
    /// Read image sets that AHI does not call primary.
    #[arg(long, env = "AHI_ALLOW_NON_PRIMARY")]
    pub allow_non_primary: bool,
    /// Endpoint of S3, for a local one.
    #[arg(long, env = "S3_ENDPOINT_URL", value_name = "URL")]
    pub s3_endpoint: Option<String>,
    /// Address buckets by path, as local S3 servers want it.
    #[arg(long, env = "S3_PATH_STYLE")]
    pub s3_path_style: bool,
}

/// The network.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Network")]
pub struct NetworkArgs {
    /// Execution provider of ONNX Runtime.
    #[arg(long, env = "EXECUTION_PROVIDERS", default_value = "auto", value_enum)]
    pub execution_provider: Provider,
    /// Threads of the network; one a core where not set.
    #[arg(long, env = "NETWORK_THREADS", value_name = "N")]
    pub threads: Option<usize>,
}

/// Execution providers that can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Provider {
    /// The best that is there.
    Auto,
    /// ONNX Runtime's own CPU kernels.
    Cpu,
}

impl From<Provider> for ProviderChoice {
    fn from(provider: Provider) -> Self {
        match provider {
            Provider::Auto => Self::Auto,
            Provider::Cpu => Self::Cpu,
        }
    }
}

impl ServeArgs {
    /// Checks what single flags cannot.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Configuration`] naming the flag.
    pub fn check(&self) -> Result<()> {
        let wrong = |what: &str| Err(Error::new(ErrorKind::Configuration, what));
        if self.limits.max_concurrent == 0 {
            return wrong("--max-concurrent must be at least 1");
        }
        if self.aws.frames_in_flight == 0 || self.aws.frames_per_second == 0 {
            return wrong("--frames-in-flight and --frames-per-second must be at least 1");
        }
        if self.network.threads == Some(0) {
            return wrong("--threads must be at least 1");
        }
        if self.limits.max_body == 0 {
            return wrong("--max-body must be at least 1");
        }
        Ok(())
    }

    /// The scheduler's bounds.
    pub fn limits(&self) -> Limits {
        let seconds = self.limits.request_timeout;
        Limits {
            concurrent: self.limits.max_concurrent,
            queue: self.limits.queue,
            deadline: (seconds > 0).then(|| Duration::from_secs(seconds)),
        }
    }
}
