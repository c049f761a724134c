//! The exporter's HTTP client: the TLS stack of the other clients, on the exporter's own thread.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use aws_smithy_http_client::{Connector, tls};
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_types::body::SdkBody;
use http_body_util::{BodyExt, Limited};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use tokio::runtime::{Builder, Runtime};

use crate::error::{Error, Result, chain};

/// Time for one export.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The longest answer of a collector that is read, in bytes.
const LONGEST: usize = 1 << 20;

/// Sends batches of spans. Logs only when exports start to fail and when they work again, not every batch.
#[derive(Debug)]
pub(super) struct Client {
    runtime: Runtime,
    connector: SharedHttpConnector,
    failing: AtomicBool,
}

impl Client {
    /// # Errors
    /// [`ErrorKind::Internal`](crate::error::ErrorKind::Internal) if the runtime cannot be started.
    pub fn new() -> Result<Self> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| Error::internal("threads cannot be started").caused_by(e))?;
        let settings = HttpConnectorSettings::builder().connect_timeout(TIMEOUT).build();
        let connector = Connector::builder()
            .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring))
            .connector_settings(settings)
            .build();
        let connector = SharedHttpConnector::new(connector);
        Ok(Self { runtime, connector, failing: AtomicBool::new(false) })
    }

    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (head, body) = request.into_parts();
        let mut request = HttpRequest::new(SdkBody::from(body));
        request.set_method(head.method.as_str())?;
        request.set_uri(head.uri.to_string())?;
        for (name, value) in &head.headers {
            request
                .headers_mut()
                .try_insert(name.as_str().to_owned(), value.to_str()?.to_owned())?;
        }
        let answer = self.connector.call(request).await.map_err(|e| chain(&e))?;
        let mut response = Response::builder().status(answer.status().as_u16());
        for (name, value) in answer.headers() {
            response = response.header(name, value);
        }
        let body = Limited::new(answer.into_body(), LONGEST).collect().await?;
        Ok(response.body(body.to_bytes())?)
    }

    /// Logs changes of state.
    fn note(&self, problem: Option<String>) {
        let failed = self.failing.swap(problem.is_some(), Ordering::Relaxed);
        match problem {
            Some(problem) if !failed => {
                tracing::warn!(
                    problem,
                    "traces cannot be exported; they are dropped until they can"
                );
            }
            None if failed => tracing::info!("traces are exported again"),
            _ => {}
        }
    }
}

#[async_trait]
impl HttpClient for Client {
    /// Blocks its thread: the batch processor has a thread of its own.
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        // A timer is created within the runtime alone.
        let sending = async { tokio::time::timeout(TIMEOUT, self.send(request)).await };
        let sent = self.runtime.block_on(sending);
        let sent = sent.unwrap_or_else(|_| Err(format!("no answer within {TIMEOUT:?}").into()));
        self.note(match &sent {
            Ok(response) if response.status().is_success() => None,
            Ok(response) => Some(format!("the collector answered {}", response.status())),
            Err(error) => Some(error.to_string()),
        });
        sent
    }
}
