//! Settings of AWS HealthImaging and S3.

use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args};

use super::parse::bounded;
use super::{EndpointUrl, wrong};
use crate::error::Result;

/// Flags about AWS services. Credentials come from the AWS credential chain alone.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "AWS")]
pub struct AwsArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub ahi: AhiArgs,
    /// S3 endpoint to call instead of the region's
    #[arg(long, env = "S3_ENDPOINT_URL", value_name = "URL", hide_env_values = true)]
    pub s3_endpoint_url: Option<EndpointUrl>,
    /// Put the bucket into the path of S3 URLs instead of the host name
    #[arg(long, env = "S3_PATH_STYLE", default_value = "false", value_name = "BOOL",
          action = ArgAction::Set, num_args = 0..=1, require_equals = true,
          default_missing_value = "true", value_parser = BoolishValueParser::new())]
    pub s3_path_style: bool,
}

/// Flags about AWS HealthImaging.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "AWS")]
pub struct AhiArgs {
    /// AWS region of the data store and the bucket [default: as the AWS SDK finds it]
    #[arg(long, env = "AWS_REGION", value_name = "REGION")]
    pub region: Option<String>,
    /// AWS HealthImaging endpoint to call instead of the region's
    #[arg(long, env = "AHI_ENDPOINT_URL", value_name = "URL", hide_env_values = true)]
    pub ahi_endpoint_url: Option<EndpointUrl>,
    /// Image frames fetched at the same time, for one request
    #[arg(long, env = "AHI_FRAMES_IN_FLIGHT", default_value = "64", value_name = "N",
          value_parser = bounded::<1, 1024>)]
    pub ahi_frames_in_flight: usize,
    /// Image frames asked for per second, all requests together (the service's quota is 1000)
    #[arg(long, env = "AHI_FRAMES_PER_SECOND", default_value = "1000", value_name = "N",
          value_parser = bounded::<1, 100_000>)]
    pub ahi_frames_per_second: usize,
    /// Read image sets that are not primary, too (conflicting imports)
    #[arg(long, env = "AHI_ALLOW_NON_PRIMARY", default_value = "false", value_name = "BOOL",
          action = ArgAction::Set, num_args = 0..=1, require_equals = true,
          default_missing_value = "true", value_parser = BoolishValueParser::new())]
    pub ahi_allow_non_primary: bool,
}

/// Settings of AWS services for sources and sinks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AwsSettings {
    /// Region; `None` leaves it to the SDK's provider chain.
    pub region: Option<String>,
    /// Settings of AWS HealthImaging.
    pub ahi: AhiSettings,
    /// Settings of S3.
    pub s3: S3Settings,
}

/// Settings of AWS HealthImaging.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AhiSettings {
    /// Endpoint override.
    pub endpoint: Option<EndpointUrl>,
    /// Maximum number of frames in flight per request, at least 1.
    pub frames_in_flight: usize,
    /// Maximum number of frames requested per second by the whole process, at least 1.
    pub frames_per_second: usize,
    /// Whether image sets that are not primary may be segmented.
    pub allow_non_primary: bool,
}

/// Settings of S3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Settings {
    /// Endpoint override.
    pub endpoint: Option<EndpointUrl>,
    /// Whether the bucket is in the path instead of the host name.
    pub path_style: bool,
}

impl AhiArgs {
    /// Validates the flags and returns the region and the settings.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](crate::error::ErrorKind::Configuration), naming the flag.
    pub fn settings(self) -> Result<(Option<String>, AhiSettings)> {
        if let Some(region) = &self.region
            && (region.is_empty()
                || !region
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'))
        {
            return Err(wrong("--region", "is not the name of a region, such as us-east-1"));
        }
        let settings = AhiSettings {
            endpoint: endpoint(self.ahi_endpoint_url, "--ahi-endpoint-url")?,
            frames_in_flight: self.ahi_frames_in_flight,
            frames_per_second: self.ahi_frames_per_second,
            allow_non_primary: self.ahi_allow_non_primary,
        };
        Ok((self.region, settings))
    }
}

fn endpoint(url: Option<EndpointUrl>, flag: &'static str) -> Result<Option<EndpointUrl>> {
    url.map(|u| u.checked(flag)).transpose()
}

impl AwsArgs {
    /// Validates the flags.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](crate::error::ErrorKind::Configuration), naming the flag.
    pub fn settings(self) -> Result<AwsSettings> {
        let (region, ahi) = self.ahi.settings()?;
        Ok(AwsSettings {
            region,
            ahi,
            s3: S3Settings {
                endpoint: endpoint(self.s3_endpoint_url, "--s3-endpoint-url")?,
                path_style: self.s3_path_style,
            },
        })
    }
}
