//! Which model a request asks for: it may say so in three places, which must agree.

use axum::http::{HeaderMap, HeaderName};

use super::custom_attributes::{CUSTOM_ATTRIBUTES, values_of};
use crate::error::{Error, ErrorKind, Result};

const TARGET_MODEL: HeaderName = HeaderName::from_static("x-amzn-sagemaker-target-model");

/// Longest model name that can mean anything.
const LONGEST: usize = 1024;

/// The model named by `X-Amzn-SageMaker-Target-Model`, by `model=NAME` among
/// `X-Amzn-SageMaker-Custom-Attributes`, or by the body's field `model`.
///
/// # Errors
/// [`ErrorKind::InvalidRequest`] where they differ (but for a trailing `.tar.gz`), or one of them
/// is not a name.
pub(super) fn requested(headers: &HeaderMap, body: Option<String>) -> Result<Option<String>> {
    let mut chosen: Option<(String, &str)> = None;
    let target =
        values(headers, &TARGET_MODEL)?.into_iter().map(|v| (v, "the target model header"));
    let attributes = values(headers, &CUSTOM_ATTRIBUTES)?;
    let attributes = attributes
        .iter()
        .flat_map(|header| values_of(header, "model"))
        .map(|name| (name.to_owned(), "the custom attributes"));
    let body = body.into_iter().map(|name| (name, "the body's model"));
    for (name, place) in target.chain(attributes).chain(body) {
        if name.is_empty() || name.len() > LONGEST {
            return Err(invalid(format!("{place} must hold a name of 1 to {LONGEST} bytes")));
        }
        match &chosen {
            Some((first, first_place)) if plain(first) != plain(&name) => {
                return Err(invalid(format!(
                    "{first_place} and {place} name different models; name one"
                )));
            }
            Some(_) => {}
            None => chosen = Some((name, place)),
        }
    }
    Ok(chosen.map(|(name, _)| name))
}

/// The model named by the route `/models/NAME/invoke`. The platform made that name up and repeats the
/// caller's (`TargetModel`) in a header; a name elsewhere in the request must be one of these two.
///
/// # Errors
/// [`ErrorKind::InvalidRequest`] where it is another one.
pub(super) fn routed(headers: &HeaderMap, body: Option<String>, route: &str) -> Result<String> {
    let others = requested(&without_target(headers), body)?;
    let targets = values(headers, &TARGET_MODEL)?;
    let is = |known: &str, name: &str| {
        let file = known.rsplit('/').next().unwrap_or(known);
        plain(known) == plain(name) || plain(file) == plain(name)
    };
    match others {
        Some(name) if plain(route) != plain(&name) && !targets.iter().any(|t| is(t, &name)) => {
            Err(invalid(
                "the request names another model than the one it was sent to; leave the name out"
                    .to_owned(),
            ))
        }
        _ => Ok(route.to_owned()),
    }
}

fn without_target(headers: &HeaderMap) -> HeaderMap {
    let mut others = headers.clone();
    others.remove(TARGET_MODEL);
    others
}

fn plain(name: &str) -> &str {
    name.strip_suffix(".tar.gz").unwrap_or(name)
}

fn values(headers: &HeaderMap, name: &HeaderName) -> Result<Vec<String>> {
    let text = |v: &axum::http::HeaderValue| v.to_str().map(|s| s.trim().to_owned());
    let texts: Result<Vec<String>, _> = headers.get_all(name).iter().map(text).collect();
    texts.map_err(|_| invalid(format!("the header {name} must be visible ASCII characters")))
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidRequest, message)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn choose(target: &str, attributes: &str, body: &str) -> Result<Option<String>> {
        let mut headers = HeaderMap::new();
        for (name, value) in [(TARGET_MODEL, target), (CUSTOM_ATTRIBUTES, attributes)] {
            if value != "-" {
                headers.insert(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
            }
        }
        requested(&headers, (body != "-").then(|| body.to_owned()))
    }

    #[test]
    fn any_place_will_do() {
        assert_eq!(choose("-", "-", "-").unwrap(), None);
        for (target, attributes, body) in [
            ("spleen", "-", "-"),
            ("-", "trace=7,model=spleen", "-"),
            ("-", "opaque; model=spleen", "-"),
            ("-", "-", "spleen"),
            ("spleen", "model=spleen.tar.gz", "spleen"),
        ] {
            let name = choose(target, attributes, body).unwrap();
            assert_eq!(name.as_deref(), Some("spleen"), "{target} {attributes} {body}");
        }
        assert_eq!(choose("-", "opaque text", "-").unwrap(), None);
    }

    #[test]
    fn a_route_is_not_contradicted() {
        let ask = |target: &str, attributes: &str, body: Option<&str>| {
            let mut headers = HeaderMap::new();
            for (name, value) in [(TARGET_MODEL, target), (CUSTOM_ATTRIBUTES, attributes)] {
                if value != "-" {
                    headers.insert(name, HeaderValue::from_str(value).unwrap());
                }
            }
            routed(&headers, body.map(str::to_owned), "8f3a").ok()
        };
        for (target, attributes, body) in [
            ("-", "-", None),
            ("organs/spleen.tar.gz", "-", None),
            ("organs/spleen.tar.gz", "-", Some("spleen")),
            ("organs/spleen.tar.gz", "-", Some("organs/spleen.tar.gz")),
            ("spleen.tar.gz", "model=spleen", Some("spleen")),
            ("-", "-", Some("8f3a")),
        ] {
            let name = ask(target, attributes, body);
            assert_eq!(name.as_deref(), Some("8f3a"), "{target} {attributes} {body:?}");
        }
        for (target, attributes, body) in [
            ("organs/spleen.tar.gz", "-", Some("lung")),
            ("spleen.tar.gz", "model=lung", None),
            ("-", "-", Some("spleen")),
            ("-", "-", Some("")),
        ] {
            assert_eq!(ask(target, attributes, body), None, "{target} {attributes} {body:?}");
        }
    }

    #[test]
    fn places_that_disagree_are_refused() {
        for (target, attributes, body) in [
            ("spleen", "-", "lung"),
            ("spleen", "model=lung", "-"),
            ("-", "model=a,model=b", "-"),
            ("", "-", "-"),
            ("-", "model=", "-"),
            ("-", "-", ""),
            ("\u{e9}", "-", "-"),
        ] {
            let error = choose(target, attributes, body).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{target} {attributes} {body}");
        }
    }
}
