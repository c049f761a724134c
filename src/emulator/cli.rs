//! The subcommands `emulate` and `import`.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use axum::Router;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

use super::api::{Options, router};
use super::import::import;
use super::objects::Objects;
use super::runtime::settings::Limits;
use super::store::Store;
use super::{runtime, s3};
use crate::config::seconds;
use crate::error::{Error, ErrorKind, Result};

/// Flags of `emulate`.
#[derive(Debug, Clone, Args)]
pub struct EmulateArgs {
    /// Folder of the data stores; made where it is not there
    #[arg(long, env = "EMULATE_FOLDER", value_name = "DIR")]
    pub folder: PathBuf,
    /// Address to listen on
    #[arg(long, env = "EMULATE_HOST", default_value = "127.0.0.1", value_name = "ADDRESS")]
    pub host: IpAddr,
    /// Port to listen on; 0 takes a free one
    #[arg(long, env = "EMULATE_PORT", default_value_t = 8089, value_name = "PORT")]
    pub port: u16,
    /// Port of the S3 beside it, whose buckets are in the folder's `s3`; 0 takes a free one
    #[arg(long, env = "EMULATE_S3_PORT", default_value_t = 8090, value_name = "PORT")]
    pub s3_port: u16,
    /// JSON file of SageMaker endpoints to put before servers that run; docs/local-cloud.md has its form
    #[arg(long, env = "EMULATE_ENDPOINTS", value_name = "FILE")]
    pub endpoints: Option<PathBuf>,
    /// Port of the SageMaker runtime, where there are endpoints; 0 takes a free one
    #[arg(long, env = "EMULATE_SAGEMAKER_PORT", default_value_t = 8091, value_name = "PORT")]
    pub sagemaker_port: u16,
    /// Time that a model has for an answer in real time [default: SageMaker's 60 s]
    #[arg(long, env = "EMULATE_INVOCATION_TIMEOUT", value_name = "SECONDS", value_parser = seconds)]
    pub invocation_timeout: Option<Duration>,
    /// Time that a model has for an answer that streams [default: SageMaker's 480 s]
    #[arg(long, env = "EMULATE_STREAM_TIMEOUT", value_name = "SECONDS", value_parser = seconds)]
    pub stream_timeout: Option<Duration>,
    /// Answer requests that are not signed, too
    #[arg(long, env = "EMULATE_ALLOW_ANONYMOUS")]
    pub allow_anonymous: bool,
    /// Frames a second before requests are throttled [default: never]
    #[arg(long, env = "EMULATE_FRAMES_PER_SECOND", value_name = "N")]
    pub frames_per_second: Option<u32>,
}

/// Flags of `import`.
#[derive(Debug, Clone, Args)]
pub struct ImportArgs {
    /// Folder or zip of DICOM files
    #[arg(value_name = "DICOM", env = "IMPORT_SOURCE")]
    pub source: PathBuf,
    /// Folder of the data stores
    #[arg(long, env = "EMULATE_FOLDER", value_name = "DIR")]
    pub folder: PathBuf,
    /// Data store to import into [default: a new one]
    #[arg(long, env = "IMPORT_DATASTORE", value_name = "ID")]
    pub datastore: Option<String>,
}

impl EmulateArgs {
    /// Serves until SIGTERM or SIGINT; prints the addresses to standard output.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] if a port is in use, [`ErrorKind::Io`] if the folder cannot be
    /// read.
    pub async fn run(self) -> Result<()> {
        let store = Store::open(&self.folder)?;
        let options = Options {
            allow_anonymous: self.allow_anonymous,
            frames_per_second: self.frames_per_second,
        };
        let s3 = s3::router(&store.s3_folder(), self.allow_anonymous)?;
        let sagemaker = self.sagemaker(&store)?;
        let mut services =
            vec![("HealthImaging", self.port, router(store, options)), ("S3", self.s3_port, s3)];
        services.extend(sagemaker.map(|router| ("SageMaker", self.sagemaker_port, router)));
        let mut servers = JoinSet::new();
        let mut endpoint = None;
        for (name, port, router) in services {
            let listener = self.listen(port).await?;
            let address = listener.local_addr().map_err(|e| self.cannot_listen(port, &e))?;
            // HealthImaging comes first.
            endpoint.get_or_insert(address);
            println!("{name}: listening on http://{address}");
            servers.spawn(async move { axum::serve(listener, router).await });
        }
        if let Some(endpoint) = endpoint {
            println!(
                "a page to look at it with: AHI_ENDPOINT_URL=http://{endpoint} AWS_REGION=us-east-1 \
                 AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=local ahi-inference serve --ui --host 127.0.0.1 \
                 --model DIR"
            );
        }
        let mut terminate = signal(SignalKind::terminate())
            .map_err(|e| Error::internal("signals cannot be handled").caused_by(e))?;
        tokio::select! {
            _ = servers.join_next() => Err(Error::internal("a server ended by itself")),
            _ = terminate.recv() => Ok(()),
            _ = tokio::signal::ctrl_c() => Ok(()),
        }
    }

    /// Builds the SageMaker runtime, if there are endpoints.
    fn sagemaker(&self, store: &Store) -> Result<Option<Router>> {
        let Some(file) = &self.endpoints else { return Ok(None) };
        let endpoints = runtime::settings::read(file)?;
        let objects = Objects::new(store.s3_folder());
        // Servers receive absolute paths.
        let folder = std::path::absolute(store.models_folder()).map_err(|e| {
            Error::new(ErrorKind::Configuration, "--folder cannot be resolved").caused_by(e)
        })?;
        let usual = Limits::default();
        let limits = Limits {
            invocation: self.invocation_timeout.unwrap_or(usual.invocation),
            stream: self.stream_timeout.unwrap_or(usual.stream),
            ..usual
        };
        let anonymous = self.allow_anonymous;
        Ok(Some(runtime::router(endpoints, &objects, &folder, limits, anonymous)))
    }

    async fn listen(&self, port: u16) -> Result<TcpListener> {
        TcpListener::bind((self.host, port)).await.map_err(|e| self.cannot_listen(port, &e))
    }

    fn cannot_listen(&self, port: u16, e: &std::io::Error) -> Error {
        let address = SocketAddr::new(self.host, port);
        Error::new(ErrorKind::Configuration, format!("cannot listen on {address}: {e}"))
    }
}

impl ImportArgs {
    /// Imports the files and prints a JSON summary to standard output.
    pub async fn run(self) -> Result<()> {
        let summary = tokio::task::spawn_blocking(move || {
            let store = Store::open(&self.folder)?;
            let bar = ProgressBar::new(0);
            if let Ok(style) =
                ProgressStyle::with_template("importing [{bar:32}] {pos}/{len} files")
            {
                bar.set_style(style);
            }
            let summary =
                import(&store, self.datastore.as_deref(), &self.source, &|done, total| {
                    bar.set_length(total as u64);
                    bar.set_position(done as u64);
                });
            bar.finish_and_clear();
            summary
        })
        .await
        .unwrap_or_else(|_| Err(Error::internal("the import failed unexpectedly")))?;
        let text = serde_json::to_string(&summary)
            .map_err(|e| Error::internal("the summary cannot be written").caused_by(e))?;
        println!("{text}");
        if summary.image_sets.is_empty() {
            return Err(Error::new(ErrorKind::InvalidImage, "no file could be imported"));
        }
        Ok(())
    }
}
