//! Archives of DICOM objects that results can be stored in, as requests and settings name them.

use std::fmt;
use std::net::Ipv6Addr;

/// An archive, by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Archive {
    /// The AWS HealthImaging data store that contains the input.
    Input,
    /// An AWS HealthImaging data store, 32 characters of `[0-9a-z]`.
    Datastore(String),
    /// A DICOMweb service.
    Service(ServiceUrl),
}

/// What a request says about storing its DICOM outputs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Store {
    /// Nothing: the server's setting applies.
    #[default]
    Unsaid,
    /// Outputs are not stored.
    Nowhere,
    /// Outputs are stored in this archive.
    In(Archive),
}

impl Store {
    /// Returns this, or `inner` if this is unsaid.
    #[must_use]
    pub fn or(self, inner: Self) -> Self {
        match self {
            Self::Unsaid => inner,
            said => said,
        }
    }
}

/// Whether `id` has the form of a data store's identifier.
pub fn is_datastore_id(id: &str) -> bool {
    id.len() == 32 && id.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase())
}

/// Maximum length of a service's URL.
const LONGEST: usize = 1100;

/// The base URL of a DICOMweb service (PS3.18 section 8.2): scheme, host, port and path, normalised
/// so that two of them can be compared.
///
/// Requests can direct this server to such a URL, so the accepted form is narrow: no credentials,
/// query or fragment, and no path with aliases (`.`, `..`, `//`, percent-encoding).
#[derive(Clone, PartialEq, Eq)]
pub struct ServiceUrl {
    https: bool,
    /// Lower case; IPv6 addresses in brackets.
    host: String,
    port: u16,
    /// Empty, or with a leading but no trailing slash.
    path: String,
}

impl ServiceUrl {
    /// Parses `http://HOST[:PORT][/PATH]` or the same with `https`; `None` for anything else.
    pub fn parse(url: &str) -> Option<Self> {
        if url.len() > LONGEST {
            return None;
        }
        let (scheme, rest) = url.split_once("://")?;
        let https = match scheme.to_ascii_lowercase().as_str() {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        let (host, port) = split_port(authority)?;
        let host = host.to_ascii_lowercase();
        let port = match port {
            Some(port) => port.parse().ok().filter(|port| *port > 0)?,
            None if https => 443,
            None => 80,
        };
        let path = path.strip_suffix('/').unwrap_or(path);
        (is_host(&host) && is_path(path)).then(|| Self { https, host, port, path: path.to_owned() })
    }

    /// Returns scheme, host and port as browsers write an origin: without the scheme's default
    /// port.
    pub fn origin(&self) -> String {
        let (scheme, usual) = if self.https { ("https", 443) } else { ("http", 80) };
        if self.port == usual {
            format!("{scheme}://{}", self.host)
        } else {
            format!("{scheme}://{}:{}", self.host, self.port)
        }
    }

    /// Whether both have the same scheme, host and port.
    pub fn same_origin(&self, other: &Self) -> bool {
        (self.https, &self.host, self.port) == (other.https, &other.host, other.port)
    }

    /// Whether this is `base` or below it, in terms of folders: `/a` contains `/a` and `/a/b`, not
    /// `/ab`.
    pub fn is_within(&self, base: &Self) -> bool {
        let below = self
            .path
            .strip_prefix(&base.path)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        self.same_origin(base) && below
    }

    /// Whether data sent there can be read in transit: no TLS, and another machine.
    pub fn is_in_the_clear(&self) -> bool {
        let local = matches!(self.host.as_str(), "localhost" | "[::1]")
            || self.host.parse::<std::net::Ipv4Addr>().is_ok_and(|host| host.is_loopback());
        !self.https && !local
    }

    /// Returns the path below the origin: empty, or with a leading but no trailing slash.
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl fmt::Display for ServiceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.origin(), self.path)
    }
}

