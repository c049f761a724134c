//! Request bodies and their declared media types.

use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE};

use crate::error::{Error, ErrorKind, Result};

/// The kind of content in a request body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Media {
    /// A JSON request.
    Json,
    /// JSON Lines: one request per line.
    JsonLines,
    /// A DICOM file, or an archive of them.
    Images,
}

const JSON_LINES: [&str; 4] = [
    "application/jsonlines",
    "application/jsonl",
    "application/x-ndjson",
    "application/x-jsonlines",
];

/// Archive formats are detected from their content, so any of these types is accepted for all of
/// them.
const IMAGES: [&str; 10] = [
    "application/dicom",
    "application/zip",
    "application/x-zip-compressed",
    "application/x-tar",
    "application/tar",
    "application/gzip",
    "application/x-gzip",
    "application/x-gtar",
    "application/x-compressed-tar",
    "application/octet-stream",
];

/// Returns the declared kind of body; JSON if no content type is given. The body must not have a
/// content encoding, and JSON must be UTF-8.
///
/// # Errors
/// [`ErrorKind::UnsupportedMediaType`].
pub(super) fn media(headers: &HeaderMap) -> Result<Media> {
    let unsupported = |what: &str| Error::new(ErrorKind::UnsupportedMediaType, what);
    let encodings = headers.get_all(CONTENT_ENCODING);
    if !encodings.iter().all(|v| v.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Err(unsupported("compressed bodies are not read; send the request as it is"));
    }
    let Some(value) = headers.get(CONTENT_TYPE) else { return Ok(Media::Json) };
    let mut parts = value.to_str().unwrap_or_default().split(';');
    let named = parts.next().map(|t| t.trim().to_ascii_lowercase()).unwrap_or_default();
    if IMAGES.contains(&named.as_str()) {
        return Ok(Media::Images);
    }
    let media = match named.as_str() {
        "application/json" => Media::Json,
        lines if JSON_LINES.contains(&lines) => Media::JsonLines,
        _ => {
            return Err(unsupported(
                "the content type must be application/json, application/jsonlines, \
                 application/dicom, application/zip, application/x-tar or application/gzip",
            ));
        }
    };
    let charset = parts
        .filter_map(|p| p.split_once('='))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("charset"));
    match charset {
        Some((_, set)) if !set.trim().trim_matches('"').eq_ignore_ascii_case("utf-8") => {
            Err(unsupported("JSON is read in UTF-8 only"))
        }
        _ => Ok(media),
    }
}

/// Checks that the declared body is JSON.
///
/// # Errors
/// [`ErrorKind::UnsupportedMediaType`].
pub(super) fn ensure_json(headers: &HeaderMap) -> Result<()> {
    match media(headers)? {
        Media::Json => Ok(()),
        Media::JsonLines | Media::Images => Err(Error::new(
            ErrorKind::UnsupportedMediaType,
            "the content type must be application/json",
        )),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn of(name: axum::http::HeaderName, value: &'static str) -> Option<Media> {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_static(value));
        media(&headers).ok()
    }

    #[test]
    fn bodies_are_told_apart() {
        assert_eq!(media(&HeaderMap::new()).ok(), Some(Media::Json));
        for (value, expected) in [
            ("application/json", Some(Media::Json)),
            ("Application/JSON ; charset=\"UTF-8\"", Some(Media::Json)),
            ("application/jsonlines", Some(Media::JsonLines)),
            ("application/dicom", Some(Media::Images)),
            ("application/zip", Some(Media::Images)),
            ("text/json", None),
            ("", None),
            ("application/json; charset=latin1", None),
        ] {
            assert_eq!(of(CONTENT_TYPE, value), expected, "{value}");
        }
        assert_eq!(of(CONTENT_ENCODING, "identity"), Some(Media::Json));
        assert_eq!(of(CONTENT_ENCODING, "gzip"), None);
    }
}
