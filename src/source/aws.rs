//! Shared setup of all AWS clients of the process: credentials, region, endpoints, TLS, timeouts.
//!
//! Credentials come from the SDK's default chain (environment, profile, web identity, ECS
//! container, IMDS), which covers SageMaker's execution role. All clients share one HTTP client and
//! so one connection pool; its TLS is rustls with ring and the system's root certificates.

use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_medicalimaging::config::endpoint::Params;
use aws_smithy_http_client::tls;
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::endpoint::{EndpointPrefix, EndpointResolverParams};
use aws_smithy_runtime_api::client::interceptors::Intercept;
use aws_smithy_runtime_api::client::interceptors::context::BeforeSerializationInterceptorContextMut;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::config_bag::ConfigBag;

use crate::error::{Error, ErrorKind, Result};

/// Configurable settings of AWS clients; everything else is the SDK's default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AwsSettings {
    /// The region; if `None`, taken from the environment, the profile or the instance.
    pub region: Option<String>,
    /// URL used for AWS HealthImaging as given, without the `runtime-` prefix that the service's
    /// own host names have.
    pub ahi_endpoint: Option<String>,
    /// URL used for Amazon S3.
    pub s3_endpoint: Option<String>,
    /// Whether buckets are in the path instead of the host name, for S3 at a custom endpoint.
    pub s3_path_style: bool,
    /// Maximum number of attempts of calls to STS and other credential providers, including the
    /// first.
    pub max_attempts: u32,
    /// Timeout for establishing a connection.
    pub connect_timeout: Duration,
    /// Timeout from sending a request to the first byte of its response.
    pub read_timeout: Duration,
}

impl Default for AwsSettings {
    fn default() -> Self {
        Self {
            region: None,
            ahi_endpoint: None,
            s3_endpoint: None,
            s3_path_style: false,
            max_attempts: 3,
            connect_timeout: Duration::from_secs(3),
            read_timeout: Duration::from_secs(30),
        }
    }
}

/// Resolves the region and the credential sources. Credentials are only fetched on the first call.
///
/// # Errors
/// `Configuration` if no region is found or an endpoint is not an `http` or `https` URL.
pub async fn sdk_config(settings: &AwsSettings) -> Result<SdkConfig> {
    for (name, url) in [("ahi", &settings.ahi_endpoint), ("s3", &settings.s3_endpoint)] {
        if let Some(url) = url {
            check_endpoint(name, url)?;
        }
    }
    let http_client = aws_smithy_http_client::Builder::new()
        .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring))
        .build_https();
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(settings.connect_timeout)
        .read_timeout(settings.read_timeout)
        .build();
    let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
        .http_client(http_client)
        .timeout_config(timeouts)
        .retry_config(RetryConfig::standard().with_max_attempts(settings.max_attempts.max(1)));
    if let Some(region) = &settings.region {
        loader = loader.region(Region::new(region.clone()));
    }
    let config = loader.load().await;
    if config.region().is_none() {
        return Err(Error::new(
            ErrorKind::Configuration,
            "no AWS region is configured; set AWS_REGION",
        ));
    }
    Ok(config)
}

/// Creates a client of AWS HealthImaging that attempts each call once. Callers retry, because the
/// SDK's own retries do not cover the body of a response; and they give up silent bodies themselves.
pub fn ahi_client(config: &SdkConfig, settings: &AwsSettings) -> aws_sdk_medicalimaging::Client {
    let mut builder = aws_sdk_medicalimaging::config::Builder::from(config)
        .retry_config(RetryConfig::disabled())
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .interceptor(PlainHost);
    if let Some(url) = &settings.ahi_endpoint {
        builder = builder.endpoint_url(url);
    }
    aws_sdk_medicalimaging::Client::from_conf(builder.build())
}

/// Creates a client of Amazon S3 that attempts each call once, like [`ahi_client`].
pub fn s3_client(config: &SdkConfig, settings: &AwsSettings) -> aws_sdk_s3::Client {
    let mut builder = aws_sdk_s3::config::Builder::from(config)
        .retry_config(RetryConfig::disabled())
        .force_path_style(settings.s3_path_style);
    if let Some(url) = &settings.s3_endpoint {
        builder = builder.endpoint_url(url);
    }
    aws_sdk_s3::Client::from_conf(builder.build())
}

fn check_endpoint(name: &str, url: &str) -> Result<()> {
    let host = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    if host.is_some_and(|h| !h.is_empty() && !h.starts_with('/')) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Configuration,
        format!("the {name} endpoint is not a URL that begins with http:// or https://"),
    ))
}

/// Keeps the host of a custom endpoint unchanged.
///
/// The service model puts `runtime-` before the host of every image set operation, even if the
/// endpoint was overridden by a setting, the environment or a profile; `runtime-127.0.0.1` does not
/// resolve. The prefix is removed before the endpoint is applied and the request is signed, so the
/// signature covers the host that is actually sent. The service's own host names keep it.
#[derive(Debug)]
struct PlainHost;

#[aws_smithy_runtime_api::client::interceptors::dyn_dispatch_hint]
impl Intercept for PlainHost {
    fn name(&self) -> &'static str {
        "PlainHost"
    }

    fn modify_before_serialization(
        &self,
        _context: &mut BeforeSerializationInterceptorContextMut<'_>,
        _components: &RuntimeComponents,
        cfg: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let overridden = cfg
            .load::<EndpointResolverParams>()
            .and_then(|params| params.get::<Params>())
            .and_then(Params::endpoint)
            .is_some_and(|url| !is_service_name(url));
        if overridden {
            cfg.interceptor_state().unset::<EndpointPrefix>();
        }
        Ok(())
    }
}

/// Whether a URL's host is one of HealthImaging's public names, which take the `runtime-` prefix.
pub fn is_service_name(url: &str) -> bool {
    let host = url.split_once("://").map_or(url, |(_, rest)| rest);
    host.starts_with("medical-imaging.") || host.starts_with("medical-imaging-fips.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_services_own_names_take_the_prefix() {
        assert!(is_service_name("https://medical-imaging.eu-west-1.amazonaws.com"));
        for url in [
            "http://127.0.0.1:8089",
            "http://[::1]:8089",
            "http://ahi:8089",
            "https://vpce-1.runtime-medical-imaging.eu-west-1.vpce.amazonaws.com",
        ] {
            assert!(!is_service_name(url), "{url}");
        }
    }

    #[test]
    fn endpoints_must_be_urls() {
        assert!(check_endpoint("ahi", "http://ahi:8089").is_ok());
        for url in ["ahi:8089", "", "ftp://ahi", "http://", "https:///x"] {
            let e = check_endpoint("ahi", url).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Configuration, "{url}");
        }
    }
}
