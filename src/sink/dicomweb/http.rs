//! Sends one HTTP request: one attempt, no redirects, a bounded response.

use std::time::Duration;

use aws_smithy_http_client::{Connector, tls};
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::byte_stream::ByteStream;
use bytes::Bytes;

use crate::aws::Fault;
use crate::aws::body::{Length, whole};
use crate::aws::call::Watch;
use crate::error::{Error, ErrorKind, chain};

/// TLS connections, set up as in the rest of the program.
#[derive(Debug)]
pub(super) struct Http {
    connector: SharedHttpConnector,
}

/// A request without its body.
#[derive(Debug, Clone)]
pub(super) struct Head {
    pub method: &'static str,
    pub url: String,
    pub headers: Vec<(&'static str, String)>,
}

/// A response.
#[derive(Debug)]
pub(super) struct Response {
    pub status: u16,
    /// AWS's error code, if there is one.
    pub code: Option<String>,
    pub body: Bytes,
}

impl Http {
    pub fn new(connect_timeout: Duration) -> Self {
        let settings = HttpConnectorSettings::builder().connect_timeout(connect_timeout).build();
        let connector = Connector::builder()
            .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring))
            .connector_settings(settings)
            .build();
        Self { connector: SharedHttpConnector::new(connector) }
    }

    /// Sends a request and reads the response, of at most `longest` bytes.
    ///
    /// # Errors
    /// A transient fault if there is no response or it breaks off; a permanent one if it is too
    /// long.
    pub async fn send(
        &self,
        operation: &'static str,
        head: Head,
        body: SdkBody,
        longest: u64,
        watch: &Watch,
    ) -> Result<Response, Fault> {
        let mut request = HttpRequest::new(body);
        let malformed = |e| Fault::from_build(operation, e);
        request.set_method(head.method).map_err(malformed)?;
        request.set_uri(head.url).map_err(malformed)?;
        for (name, value) in head.headers {
            request.headers_mut().try_insert(name, value).map_err(malformed)?;
        }
        let response = self.connector.call(request).await.map_err(|e| {
            let what = format!("{operation}: the connection cannot be made or broke off");
            Fault::passing(Error::new(ErrorKind::Upstream, what).caused_by(chain(&e)))
        })?;
        watch.progress();
        let status = response.status().as_u16();
        let code = response
            .headers()
            .get("x-amzn-errortype")
            .map(|text| text.split(':').next().unwrap_or(text).trim().to_owned());
        let body = ByteStream::new(response.into_body());
        let body =
            whole(operation, body, Length::AtMost(longest), watch).await.map_err(|fault| {
                match fault.error.kind() {
                    ErrorKind::PayloadTooLarge => {
                        let what =
                            format!("{operation} was answered with more than {longest} bytes");
                        Fault::last(Error::new(ErrorKind::Upstream, what))
                    }
                    _ => fault,
                }
            })?;
        watch.arrived();
        Ok(Response { status, code, body })
    }
}
