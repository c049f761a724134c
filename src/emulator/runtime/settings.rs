//! Parses the endpoints from a JSON file.
//!
//! ```json
//! {
//!   "workshop": {"url": "http://127.0.0.1:8080", "multiModel": {"s3Prefix": "s3://models/prefix/"}},
//!   "workshop-async": {
//!     "url": "http://127.0.0.1:8081",
//!     "async": {
//!       "s3OutputPath": "s3://results/out", "s3FailurePath": "s3://results/failed",
//!       "maxConcurrentInvocationsPerInstance": 4
//!     }
//!   }
//! }
//! ```

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use super::super::objects::Location;
use crate::config::EndpointUrl;
use crate::error::{Error, ErrorKind, Result};

/// Maximum length of an endpoint name.
const LONGEST_NAME: usize = 63;

/// The endpoints by name.
pub type Endpoints = BTreeMap<String, EndpointSettings>;

/// An endpoint: a running server, and how the platform exposes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointSettings {
    /// The URL of the server, without a trailing slash.
    pub url: String,
    /// How the endpoint is called.
    pub kind: EndpointKind,
}

/// How an endpoint is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EndpointKind {
    /// In real time, with the server's own models.
    RealTime,
    /// In real time, with models loaded on demand.
    MultiModel {
        /// The prefix of the model locations.
        prefix: Location,
    },
    /// Asynchronously.
    Asynchronous {
        /// The prefix for responses.
        output: Location,
        /// The prefix for failures.
        failure: Option<Location>,
        /// Requests sent to the server concurrently, at least 1.
        concurrency: usize,
    },
}

/// Limits of the platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Maximum size in bytes of a real-time request or response.
    pub body: usize,
    /// Time limit of a real-time response.
    pub invocation: Duration,
    /// Time limit of a streamed response, from the call to its end.
    pub stream: Duration,
}

impl Default for Limits {
    /// The limits of SageMaker.
    fn default() -> Self {
        let (invocation, stream) = (Duration::from_secs(60), Duration::from_secs(8 * 60));
        Self { body: 25 << 20, invocation, stream }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Described {
    url: String,
    multi_model: Option<MultiModel>,
    #[serde(rename = "async")]
    asynchronous: Option<Asynchronous>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct MultiModel {
    s3_prefix: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Asynchronous {
    s3_output_path: String,
    s3_failure_path: Option<String>,
    max_concurrent_invocations_per_instance: Option<usize>,
}

/// Reads the endpoints from a file.
///
/// # Errors
/// [`ErrorKind::Configuration`], naming the file and the problem.
pub fn read(file: &Path) -> Result<Endpoints> {
    let text = std::fs::read(file).map_err(|e| {
        let problem = format!("--endpoints: {} cannot be read: {e}", file.display());
        Error::new(ErrorKind::Configuration, problem)
    })?;
    parse(&text).map_err(|e| e.context(file.display()))
}

fn parse(text: &[u8]) -> Result<Endpoints> {
    let mut json = serde_json::Deserializer::from_slice(text);
    let described: BTreeMap<String, Described> = serde_path_to_error::deserialize(&mut json)
        .map_err(|e| wrong(format!("{}: {}", e.path(), e.inner())))?;
    let endpoint = |(name, endpoint): (String, Described)| {
        if !is_name(&name) {
            let problem = "is not 1 to 63 letters and digits with hyphens between them";
            return Err(wrong(format!("the endpoint's name '{name}' {problem}")));
        }
        let settings = endpoint.settings().map_err(|e| wrong(format!("{name}.{}", e.message())))?;
        Ok((name, settings))
    };
    described.into_iter().map(endpoint).collect()
}

impl Described {
    fn settings(self) -> Result<EndpointSettings> {
        let url = self.url.parse::<EndpointUrl>().unwrap_or_else(|never| match never {});
        let url = url.checked("url")?;
        if !url.as_str().starts_with("http://") {
            return Err(wrong("url must start with http://; containers do not speak TLS"));
        }
        let kind = match (self.multi_model, self.asynchronous) {
            (None, None) => EndpointKind::RealTime,
            (Some(models), None) => EndpointKind::MultiModel {
                prefix: location("multiModel.s3Prefix", &models.s3_prefix)?,
            },
            (None, Some(asynchronous)) => asynchronous.kind()?,
            (Some(_), Some(_)) => {
                return Err(wrong(
                    "multiModel and async exclude each other: SageMaker calls multi-model endpoints \
                     in real time only",
                ));
            }
        };
        Ok(EndpointSettings { url: url.as_str().to_owned(), kind })
    }
}

impl Asynchronous {
    fn kind(self) -> Result<EndpointKind> {
        let concurrency = self.max_concurrent_invocations_per_instance.unwrap_or(4);
        if !(1..=1000).contains(&concurrency) {
            return Err(wrong("async.maxConcurrentInvocationsPerInstance must be 1 to 1000"));
        }
        let failure = self.s3_failure_path.as_deref();
        Ok(EndpointKind::Asynchronous {
            output: location("async.s3OutputPath", &self.s3_output_path)?,
            failure: failure.map(|uri| location("async.s3FailurePath", uri)).transpose()?,
            concurrency,
        })
    }
}

fn location(path: &str, uri: &str) -> Result<Location> {
    Location::parse(uri).map_err(|e| wrong(format!("{path}: {}", e.message())))
}

fn is_name(name: &str) -> bool {
    name.len() <= LONGEST_NAME
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && !name.is_empty()
        && !name.starts_with('-')
        && !name.ends_with('-')
}

fn wrong(problem: impl Into<String>) -> Error {
    Error::new(ErrorKind::Configuration, problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_endpoints() {
        let endpoints = parse(
            br#"{"a": {"url": "http://h:1/"}, "b": {"url": "http://h", "multiModel": {"s3Prefix": "s3://mmm/p/"}},
                 "c": {"url": "http://h", "multiModel": null, "async": {"s3OutputPath": "s3://ooo"}}}"#,
        )
        .unwrap();
        assert_eq!(
            endpoints["a"],
            EndpointSettings { url: "http://h:1".to_owned(), kind: EndpointKind::RealTime }
        );
        let prefix = Location::parse("s3://mmm/p/").unwrap();
        assert_eq!(endpoints["b"].kind, EndpointKind::MultiModel { prefix });
        let output = Location::parse("s3://ooo").unwrap();
        let kind = EndpointKind::Asynchronous { output, failure: None, concurrency: 4 };
        assert_eq!(endpoints["c"].kind, kind);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, named) in [
            ("{", "EOF"),
            (r#"{"a": {}}"#, "url"),
            (r#"{"a": {"url": "http://h", "colour": 1}}"#, "colour"),
            (r#"{"-a": {"url": "http://h"}}"#, "-a"),
            (r#"{"a": {"url": "https://h"}}"#, "a.url"),
            (
                r#"{"a": {"url": "http://h", "multiModel": {"s3Prefix": "/m"}}}"#,
                "a.multiModel.s3Prefix",
            ),
            (
                r#"{"a": {"url": "http://h", "multiModel": {"s3Prefix": "s3://mmm"}, "async": {"s3OutputPath": "s3://ooo"}}}"#,
                "exclude",
            ),
            (
                r#"{"a": {"url": "http://h", "async": {"s3OutputPath": "s3://ooo", "maxConcurrentInvocationsPerInstance": 0}}}"#,
                "maxConcurrent",
            ),
        ] {
            let error = parse(text.as_bytes()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Configuration);
            assert!(error.message().contains(named), "{error}");
        }
    }
}
