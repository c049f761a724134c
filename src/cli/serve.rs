//! `serve`: HTTP in front of the scheduler in front of the pipeline.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::runtime::Handle;

use super::clients;
use super::runtime;
use crate::aws::{CallStats, Patience, S3, S3Operation};
use crate::config::{ModelSettings, ServeArgs, ServeSettings};
use crate::cpu;
use crate::error::{Error, Result};
use crate::inference;
use crate::memory::{self, Account, Pool, parachute};
use crate::pipeline::browse::Browser;
use crate::pipeline::{self, Invoke};
use crate::registry::{
    BrokenNetworks, Budget, BundleLoader, Host, LoadOptions, Model, ModelLocation, Naming,
    Registry, Roots, discover,
};
use crate::scheduler::{Drained, Scheduler};
use crate::server::{self, App, Connections, Readiness, Room, Termination, Ui};
use crate::sink::Sink;
use crate::sink::dicomweb::{DicomWeb, DicomWebOperation};
use crate::source::ahi::{AhiClient, Operation};
use crate::source::aws;
use crate::source::s3::S3Input;
use crate::telemetry::Metrics;
use crate::telemetry::metrics::{CallSample, Service as AwsService};
use crate::traces;

/// Threads that serve HTTP. They never compute, so two are enough for any load.
const HTTP_THREADS: usize = 2;

/// Maximum number of threads for fetching, whatever the number of cores.
const MOST_WORK_THREADS: usize = 8;

/// The pipeline with its state, and the initial loading of models.
struct Service {
    invoke: Arc<dyn Invoke>,
    models: Arc<dyn Host>,
    metrics: Arc<Metrics>,
    account: Account,
    /// Lists what can be segmented, for the page.
    browser: Browser,
    /// Counts the models whose network keeps failing.
    broken: BrokenNetworks,
    /// Loads the initial models; resolves to whether the server is ready.
    loading: BoxFuture<'static, bool>,
}

/// Serves until the process is told to stop.
///
/// # Errors
/// [`ErrorKind::Configuration`] if flags, environment or models are invalid.
pub(super) fn serve(args: ServeArgs) -> Result<Drained> {
    let settings = args.settings()?;
    parachute::arm();
    let collector = settings.collector.as_ref();
    let _exporting = collector.map(|url| traces::export(url.as_str())).transpose()?;
    if let Some(collector) = collector {
        tracing::info!(?collector, "traces are exported");
    }
    cpu::start(settings.compute.threads)?;
    let http = runtime("http", HTTP_THREADS)?;
    let work = runtime("work", settings.compute.threads.clamp(2, MOST_WORK_THREADS))?;
    let result = http.block_on(until_stopped(settings, work.handle().clone()));
    // Work that ignored its cancellation ends with the process.
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
    let Service { invoke, models, metrics, account, browser, broken, loading } =
        building
            .await
            .map_err(|e| Error::internal("building the service panicked").caused_by(e))??;

    let ui = settings.ui.map(|ui| Ui::open(ui, browser)).transpose()?.map(Arc::new);
    if ui.is_some()
        && let Ok(address) = listener.local_addr()
    {
        println!("page: http://{address}/ui/");
    }
    let readiness = Arc::new(Readiness::watching(broken.clone()));
    work.spawn(mend(Arc::clone(&models), broken));
    let loaded = work.spawn(loading);
    if matches!(settings.models, ModelSettings::MultiModel { .. }) {
        let provider = LoadOptions::from(&settings.compute).provider;
        work.spawn_blocking(move || {
            if let Err(error) = inference::prepare(provider) {
                tracing::warn!(%error, "the execution provider cannot be prepared; loading a model says why");
            }
        });
    }
    tokio::spawn({
        let readiness = Arc::clone(&readiness);
        async move { readiness.started(loaded.await.unwrap_or(false)) }
    });
    let app = Arc::new(App {
        bodies: Room::new(settings.http.max_body, settings.http.connections.body_wait),
        connections: Connections::new(settings.http.connections.clone()),
        multi_model: matches!(settings.models, ModelSettings::MultiModel { .. }),
        http: settings.http,
        compute: settings.compute,
        models,
        metrics,
        account,
        scheduler: Scheduler::new(invoke, settings.admission, work),
        readiness,
        ui: ui.clone(),
    });
    tokio::spawn(tidy(Arc::clone(&app)));
    let drained = server::run(listener, app, settings.drain_timeout, termination.received()).await;
    // Other references to the page may live as long as the process.
    if let Some(ui) = ui {
        ui.close();
    }
    drained
}

/// Interval between checks for unused memory.
const TIDYING: Duration = Duration::from_secs(5);

/// Time after a request during which the next one is expected: it needs the same memory again.
const EXPECTED: Duration = Duration::from_secs(30);

/// Growth in bytes from which memory is returned to the system.
const LITTER: u64 = 8 << 20;

/// Returns freed memory to the system when no request has come for a while: the allocator keeps it scattered over
/// the arenas of many threads, and other processes may need it.
async fn tidy(app: Arc<App>) {
    let mut tidied = 0;
    loop {
        tokio::time::sleep(TIDYING).await;
        let resident = memory::resident().unwrap_or(0);
        let quiet = memory::last_kept().is_none_or(|last| last >= EXPECTED);
        if quiet && app.scheduler.in_flight() == 0 && resident > tidied + LITTER {
            memory::release_kept();
            // Runs on a blocking thread, so that /ping is not delayed.
            if tokio::task::spawn_blocking(memory::trim).await.is_err() {
                return;
            }
            tidied = memory::resident().unwrap_or(0);
        }
    }
}

