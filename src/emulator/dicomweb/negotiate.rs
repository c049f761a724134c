//! Negotiates transfer syntaxes and media types of retrievals (developer guide, "Getting a DICOM
//! instance" and "Getting DICOM instance frames"; PS3.18 section 8.7.3).

use dicom_dictionary_std::uids;

use crate::dicom::media_type::MediaType;
use crate::emulator::failure::Failure;

/// The transfer syntax requested by a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Syntax {
    /// None given: explicit VR little endian if the pixels can be decoded, otherwise as stored.
    Unsaid,
    /// As stored.
    Stored,
    /// The given transfer syntax.
    Named(String),
}

impl Syntax {
    fn of(range: &MediaType) -> Self {
        match range.parameter("transfer-syntax") {
            None => Self::Unsaid,
            Some("*") => Self::Stored,
            Some(uid) => Self::Named(uid.to_owned()),
        }
    }
}

/// A requested form of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct InstanceForm {
    pub syntax: Syntax,
    /// Whether it is the single part of `multipart/related`.
    pub multipart: bool,
}

/// Media type of an instance.
pub(super) const DICOM: &str = "application/dicom";

/// Media type of frames in any transfer syntax, and of bulk data.
pub(super) const OCTETS: &str = "application/octet-stream";

const MULTIPART: &str = "multipart/related";

/// Returns the acceptable forms of an instance, in the client's order.
///
/// # Errors
/// `NotAcceptableException` if there is none.
pub(super) fn instance_forms(accepted: &[MediaType]) -> Result<Vec<InstanceForm>, Failure> {
    if accepted.is_empty() {
        return Ok(vec![InstanceForm { syntax: Syntax::Unsaid, multipart: false }]);
    }
    let form = |range: &MediaType| {
        let multipart = range.essence == MULTIPART;
        let fits = match multipart {
            true => range.parameter("type").is_none_or(|t| t.eq_ignore_ascii_case(DICOM)),
            false => range.takes(DICOM),
        };
        fits.then(|| InstanceForm { syntax: Syntax::of(range), multipart })
    };
    let forms: Vec<InstanceForm> = accepted.iter().filter_map(form).collect();
    if forms.is_empty() {
        return Err(Failure::not_acceptable(format!(
            "instances are {DICOM}, which Accept excludes"
        )));
    }
    Ok(forms)
}

/// A requested form of frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FramesForm {
    pub syntax: Syntax,
    /// Media type of each part.
    pub media_type: String,
}

/// Image media types and their transfer syntaxes (PS3.18 table 8.7.3-5).
const IMAGES: [(&str, &[&str]); 7] = [
    ("image/jphc", &HTJ2K),
    ("image/jph", &HTJ2K),
    ("image/jp2", &JPEG_2000),
    ("image/j2c", &JPEG_2000),
    ("image/jpeg", &JPEG),
    ("image/jls", &[uids::JPEGLS_LOSSLESS, uids::JPEGLS_NEAR_LOSSLESS]),
    (
        "image/jxl",
        &["1.2.840.10008.1.2.4.110", "1.2.840.10008.1.2.4.111", "1.2.840.10008.1.2.4.112"],
    ),
];
const HTJ2K: [&str; 3] = [uids::HTJ2K_LOSSLESS, uids::HTJ2K_LOSSLESS_RPCL, uids::HTJ2K];
const JPEG_2000: [&str; 2] = [uids::JPEG2000_LOSSLESS, uids::JPEG2000];
const JPEG: [&str; 4] = [
    uids::JPEG_BASELINE8_BIT,
    uids::JPEG_EXTENDED12_BIT,
    uids::JPEG_LOSSLESS,
    uids::JPEG_LOSSLESS_SV1,
];

