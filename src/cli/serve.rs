//! `serve`: the pipeline behind the scheduler behind HTTP.

use std::sync::Arc;

use futures::future::BoxFuture;
use tokio::runtime::Handle;

use super::runtime;
use crate::config::{ServeArgs, ServeSettings};
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::Invoke;
use crate::scheduler::{Drained, Scheduler};
use crate::server::{self, App, Readiness, Termination};

/// Threads that answer HTTP. They never compute, so two of them keep up with any load.
const HTTP_THREADS: usize = 2;

/// Threads for fetching, whatever the number of cores.
const MOST_WORK_THREADS: usize = 8;

/// What answers requests, and the loading it needs before it can.
struct Service {
    invoke: Arc<dyn Invoke>,
    /// Loads the models; whether at least one is ready.
    loading: BoxFuture<'static, bool>,
}

/// Serves until the process is told to stop.
///
/// # Errors
/// [`ErrorKind::Configuration`] where flags, environment or models do not allow it.
pub(super) fn serve(args: ServeArgs) -> Result<Drained> {
    let settings = args.settings()?;
    let http = runtime("http", HTTP_THREADS)?;
    let work = runtime("work", settings.compute.threads.clamp(2, MOST_WORK_THREADS))?;
    let result = http.block_on(until_stopped(settings, work.handle().clone()));
    // Work that did not heed its cancellation ends with the process.
    work.shutdown_background();
    http.shutdown_background();
    result
}

async fn until_stopped(settings: ServeSettings, work: Handle) -> Result<Drained> {
    let termination = Termination::new()?;
    let listener = server::bind(settings.listen)?;
    if let Ok(address) = listener.local_addr() {
        tracing::info!(%address, version = env!("CARGO_PKG_VERSION"), "listening");
    }
    let building = settings.clone();
    let building = work.spawn(async move { build_service(&building).await });
    let Service { invoke, loading } = building
        .await
        .map_err(|e| Error::internal("building the service panicked").caused_by(e))??;

    let readiness = Arc::new(Readiness::default());
    let loaded = work.spawn(loading);
    tokio::spawn({
        let readiness = Arc::clone(&readiness);
        async move { readiness.started(loaded.await.unwrap_or(false)) }
    });
    let app = Arc::new(App {
        http: settings.http,
        scheduler: Scheduler::new(invoke, settings.admission, work),
        readiness,
    });
    server::run(listener, app, settings.drain_timeout, termination.received()).await
}

/// SEAM: the pipeline over the models of `settings.model_dir` goes here.
async fn build_service(_settings: &ServeSettings) -> Result<Service> {
    Err(Error::new(ErrorKind::Configuration, "this build has no pipeline to serve"))
}
