//! Protects this server from pages of other hosts.
//!
//! A browser on this machine can reach the server on behalf of any page it shows. A page of another
//! origin may send requests here, and may let its own name resolve to this machine's address (DNS
//! rebinding). If the page is enabled, every request must therefore address the server by one of
//! its own names, and requests with side effects must not come from another origin. Other programs
//! do not send these headers; only the host name check applies to them.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{HOST, ORIGIN};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, Method};
use axum::middleware::Next;
use axum::response::Response;

use crate::config::UiSettings;
use crate::error::{Error, ErrorKind, Result};
use crate::server::context::Context;
use crate::server::{App, METRICS, PING, status};

/// The browser's statement of where a request comes from.
const SEC_FETCH_SITE: &str = "sec-fetch-site";

/// Rejects requests from pages of other hosts if the page is enabled.
pub(in crate::server) async fn check(
    State(app): State<Arc<App>>,
    request: Request,
    next: Next,
) -> Response {
    let Some(ui) = &app.ui else { return next.run(request).await };
    let path = request.uri().path();
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    // The platform may probe by any name or address.
    if reads && (path == PING || path == METRICS) {
        return next.run(request).await;
    }
    // Links from anywhere may lead to the page, but not to its API.
    let open = reads && !path.starts_with("/ui/api/");
    match permitted(&ui.settings, request.headers(), open) {
        Ok(()) => next.run(request).await,
        Err(error) => {
            let context = request.extensions().get::<Context>();
            status::respond(&error, context.map_or("", |context| &context.request_id))
        }
    }
}

fn permitted(settings: &UiSettings, headers: &HeaderMap, open: bool) -> Result<()> {
    let host = single(headers, HOST.as_str())
        .and_then(|host| host.parse::<Authority>().ok())
        .filter(|host| is_own(settings, host.host()));
    let Some(host) = host else {
        return Err(denied(
            "Host",
            "the header Host is not a name of this server; use localhost, or list the name in UI_HOSTS",
        ));
    };
    if open {
        return Ok(());
    }
    let foreign = || denied("Origin", "the request comes from a page of another host");
    // A page on another port of the same host is another page: `same-site` is not enough.
    if headers.contains_key(SEC_FETCH_SITE)
        && !matches!(single(headers, SEC_FETCH_SITE), Some("same-origin" | "none"))
    {
        return Err(foreign());
    }
    if headers.contains_key(ORIGIN) {
        // Ignore the scheme: it may be that of a reverse proxy.
        let origin = single(headers, ORIGIN.as_str()).and_then(|origin| origin.split_once("://"));
        if !origin.is_some_and(|(_, from)| from.eq_ignore_ascii_case(host.as_str())) {
            return Err(foreign());
        }
    }
    Ok(())
}

/// Whether `host` is a name of this server. IP addresses are safe from DNS rebinding.
fn is_own(settings: &UiSettings, host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if let Ok(address) = bare.parse::<IpAddr>() {
        return settings.allow_remote || address.is_loopback();
    }
    host.eq_ignore_ascii_case("localhost")
        || settings.hosts.iter().any(|name| host.eq_ignore_ascii_case(name))
}

/// Returns the value of a header that must occur exactly once.
fn single<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

fn denied(header: &str, problem: &str) -> Error {
    Error::new(ErrorKind::AccessDenied, problem).with("header", header)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderName;

    use super::*;

    fn permits(settings: &UiSettings, headers: &[(&str, &str)], open: bool) -> bool {
        let pairs = headers.iter().map(|(name, value)| {
            (HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap())
        });
        let mut map = HeaderMap::new();
        pairs.for_each(|(name, value)| {
            map.append(name, value);
        });
        permitted(settings, &map, open).is_ok()
    }

    fn settings(allow_remote: bool) -> UiSettings {
        UiSettings { allow_remote, hosts: vec!["reading.example".to_owned()], assets: None }
    }

    #[test]
    fn the_server_goes_by_its_own_names_alone() {
        let local = settings(false);
        for host in
            ["localhost", "LOCALHOST:8080", "127.0.0.1:8080", "[::1]:80", "reading.example:1"]
        {
            assert!(permits(&local, &[("host", host)], true), "{host}");
        }
        for host in ["evil.example", "localhost.evil.example", "192.168.1.2", "a b", "[::2]", ""] {
            assert!(!permits(&local, &[("host", host)], true), "{host}");
        }
        assert!(!permits(&local, &[], true), "without any");
        assert!(!permits(&local, &[("host", "localhost"), ("host", "localhost")], true), "two");
        assert!(permits(&settings(true), &[("host", "192.168.1.2:8080")], true));
        assert!(!permits(&settings(true), &[("host", "evil.example")], true));
    }

    #[test]
    fn what_does_something_comes_from_the_page_or_from_no_page() {
        let host = ("host", "localhost:8080");
        let local = settings(false);
        for own in [
            &[host][..],
            &[host, ("origin", "http://localhost:8080"), ("sec-fetch-site", "same-origin")],
            &[host, ("origin", "https://localhost:8080")],
            &[host, ("sec-fetch-site", "none")],
        ] {
            assert!(permits(&local, own, false), "{own:?}");
        }
        for foreign in [
            &[host, ("origin", "http://localhost:9090")][..],
            &[host, ("origin", "null")],
            &[host, ("origin", "http://evil.example")],
            &[host, ("sec-fetch-site", "cross-site")],
            &[host, ("sec-fetch-site", "same-site")],
            &[host, ("sec-fetch-site", "same-origin"), ("sec-fetch-site", "none")],
        ] {
            assert!(!permits(&local, foreign, false), "{foreign:?}");
            assert!(permits(&local, foreign, true), "a link: {foreign:?}");
        }
    }
}