/// Returns the acceptable forms of frames, in the client's order.
///
/// # Errors
/// `NotAcceptableException` if there is none.
pub(super) fn frames_forms(
    accepted: &[MediaType],
    stored: &str,
) -> Result<Vec<FramesForm>, Failure> {
    let octets = |syntax| FramesForm { syntax, media_type: OCTETS.to_owned() };
    if accepted.is_empty() {
        return Ok(vec![octets(Syntax::Unsaid)]);
    }
    let form = |range: &MediaType| {
        let kind = match range.essence.as_str() {
            MULTIPART => range.parameter("type").unwrap_or(OCTETS).to_ascii_lowercase(),
            "*/*" => OCTETS.to_owned(),
            _ => return None,
        };
        if kind == OCTETS || kind == "*/*" {
            return Some(octets(Syntax::of(range)));
        }
        let wanted = MediaType::parse(&kind)?;
        let (name, syntaxes) = IMAGES.iter().find(|(name, syntaxes)| {
            wanted.takes(name) && (!kind.ends_with("/*") || syntaxes.contains(&stored))
        })?;
        // An image media type is always compressed.
        let syntax = match Syntax::of(range) {
            Syntax::Named(uid) if syntaxes.contains(&uid.as_str()) => Syntax::Named(uid),
            Syntax::Named(_) => return None,
            _ if syntaxes.contains(&stored) => Syntax::Stored,
            _ => Syntax::Named((*syntaxes.first()?).to_owned()),
        };
        Some(FramesForm { syntax, media_type: (*name).to_owned() })
    };
    let forms: Vec<FramesForm> = accepted.iter().filter_map(form).collect();
    if forms.is_empty() {
        return Err(Failure::not_acceptable(format!(
            "frames are multipart/related of {OCTETS} or of the image that is stored, which Accept excludes"
        )));
    }
    Ok(forms)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(text: &str) -> Vec<MediaType> {
        MediaType::parse_list(text)
    }

    #[test]
    fn instances_are_wanted_in_a_syntax() {
        let forms = |text| instance_forms(&ranges(text)).unwrap();
        assert_eq!(
            forms(
                "multipart/related; type=\"application/dicom\"; transfer-syntax=*, application/dicom"
            ),
            [
                InstanceForm { syntax: Syntax::Stored, multipart: true },
                InstanceForm { syntax: Syntax::Unsaid, multipart: false },
            ]
        );
        let named = Syntax::Named("1.2.840.10008.1.2.1".to_owned());
        assert_eq!(
            forms("text/html, application/dicom; transfer-syntax=1.2.840.10008.1.2.1"),
            [InstanceForm { syntax: named, multipart: false }]
        );
        assert!(instance_forms(&ranges("image/png")).is_err());
        assert!(instance_forms(&ranges("multipart/related; type=\"image/jp2\"")).is_err());
    }

    #[test]
    fn frames_are_octets_or_images() {
        let forms = |text, stored| frames_forms(&ranges(text), stored);
        let one = |text, stored| forms(text, stored).unwrap().remove(0);
        let octets =
            one("multipart/related; type=application/octet-stream; transfer-syntax=*", "x");
        assert_eq!((octets.media_type.as_str(), octets.syntax), (OCTETS, Syntax::Stored));
        let image = one("multipart/related; type=\"image/jphc\"", uids::HTJ2K_LOSSLESS_RPCL);
        assert_eq!((image.media_type.as_str(), image.syntax), ("image/jphc", Syntax::Stored));
        let image = one("multipart/related; type=\"image/jp2\"", uids::HTJ2K_LOSSLESS_RPCL);
        assert_eq!(image.syntax, Syntax::Named(uids::JPEG2000_LOSSLESS.to_owned()));
        let any = one("multipart/related; type=\"image/*\"", uids::JPEG_BASELINE8_BIT);
        assert_eq!(any.media_type, "image/jpeg");
        assert!(forms("application/octet-stream", "x").is_err());
        assert!(forms("multipart/related; type=\"image/png\"", "x").is_err());
        let wrong = "multipart/related; type=\"image/jp2\"; transfer-syntax=1.2.840.10008.1.2.1";
        assert!(forms(wrong, "x").is_err());
    }
}
