//! `serve`: the pipeline behind the scheduler behind HTTP.

use std::sync::Arc;

use futures::future::BoxFuture;
use tokio::runtime::Handle;

use super::runtime;
use crate::config::{self, EndpointUrl, ServeArgs, ServeSettings};
use crate::error::{Error, Result};
use crate::pipeline::{self, Invoke};
use crate::registry::{LoadOptions, Model, Registry, discover};
use crate::scheduler::{Drained, Scheduler};
use crate::server::{self, App, Readiness, Termination};
use crate::source::ahi::{AhiClient, AhiSettings};
use crate::source::aws;
use crate::source::limiter::Rate;
use crate::volume::VolumePolicy;

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
        println!("listening on http://{address}");
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

/// The pipeline over the models of `settings.model_dir`.
async fn build_service(settings: &ServeSettings) -> Result<Service> {
    let registry = Arc::new(Registry::<Model>::new(discover(&settings.model_dir)?));
    let clients = aws_settings(&settings.aws);
    let config = aws::sdk_config(&clients).await?;
    let ahi = aws::ahi_client(&config, &clients);
    let service = pipeline::Service {
        registry: Arc::clone(&registry),
        ahi: AhiClient::new(ahi, ahi_settings(&settings.aws.ahi)),
        s3: aws::s3_client(&config, &clients),
        output_uri: settings.http.output_uri.clone(),
        policy: VolumePolicy::default(),
    };
    let options = LoadOptions::from(&settings.compute);
    let loading = async move {
        let ready = registry
            .load(move |location| {
                let model = Model::load(&location.name, &location.path, options)?;
                model.warm_up()?;
                Ok(model)
            })
            .await;
        ready > 0
    };
    Ok(Service { invoke: Arc::new(service), loading: Box::pin(loading) })
}

fn aws_settings(settings: &config::AwsSettings) -> aws::AwsSettings {
    let url = |endpoint: &Option<EndpointUrl>| endpoint.as_ref().map(|e| e.as_str().to_owned());
    aws::AwsSettings {
        region: settings.region.clone(),
        ahi_endpoint: url(&settings.ahi.endpoint),
        s3_endpoint: url(&settings.s3.endpoint),
        s3_path_style: settings.s3.path_style,
        ..aws::AwsSettings::default()
    }
}

fn ahi_settings(settings: &config::AhiSettings) -> AhiSettings {
    let defaults = AhiSettings::default();
    let per_second = u32::try_from(settings.frames_per_second).unwrap_or(u32::MAX);
    AhiSettings {
        max_in_flight: settings.frames_in_flight,
        // The service's burst is two seconds' worth.
        frame_rate: Rate { per_second, burst: per_second.saturating_mul(2) },
        allow_non_primary: settings.allow_non_primary,
        ..defaults
    }
}
