//! Whether and where traces are exported.

use clap::Args;

use super::EndpointUrl;
use crate::error::Result;

/// Flags about traces.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Traces")]
pub struct TraceArgs {
    /// OpenTelemetry collector that spans are exported to, as OTLP in protobuf over HTTP; `/v1/traces` is appended
    /// [default: no traces]
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL")]
    pub otlp_endpoint: Option<EndpointUrl>,
}

impl TraceArgs {
    /// The checked address of the collector; `None` if traces are off. A variable that is set to nothing counts
    /// as not set, as OpenTelemetry's specification has it.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](crate::error::ErrorKind::Configuration) if it is no URL of a host.
    pub fn collector(self) -> Result<Option<EndpointUrl>> {
        let given = self.otlp_endpoint.filter(|url| !url.as_str().is_empty());
        given.map(|url| url.checked("--otlp-endpoint")).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_urls_without_credentials_pass() {
        let collector = |url: &str| TraceArgs { otlp_endpoint: url.parse().ok() }.collector();
        assert_eq!(collector("").unwrap(), None);
        let url = collector("http://127.0.0.1:4318/").unwrap().unwrap();
        assert_eq!(url.as_str(), "http://127.0.0.1:4318");
        for bad in ["127.0.0.1:4318", "http://user:secret@collector:4318", "grpc://collector:4317"]
        {
            let error = collector(bad).unwrap_err();
            assert!(error.message().contains("--otlp-endpoint"), "{error}");
            assert!(!error.message().contains("secret"), "{error}");
        }
    }
}
