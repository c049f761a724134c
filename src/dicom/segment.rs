//! The terms that describe a segmentation, whatever their origin: coded concepts, segments and the
//! algorithm that produced it. A model package provides them, the DICOM SEG writer encodes them;
//! both call [`check`](SegmentDescription::check), so that a package with texts that cannot be
//! encoded is rejected when it is loaded, not when its first result is written.

use serde::Deserialize;

use crate::error::{Error, ErrorKind, Result};

/// A coded concept (PS3.3 section 8, Code Sequence Macro).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Code {
    /// Code Value (0008,0100), at most 16 characters.
    pub value: String,
    /// Coding Scheme Designator (0008,0102): `SCT`, `DCM`; at most 16 characters.
    pub scheme: String,
    /// Code Meaning (0008,0104), at most 64 characters.
    pub meaning: String,
}

impl Code {
    /// Creates a code from its three parts.
    pub fn new(value: &str, scheme: &str, meaning: &str) -> Self {
        Self { value: value.to_owned(), scheme: scheme.to_owned(), meaning: meaning.to_owned() }
    }

    /// Creates a SNOMED CT code (PS3.16 section 8, scheme designator `SCT`).
    pub fn sct(value: &str, meaning: &str) -> Self {
        Self::new(value, "SCT", meaning)
    }

    /// Creates a code of DICOM's own terminology (PS3.16 annex D).
    pub fn dcm(value: &str, meaning: &str) -> Self {
        Self::new(value, "DCM", meaning)
    }

    fn check(&self, what: &str) -> Result<()> {
        check_text(&self.value, 16, &format!("{what}.value"))?;
        check_text(&self.scheme, 16, &format!("{what}.scheme"))?;
        check_text(&self.meaning, 64, &format!("{what}.meaning"))
    }
}

/// The meaning of one foreground value of a label map (Segment Description Macro, PS3.3 C.8.20.4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentDescription {
    /// The value in the label map, 1 or more. Segment Numbers are independent of it: they count
    /// from 1 in the order of the descriptions.
    pub value: u16,
    /// Segment Label (0062,0005), at most 64 characters.
    pub label: String,
    /// Segmented Property Category (0062,0003), one of CID 7150.
    pub category: Code,
    /// Segmented Property Type (0062,000F), one of CID 7151 or any other.
    pub property_type: Code,
    /// Segmented Property Type Modifier (0062,0011): left or right, CID 244.
    pub type_modifier: Option<Code>,
    /// Anatomic Region (0008,2218), if the property is not itself an anatomic structure.
    pub anatomic_region: Option<Code>,
    /// Recommended display colour, sRGB; if absent, a distinct colour is chosen.
    pub color: Option<[u8; 3]>,
}

impl SegmentDescription {
    /// Checks that every text can be encoded in DICOM; an error names the segment and the field.
    pub fn check(&self) -> Result<()> {
        let what = |field: &str| format!("segment of label value {}: {field}", self.value);
        if self.value == 0 {
            return Err(Error::new(
                ErrorKind::InvalidModel,
                "label value 0 is the background and cannot be a segment",
            ));
        }
        check_text(&self.label, 64, &what("label"))?;
        self.category.check(&what("category"))?;
        self.property_type.check(&what("type"))?;
        if let Some(code) = &self.type_modifier {
            code.check(&what("typeModifier"))?;
        }
        if let Some(code) = &self.anatomic_region {
            code.check(&what("anatomicRegion"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
impl SegmentDescription {
    /// A plain tissue segment with this value and label, for tests.
    pub(crate) fn tissue(value: u16, label: &str) -> Self {
        Self {
            value,
            label: label.to_owned(),
            category: Code::sct("85756007", "Tissue"),
            property_type: Code::sct("85756007", "Tissue"),
            type_modifier: None,
            anatomic_region: None,
            color: None,
        }
    }
}

/// The algorithm that produced a segmentation (Algorithm Identification Macro, PS3.3 10.16).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Algorithm {
    /// Algorithm Name (0066,0036), at most 64 characters.
    pub name: String,
    /// Algorithm Version (0066,0031), at most 64 characters.
    pub version: String,
    /// Algorithm Family (0066,002F), one of CID 7162; Artificial Intelligence by default.
    #[serde(default = "artificial_intelligence")]
    pub family: Code,
    /// Algorithm Parameters (0066,0032), printable ASCII: what the program knows about the run, as
    /// comma-separated NAME=VALUE pairs, the format that highdicom writes and reads. Not set by
    /// model packages.
    #[serde(skip)]
    pub parameters: Option<String>,
}

impl Algorithm {
    /// Creates an algorithm of the family Artificial Intelligence.
    pub fn new(name: &str, version: &str) -> Self {
        Self {
            name: name.to_owned(),
            version: version.to_owned(),
            family: artificial_intelligence(),
            parameters: None,
        }
    }

    /// Checks that every text can be encoded in DICOM; an error names the field.
    pub fn check(&self) -> Result<()> {
        check_text(&self.name, 64, "algorithm.name")?;
        check_text(&self.version, 64, "algorithm.version")?;
        self.family.check("algorithm.family")
    }
}

fn artificial_intelligence() -> Code {
    Code::dcm("123110", "Artificial Intelligence")
}

/// Checks that `text` is a single, non-empty value of SH or LO of at most `limit` characters (PS3.5
/// 6.2): no backslash, no control characters, no leading or trailing spaces, which would be lost.
pub fn check_text(text: &str, limit: usize, what: &str) -> Result<()> {
    let refuse = |why: String| Err(Error::new(ErrorKind::InvalidModel, format!("{what} {why}")));
    if text.trim().is_empty() {
        return refuse("is empty; give it a text".to_owned());
    }
    if text.trim() != text {
        return refuse(format!("{text:?} begins or ends with a space; remove it"));
    }
    let length = text.chars().count();
    if length > limit {
        return refuse(format!("has {length} characters; DICOM allows {limit}"));
    }
    if text.chars().any(|c| c == '\\' || c.is_control()) {
        return refuse(format!("{text:?} has a backslash or a control character; remove it"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_that_dicom_cannot_hold_are_refused() {
        for text in ["", "  ", " a", "a ", "a\\b", "a\nb", &"x".repeat(65)] {
            let e = check_text(text, 64, "label").unwrap_err();
            assert!(e.message().starts_with("label "), "{e}");
        }
        check_text(&"é".repeat(64), 64, "label").unwrap();
    }

    #[test]
    fn a_description_names_its_faulty_code() {
        let mut segment = SegmentDescription {
            value: 3,
            label: "Spleen".to_owned(),
            category: Code::sct("91723000", "Anatomical Structure"),
            property_type: Code::sct("78961009", "Spleen"),
            type_modifier: None,
            anatomic_region: None,
            color: None,
        };
        segment.check().unwrap();
        segment.type_modifier = Some(Code::sct("12345678901234567", "Left"));
        let e = segment.check().unwrap_err();
        assert!(e.message().contains("label value 3: typeModifier.value"), "{e}");
    }
}
