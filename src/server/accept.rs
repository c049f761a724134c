//! `Accept` (RFC 9110 section 12.5.1): which of the answers offered is wanted most.

use crate::error::{Error, ErrorKind, Result};

/// The forms an answer can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnswerForm {
    /// The report with the outputs in it or beside it.
    Json,
    /// The DICOM SEG object itself.
    Dicom,
}

const OFFERS: [(AnswerForm, &str); 2] =
    [(AnswerForm::Json, "application/json"), (AnswerForm::Dicom, "application/dicom")];

/// The offer that `accept` prefers; JSON where it says nothing or likes all the same.
pub fn negotiate(accept: Option<&str>) -> Result<AnswerForm> {
    let Some(accept) = accept.map(str::trim).filter(|a| !a.is_empty()) else {
        return Ok(AnswerForm::Json);
    };
    let ranges: Vec<Range> = accept.split(',').filter_map(Range::parse).collect();
    let mut best: Option<(AnswerForm, f32)> = None;
    for (form, offer) in OFFERS {
        let quality = quality(&ranges, offer);
        if quality > best.map_or(0.0, |(_, q)| q) {
            best = Some((form, quality));
        }
    }
    best.map(|(form, _)| form).ok_or_else(|| {
        let offers: Vec<&str> = OFFERS.iter().map(|(_, name)| *name).collect();
        Error::new(
            ErrorKind::NotAcceptable,
            format!("Accept allows none of what can be answered: {}", offers.join(", ")),
        )
        .with("offers", offers)
    })
}

/// One media range and its weight.
struct Range {
    kind: String,
    subtype: String,
    quality: f32,
}

impl Range {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let (kind, subtype) = parts.next()?.split_once('/')?;
        let quality = parts
            .filter_map(|p| p.split_once('='))
            .find(|(name, _)| name.trim().eq_ignore_ascii_case("q"))
            .map_or(Some(1.0), |(_, q)| q.trim().parse::<f32>().ok())
            .filter(|q| (0.0..=1.0).contains(q))?;
        let lower = |s: &str| s.trim().to_ascii_lowercase();
        Some(Self { kind: lower(kind), subtype: lower(subtype), quality })
    }

    /// How specific a match with `offer` is, if it is one.
    fn matches(&self, offer: &str) -> Option<u8> {
        let (kind, subtype) = offer.split_once('/')?;
        match (self.kind.as_str(), self.subtype.as_str()) {
            (k, s) if k == kind && s == subtype => Some(2),
            (k, "*") if k == kind => Some(1),
            ("*", "*") => Some(0),
            _ => None,
        }
    }
}

/// The weight of the most specific range that matches.
fn quality(ranges: &[Range], offer: &str) -> f32 {
    ranges
        .iter()
        .filter_map(|r| r.matches(offer).map(|specific| (specific, r.quality)))
        .max_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)))
        .map_or(0.0, |(_, quality)| quality)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preferences() {
        let form = |accept| negotiate(Some(accept)).unwrap();
        assert_eq!(negotiate(None).unwrap(), AnswerForm::Json);
        assert_eq!(form("*/*"), AnswerForm::Json);
        assert_eq!(form("application/*"), AnswerForm::Json);
        assert_eq!(form("Application/DICOM"), AnswerForm::Dicom);
        assert_eq!(form("application/json;q=0.2, application/dicom; q=0.9"), AnswerForm::Dicom);
        assert_eq!(form("application/json;q=0, */*;q=0.1"), AnswerForm::Dicom);
        assert_eq!(form("text/html, application/dicom;transfer-syntax=*"), AnswerForm::Dicom);
    }

    #[test]
    fn what_is_not_offered() {
        for accept in ["text/html", "application/json;q=0", "nonsense", "application/json;q=7"] {
            let e = negotiate(Some(accept)).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::NotAcceptable, "{accept}");
            assert!(e.message().contains("application/dicom"), "{e}");
        }
    }
}
