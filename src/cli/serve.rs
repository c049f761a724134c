//! `serve`: settings to a running server.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::config::ServeArgs;
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::Service;
use crate::registry::{LoadOptions, Model, Registry, State, discover};
use crate::scheduler::Scheduler;
use crate::server::{self, App, Readiness, ReadyState};
use crate::source::ahi::{AhiClient, AhiSettings};
use crate::source::aws::{self, AwsSettings};
use crate::volume::VolumePolicy;

/// Serves until SIGTERM or SIGINT.
pub async fn serve(args: ServeArgs) -> Result<()> {
    args.check()?;
    let locations = discover(&args.model)?;
    let listener = listen(&args).await?;
    let registry = Arc::new(Registry::<Model>::new(&locations));
    let aws = AwsSettings {
        region: args.aws.region.clone(),
        ahi_endpoint: args.aws.ahi_endpoint.clone(),
        s3_endpoint: args.aws.s3_endpoint.clone(),
        s3_path_style: args.aws.s3_path_style,
        ..AwsSettings::default()
    };
    let config = aws::load(&aws).await?;
    let settings = AhiSettings {
        frames_in_flight: args.aws.frames_in_flight,
        frames_per_second: args.aws.frames_per_second,
        allow_non_primary: args.aws.allow_non_primary,
        ..AhiSettings::default()
    };
    let service = Service {
        registry: registry.clone(),
        ahi: AhiClient::new(aws::medical_imaging_client(&config, &aws)?, settings),
        s3: aws::s3_client(&config, &aws)?,
        output_uri: args.output_uri.clone(),
        policy: VolumePolicy::default(),
    };
    let readiness = Readiness::default();
    let app = App {
        scheduler: Arc::new(Scheduler::new(Arc::new(service), args.limits())),
        readiness: readiness.clone(),
        max_body: args.limits.max_body,
    };
    let options = LoadOptions {
        provider: args.network.execution_provider.into(),
        threads: args.network.threads,
    };
    std::thread::spawn(move || {
        let state = registry.load_all(&locations, |location| {
            let model = Model::load(&location.name, &location.path, options)?;
            model.warm_up()?;
            Ok(model)
        });
        readiness.set(match state {
            State::Ready => ReadyState::Ready,
            State::Loading | State::Failed => ReadyState::Failed,
        });
    });
    let stop = CancellationToken::new();
    tokio::spawn(cancel_on_signal(stop.clone())?);
    server::serve(listener, app, stop, Duration::from_secs(args.limits.drain_timeout)).await
}

async fn listen(args: &ServeArgs) -> Result<TcpListener> {
    let address = (args.host, args.port);
    let failed = |e: std::io::Error| {
        Error::new(
            ErrorKind::Configuration,
            format!("cannot listen on {}:{}: {e}", args.host, args.port),
        )
    };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    tracing::info!(address = %bound, "listening");
    println!("listening on http://{bound}");
    Ok(listener)
}

/// A future that cancels `stop` on SIGTERM (SageMaker, `docker stop`) or SIGINT.
pub fn cancel_on_signal(
    stop: CancellationToken,
) -> Result<impl std::future::Future<Output = ()> + Send> {
    let handler = |kind| {
        signal(kind).map_err(|e| Error::internal("signals cannot be handled").caused_by(e))
    };
    let (mut terminate, mut interrupt) =
        (handler(SignalKind::terminate())?, handler(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.cancel();
    })
}
