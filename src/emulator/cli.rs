//! The subcommands `emulate` and `import`.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use super::api::{Options, router};
use super::import::import;
use super::store::Store;
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
    /// Serves until SIGTERM or SIGINT; prints where on standard output.
    pub async fn run(self) -> Result<()> {
        let store = Store::open(&self.folder)?;
        let failed = |e: std::io::Error| {
            let address = format!("{}:{}", self.host, self.port);
            Error::new(ErrorKind::Configuration, format!("cannot listen on {address}: {e}"))
        };
        let listener = TcpListener::bind((self.host, self.port)).await.map_err(failed)?;
        println!("listening on http://{}", listener.local_addr().map_err(failed)?);
        let options = Options {
            allow_anonymous: self.allow_anonymous,
            frames_per_second: self.frames_per_second,
        };
        let mut terminate = signal(SignalKind::terminate())
            .map_err(|e| Error::internal("signals cannot be handled").caused_by(e))?;
        let stopped = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
        };
        let server = axum::serve(listener, router(store, options));
        tokio::select! {
            ended = server => ended.map_err(failed),
            () = stopped => Ok(()),
        }
    }
}

impl ImportArgs {
    /// Imports and prints what was made as JSON on standard output.
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