impl fmt::Debug for ServiceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Splits an authority without credentials into host and port.
fn split_port(authority: &str) -> Option<(&str, Option<&str>)> {
    if authority.contains('@') {
        return None;
    }
    if let Some(end) = authority.find(']') {
        let (host, rest) = authority.split_at(end + 1);
        return match rest {
            "" => Some((host, None)),
            rest => Some((host, Some(rest.strip_prefix(':')?))),
        };
    }
    Some(match authority.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    })
}

/// Whether `host` is a name or an address: letters, digits, hyphens and periods, or IPv6 in
/// brackets.
fn is_host(host: &str) -> bool {
    if let Some(address) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return address.parse::<Ipv6Addr>().is_ok();
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.');
    (1..=253).contains(&host.len()) && host.bytes().all(plain) && !host.contains("..")
}

fn is_path(path: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&b);
    let mut segments = path.split('/');
    segments.next() == Some("")
        && segments.all(|s| !matches!(s, "" | "." | "..") && s.bytes().all(plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> ServiceUrl {
        ServiceUrl::parse(text).unwrap_or_else(|| panic!("{text}"))
    }

    #[test]
    fn urls_have_one_form() {
        for (given, form) in [
            ("HTTPS://Archive.Example:443/dicom-web/", "https://archive.example/dicom-web"),
            ("http://127.0.0.1:8042/a/b", "http://127.0.0.1:8042/a/b"),
            ("http://host:80", "http://host"),
            ("http://[::1]:8042/x", "http://[::1]:8042/x"),
            (
                "https://h/v1/projects/p/dicomStores/s:1/dicomWeb",
                "https://h/v1/projects/p/dicomStores/s:1/dicomWeb",
            ),
        ] {
            assert_eq!(url(given).to_string(), form);
        }
    }

    #[test]
    fn urls_that_may_mean_another_place_are_refused() {
        for text in [
            "",
            "host",
            "ftp://host",
            "file:///etc",
            "http://",
            "http:///a",
            "http://user@host/a",
            "http://allowed@evil/a",
            "http://host:0/a",
            "http://host:99999/a",
            "http://host:8o/a",
            "http://[::1/a",
            "http://[::1]x/a",
            "http://ho st/a",
            "http://host\\@evil/a",
            "http://host/a/../b",
            "http://host/a/%2e%2e/b",
            "http://host/a//b",
            "http://host/./a",
            "http://host/a?x=1",
            "http://host?x=1",
            "http://host/a#x",
            "http://host/a\r\nHost: evil",
            "http://höst/a",
        ] {
            assert_eq!(ServiceUrl::parse(text), None, "{text}");
        }
        assert_eq!(ServiceUrl::parse(&format!("http://h/{}", "a".repeat(LONGEST))), None);
    }

    #[test]
    fn bases_are_folders_of_one_origin() {
        let base = url("https://archive.example/dicom-web");
        for inside in
            ["https://archive.example/dicom-web", "https://ARCHIVE.example:443/dicom-web/site/1/"]
        {
            assert!(url(inside).is_within(&base), "{inside}");
        }
        for outside in [
            "https://archive.example",
            "https://archive.example/dicom-web2",
            "http://archive.example/dicom-web",
            "https://archive.example:8443/dicom-web",
            "https://archive.example.evil/dicom-web",
            "https://evil/dicom-web",
        ] {
            assert!(!url(outside).is_within(&base), "{outside}");
        }
        assert!(url("https://archive.example/anything").is_within(&url("https://archive.example")));
    }

    #[test]
    fn secrets_are_safe_with_tls_or_at_home() {
        for (text, clear) in [
            ("https://archive.example", false),
            ("http://127.0.0.1:8042", false),
            ("http://[::1]/a", false),
            ("http://archive.example", true),
            ("http://127.0.0.1.evil.example", true),
        ] {
            assert_eq!(url(text).is_in_the_clear(), clear, "{text}");
        }
    }
}
