//! Exports spans to a collector in the background.

use std::time::Duration;

use opentelemetry::trace::TracerProvider;
use opentelemetry::{Key, KeyValue};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;

use super::TRACER;
use super::client::Client;
use crate::error::{Error, ErrorKind, Result};

/// Time for the last spans to leave at the end: the platform kills the process 30 s after its SIGTERM, of which
/// draining and flushing answers take 28.
const LAST: Duration = Duration::from_millis(1500);

/// Exports spans until it is dropped. Dropping it flushes the last spans, for at most 1.5 s.
#[derive(Debug)]
pub struct Exporting(SdkTracerProvider);

impl Drop for Exporting {
    fn drop(&mut self) {
        if let Err(error) = self.0.shutdown_with_timeout(LAST) {
            tracing::warn!(%error, "the last traces may be lost");
        }
    }
}

/// Starts to record spans and to export them in batches to `collector`. OpenTelemetry's environment variables
/// configure the rest: `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_TRACES_SAMPLER` and its argument,
/// `OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_BSP_*`.
///
/// # Errors
/// [`ErrorKind::Configuration`] if the URL cannot be used; [`ErrorKind::Internal`] if it is called twice or the
/// thread of the exporter cannot be started.
pub fn export(collector: &str) -> Result<Exporting> {
    let endpoint = format!("{collector}/v1/traces");
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(Client::new()?)
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(endpoint)
        .build()
        .map_err(|e| Error::new(ErrorKind::Configuration, format!("--otlp-endpoint: {e}")))?;
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_resource(resource())
        .build();
    TRACER
        .set(provider.tracer(env!("CARGO_PKG_NAME")))
        .map_err(|_| Error::internal("the export of traces was started twice"))?;
    Ok(Exporting(provider))
}

/// Describes the process: `service.name` from the environment, else the program's name, and its version.
fn resource() -> Resource {
    let given = Resource::builder().build();
    let name = given.get(&Key::new("service.name")).map(|name| name.to_string());
    let builder = Resource::builder()
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
    match name {
        Some(name) if !name.starts_with("unknown_service") => builder.build(),
        _ => builder.with_service_name(env!("CARGO_PKG_NAME")).build(),
    }
}
