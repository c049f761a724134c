//! Endpoint overrides.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

use crate::error::Result;

/// An endpoint that replaces the one the AWS SDK would choose. `Debug` shows only the scheme and
/// the host.
#[derive(Clone, PartialEq, Eq)]
pub struct EndpointUrl(String);

impl EndpointUrl {
    /// Returns the URL as given, without trailing slashes.
    pub fn as_str(&self) -> &str {
        self.0.trim_end_matches('/')
    }

    /// Checks that this is an `http` or `https` URL with a host and without credentials, query or
    /// fragment. The error names `flag` but not the value.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](crate::error::ErrorKind::Configuration).
    pub fn checked(self, flag: &str) -> Result<Self> {
        let Some(rest) = self.0.strip_prefix("http://").or_else(|| self.0.strip_prefix("https://"))
        else {
            return Err(super::wrong(flag, "must start with http:// or https://"));
        };
        if rest.contains('@') {
            return Err(super::wrong(
                flag,
                "must not hold credentials; the AWS credential chain provides them",
            ));
        }
        if rest.contains(['?', '#']) || rest.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(super::wrong(flag, "must be scheme, host, port and path only"));
        }
        if rest.starts_with(['/', ':']) || rest.is_empty() {
            return Err(super::wrong(flag, "names no host"));
        }
        Ok(self)
    }
}

// Infallible, because clap repeats a value that fails to parse in its error.
impl FromStr for EndpointUrl {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.trim().to_owned()))
    }
}

impl fmt::Debug for EndpointUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, rest) = self.0.split_once("://").unwrap_or(("", self.0.as_str()));
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        match authority.rsplit_once('@') {
            Some((_, host)) => write!(f, "{scheme}://[redacted]@{host}/…"),
            None => write!(f, "{scheme}://{authority}/…"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> EndpointUrl {
        text.parse().unwrap()
    }

    #[test]
    fn credentials_are_refused_and_never_shown() {
        let given = url("https://user:hunter2@host:1/x?token=hunter2");
        assert!(!format!("{given:?}").contains("hunter2"), "{given:?}");
        let error = given.checked("--s3-endpoint-url").unwrap_err();
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        assert!(error.message().contains("--s3-endpoint-url"), "{error}");
    }

    #[test]
    fn only_http_urls_of_a_host_pass() {
        for bad in ["", "host:1", "ftp://h", "http://", "http:///x", "http://h?x", "http://a b"] {
            assert!(url(bad).checked("--x").is_err(), "{bad}");
        }
        let good = url("http://127.0.0.1:9000/").checked("--x").unwrap();
        assert_eq!(good.as_str(), "http://127.0.0.1:9000");
    }
}