/// Builds the pipeline with the models of `settings`.
async fn build_service(settings: &ServeSettings) -> Result<Service> {
    let account = Account::new(settings.memory.inputs, settings.memory.work);
    tracing::info!(
        inputs = account.inputs.limit(),
        work = settings.memory.work,
        bodies = settings.http.max_body,
        "memory in bytes"
    );
    let options = LoadOptions::from(&settings.compute);
    let broken = options.broken.clone();
    let (registry, locations) = registry(settings, options, &account.work)?;
    let registry = Arc::new(registry);
    let clients = clients::settings(&settings.aws);
    let config = aws::sdk_config(&clients).await?;
    let ahi = AhiClient::new(
        aws::ahi_client(&config, &clients),
        clients::ahi_settings(&settings.aws.ahi),
    );
    let metrics = Arc::new(Metrics::new());
    let s3 = S3::new(aws::s3_client(&config, &clients), Patience::default());
    let archives = clients::archives(&settings.store, &clients, &config, ahi.clone())?;
    let counted = (ahi.clone(), s3.clone(), archives.clone());
    metrics.read_calls_from(move || samples(&counted.0, &counted.1, &counted.2));
    let storing = archives.clone();
    metrics.read_stored_from(move || storing.stats().instances().to_vec());
    let fetching = ahi.clone();
    metrics.read_fetching_from(move || fetching.stats().frame_steps().to_vec());
    let access = &settings.access;
    if !access.open().is_empty() {
        tracing::info!(open = access.open().join(", "), "requests may name any of these");
    }
    let browser = Browser::new(ahi.clone(), access.clone());
    let service = pipeline::Service {
        registry: Arc::clone(&registry),
        ahi,
        s3_input: S3Input::new(
            s3.clone(),
            Arc::clone(&account.inputs),
            access.input_owner.as_deref(),
        ),
        sink: Sink::new(s3, access),
        archives,
        store: settings.store.default.clone(),
        access: access.clone(),
        output_uri: settings.http.output_uri.clone(),
        fresh_uids: settings.fresh_uids,
        policy: settings.policy,
        metrics: Arc::clone(&metrics),
        account: account.clone(),
    };
    let models: Arc<dyn Host> = Arc::clone(&registry) as _;
    let loading = async move {
        match locations {
            Some(locations) => registry.load_all(locations).await > 0,
            // Models come later; the platform checks health before it loads the first one.
            None => true,
        }
    };
    let loading = Box::pin(loading);
    Ok(Service { invoke: Arc::new(service), models, metrics, account, browser, broken, loading })
}

/// Interval between attempts to recover broken models: `/ping` fails meanwhile, so no request may
/// arrive that would trigger one.
const MENDING: Duration = Duration::from_secs(10);

/// Repeatedly tries to recover models whose network keeps failing.
async fn mend(models: Arc<dyn Host>, broken: BrokenNetworks) {
    loop {
        tokio::time::sleep(MENDING).await;
        if broken.any() {
            let models = Arc::clone(&models);
            if tokio::task::spawn_blocking(move || models.mend()).await.is_err() {
                tracing::error!("mending a model panicked");
            }
        }
    }
}

/// Creates the registry, and returns the models to load at start-up unless the platform loads them.
fn registry(
    settings: &ServeSettings,
    options: LoadOptions,
    memory: &Arc<Pool>,
) -> Result<(Registry<Model>, Option<Vec<ModelLocation>>)> {
    let loader = BundleLoader(options);
    // A warm-up uses all cores; parallel loads overlap the reading of one model with the warm-up of
    // another.
    let loads = (settings.compute.threads / 4).clamp(2, 4);
    Ok(match &settings.models {
        ModelSettings::Folder(dir) => {
            let locations = discover(dir)?;
            let budget = Budget::unbounded().within(Arc::clone(memory));
            let registry = Registry::new(loader, budget, Naming::Folders, loads);
            (registry, Some(locations))
        }
        ModelSettings::MultiModel { budget, roots } => {
            let budget = budget.map_or_else(Budget::unbounded, Budget::of);
            let budget = budget.within(Arc::clone(memory));
            tracing::info!(budget_bytes = budget.limit(), ?roots, "models are loaded by request");
            let registry = Registry::new(loader, budget, Naming::Opaque, loads);
            (registry.within(Roots::new(roots.clone())), None)
        }
    })
}

/// Returns the call statistics of all clients.
fn samples(ahi: &AhiClient, s3: &S3, archives: &DicomWeb) -> Vec<CallSample> {
    let sample = |service, operation, stats: CallStats| CallSample {
        service,
        operation,
        calls: stats.calls,
        retries: stats.retries,
        hedges: stats.hedges,
        refetches: stats.refetches,
        throttles: stats.throttles,
        failures: stats.failures,
        bytes: stats.bytes,
    };
    let of_ahi = Operation::ALL
        .map(|o| sample(AwsService::HealthImaging, o.name(), ahi.stats().operation(o)));
    let of_s3 = S3Operation::ALL.map(|o| sample(AwsService::S3, o.name(), s3.stats(o)));
    let of_archives = DicomWebOperation::ALL
        .map(|o| sample(AwsService::DicomWeb, o.name(), archives.stats().operation(o)));
    of_ahi.into_iter().chain(of_s3).chain(of_archives).collect()
}
