//! Content negotiation (RFC 9110, section 12.5.1).

use axum::http::HeaderMap;
use axum::http::header::ACCEPT;

use crate::error::{Error, ErrorKind, Result};

/// A representation the server can respond with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Offer {
    /// The report, with the outputs inline or their URIs.
    Json,
    /// The DICOM Segmentation object itself.
    Dicom,
    /// JSON Lines: one report per line for a batch body, one event per line for a single request.
    JsonLines,
    /// Server-sent events.
    EventStream,
}

impl Offer {
    /// Returns the media type.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Dicom => "application/dicom",
            Self::JsonLines => "application/jsonlines",
            Self::EventStream => "text/event-stream",
        }
    }
}

/// Returns the offer with the highest quality; the first one wins a tie. If no offer is acceptable,
/// `why_not` is appended to the error message.
///
/// # Errors
/// [`ErrorKind::NotAcceptable`], listing the offers.
pub(super) fn negotiate(headers: &HeaderMap, offers: &[Offer], why_not: &str) -> Result<Offer> {
    let ranges = ranges(headers);
    let mut best: Option<(u16, Offer)> = None;
    for &offer in offers {
        let quality = quality(&ranges, offer);
        if quality > best.map_or(0, |(q, _)| q) {
            best = Some((quality, offer));
        }
    }
    best.map(|(_, offer)| offer).ok_or_else(|| {
        let types: Vec<&str> = offers.iter().map(|o| o.media_type()).collect();
        Error::new(
            ErrorKind::NotAcceptable,
            format!("the answer can be {}, which Accept excludes{why_not}", types.join(" or ")),
        )
        .with("offers", types)
    })
}

/// One media range of `Accept`: lower case, `q` in thousandths.
struct Range {
    kind: String,
    subtype: String,
    quality: u16,
}

/// Returns the quality of an offer: that of the most specific matching range, or 0 if none matches.
fn quality(ranges: &[Range], offer: Offer) -> u16 {
    let (kind, subtype) = offer.media_type().split_once('/').unwrap_or_default();
    let specificity = |range: &Range| match (range.kind.as_str(), range.subtype.as_str()) {
        ("*", "*") => Some(0),
        (k, "*") if k == kind => Some(1),
        (k, s) if k == kind && s == subtype => Some(2),
        _ => None,
    };
    let matching = ranges.iter().filter_map(|r| Some((specificity(r)?, r.quality)));
    matching.max().map_or(0, |(_, quality)| quality)
}

/// Parses all ranges of all `Accept` headers and skips malformed ones. A missing or empty header
/// accepts everything.
fn ranges(headers: &HeaderMap) -> Vec<Range> {
    let values: Vec<&str> =
        headers.get_all(ACCEPT).iter().map(|v| v.to_str().unwrap_or("malformed")).collect();
    if values.iter().all(|v| v.trim().is_empty()) {
        return vec![Range { kind: "*".to_owned(), subtype: "*".to_owned(), quality: 1000 }];
    }
    values.iter().flat_map(|v| split(v, b',')).filter_map(range).collect()
}

/// Parses a media range. Only the parameter `q` matters, because none of the offers has parameters.
fn range(text: &str) -> Option<Range> {
    let mut parts = split(text, b';').into_iter();
    let (kind, subtype) = parts.next()?.trim().split_once('/')?;
    let is_token = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_graphic());
    if !is_token(kind) || !is_token(subtype) || (kind == "*" && subtype != "*") {
        return None;
    }
    let mut quality = 1000;
    for part in parts {
        let (name, value) = part.split_once('=')?;
        if name.trim().eq_ignore_ascii_case("q") {
            quality = thousandths(value.trim())?;
        }
    }
    Some(Range { kind: kind.to_ascii_lowercase(), subtype: subtype.to_ascii_lowercase(), quality })
}

/// Parses a quality value (RFC 9110, section 12.4.2): 0 to 1 with at most three decimals.
fn thousandths(text: &str) -> Option<u16> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    let decimal = decimals.bytes().all(|b| b.is_ascii_digit());
    if !matches!(whole, "0" | "1") || decimals.len() > 3 || !decimal {
        return None;
    }
    let value: u16 = format!("{whole}{decimals:0<3}").parse().ok()?;
    (value <= 1000).then_some(value)
}

/// Splits at `separator`, but not inside quoted strings.
fn split(text: &str, separator: u8) -> Vec<&str> {
    let (mut quoted, mut escaped, mut start) = (false, false, 0);
    let mut parts = Vec::new();
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b if b == separator && !quoted => {
                parts.extend(text.get(start..at));
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.extend(text.get(start..));
    parts
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn choose(accept: &[&str]) -> Option<Offer> {
        let mut headers = HeaderMap::new();
        for value in accept {
            headers.append(ACCEPT, HeaderValue::from_str(value).unwrap());
        }
        negotiate(&headers, &[Offer::Json, Offer::Dicom], "").ok()
    }

    #[test]
    fn streams_are_asked_for_by_name() {
        let all = [Offer::Json, Offer::Dicom, Offer::JsonLines, Offer::EventStream];
        for (accept, offer) in [
            ("*/*", Offer::Json),
            ("application/*", Offer::Json),
            ("application/jsonlines", Offer::JsonLines),
            ("application/jsonlines, application/json", Offer::Json),
            ("application/jsonlines, application/json;q=0.9", Offer::JsonLines),
            ("text/event-stream, application/jsonlines", Offer::JsonLines),
            ("text/event-stream", Offer::EventStream),
            ("text/html, */*;q=0.8", Offer::Json),
        ] {
            let mut headers = HeaderMap::new();
            headers.append(ACCEPT, HeaderValue::from_static(accept));
            assert_eq!(negotiate(&headers, &all, "").unwrap(), offer, "{accept}");
        }
    }

    #[test]
    fn the_best_liked_offer_wins() {
        for (accept, offer) in [
            (&[][..], Some(Offer::Json)),
            (&[""], Some(Offer::Json)),
            (&["*/*"], Some(Offer::Json)),
            (&["application/*;q=0.2"], Some(Offer::Json)),
            (&["application/json; charset=utf-8"], Some(Offer::Json)),
            (&["Application/DICOM"], Some(Offer::Dicom)),
            (&["application/json;q=0.5, application/dicom"], Some(Offer::Dicom)),
            (&["application/json;q=0.5", "application/dicom;q=0.501"], Some(Offer::Dicom)),
            (&["*/*;q=0.1, application/dicom"], Some(Offer::Dicom)),
            (&["*/*, application/json;q=0"], Some(Offer::Dicom)),
            (&["application/dicom, application/json"], Some(Offer::Json)),
            (&["text/html, */*;q=0.8"], Some(Offer::Json)),
            (
                &[r#"multipart/related; type="application/dicom, x", application/dicom"#],
                Some(Offer::Dicom),
            ),
            (&["text/html"], None),
            (&["*/*;q=0"], None),
            (&["application/json;q=2"], None),
            (&["nonsense"], None),
            (&["*/json"], None),
        ] {
            assert_eq!(choose(accept), offer, "{accept:?}");
        }
    }

    #[test]
    fn qualities_have_three_decimals() {
        assert_eq!(thousandths("0.5"), Some(500));
        assert_eq!(thousandths("1.000"), Some(1000));
        for bad in ["", "1.001", "0.1234", "-0", "2", ".5", "0.a"] {
            assert_eq!(thousandths(bad), None, "{bad}");
        }
    }
}
