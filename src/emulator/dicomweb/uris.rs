//! Retrieve URIs of stored objects (PS3.18 section 10.4).

use axum::http::{HeaderMap, header};

/// The prefix of all URIs of a data store, with the host name used by the client.
#[derive(Debug, Clone)]
pub(super) struct Base(String);

impl Base {
    /// Creates the prefix for a data store. Without a usable host name, URIs are paths.
    pub fn new(headers: &HeaderMap, datastore: &str) -> Self {
        let fits = |b: u8| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b);
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let host = host.filter(|host| (1..=255).contains(&host.len()) && host.bytes().all(fits));
        let authority = host.map_or(String::new(), |host| format!("http://{host}"));
        Self(format!("{authority}/datastore/{datastore}"))
    }

    pub fn study(&self, study: &str) -> String {
        format!("{}/studies/{study}", self.0)
    }

    pub fn series(&self, study: &str, series: &str) -> String {
        format!("{}/series/{series}", self.study(study))
    }

    pub fn instance(&self, study: &str, series: &str, instance: &str) -> String {
        format!("{}/instances/{instance}", self.series(study, series))
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn only_hosts_are_repeated() {
        let base = |host: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, HeaderValue::from_static(host));
            Base::new(&headers, "d").instance("1", "2", "3")
        };
        let path = "/datastore/d/studies/1/series/2/instances/3";
        assert_eq!(base("[::1]:80"), format!("http://[::1]:80{path}"));
        assert_eq!(base("a/b"), path);
        assert_eq!(Base::new(&HeaderMap::new(), "d").study("1"), "/datastore/d/studies/1");
    }
}
