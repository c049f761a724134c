//! Determines what the values of an image measure, as a coded concept with its units.

use dicom_dictionary_std::tags;

use crate::dicom::segment::Code;
use crate::dicom::{Attributes, Dataset};

/// A quantity and its units.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Quantity {
    /// The measured quantity (CID 218).
    pub(super) name: Code,
    /// Its units (CID 7181).
    pub(super) units: Code,
}

fn quantity(name: Code, units: &str, meaning: &str) -> Quantity {
    Quantity { name, units: Code::new(units, "UCUM", meaning) }
}

/// Returns the quantity of an image whose values are in `units`, as named in its header; `None` if the
/// meaning of the numbers is unknown.
pub(super) fn of(source: &Dataset, units: Option<&str>) -> Option<Quantity> {
    let modality = source.text(tags::MODALITY)?;
    match (modality.as_str(), units) {
        ("CT", Some("HU")) => {
            let name = Code::dcm("112031", "Attenuation Coefficient");
            Some(quantity(name, "[hnsf'U]", "Hounsfield unit"))
        }
        // Unspecified (US): the scanner's own scale.
        ("MR", None | Some("US")) => {
            Some(quantity(Code::dcm("110852", "MR signal intensity"), "1", "no units"))
        }
        ("PT" | "NM", Some(units)) => emission(source, units),
        _ => None,
    }
}

/// Returns the quantity for Units (0054,1001), PS3.3 C.8.9.1.1.3.
fn emission(source: &Dataset, units: &str) -> Option<Quantity> {
    let activity = || Code::dcm("110821", "Nuclear Medicine Tomographic Activity");
    Some(match units {
        "BQML" => quantity(activity(), "Bq/ml", "Becquerels/milliliter"),
        "CNTS" => quantity(activity(), "{counts}", "Counts"),
        "CPS" => quantity(activity(), "{counts}/s", "Counts per second"),
        "PROPCNTS" => quantity(activity(), "{propcounts}", "Proportional to counts"),
        "PROPCPS" => quantity(activity(), "{propcounts}/s", "Proportional to counts per second"),
        // By body weight, unless SUV Type (0054,1006) says otherwise.
        "GML" if source.text(tags::SUV_TYPE).is_none_or(|by| by == "BW") => quantity(
            Code::dcm("126401", "SUVbw"),
            "g/ml{SUVbw}",
            "Standardized Uptake Value body weight",
        ),
        _ => return None,
    })
}

/// Returns the procedure for images of this modality (CID 100).
pub(super) fn procedure(source: &Dataset) -> Code {
    let body =
        |code: &str, what: &str| Code::new(code, "LN", &format!("{what} unspecified body region"));
    match source.text(tags::MODALITY).as_deref() {
        Some("CT") => body("25045-6", "CT"),
        Some("MR") => body("25056-3", "MRI"),
        Some("PT") => body("44136-0", "PET"),
        Some("NM") => body("49118-3", "NM"),
        _ => Code::sct("363679005", "Imaging procedure"),
    }
}

/// Returns the modality as a coded concept (CID 33), for the modalities segmented most often.
pub(super) fn modality(source: &Dataset) -> Option<Code> {
    let modality = source.text(tags::MODALITY)?;
    let meaning = match modality.as_str() {
        "CT" => "Computed Tomography",
        "MR" => "Magnetic Resonance",
        "PT" => "Positron emission tomography",
        "NM" => "Nuclear Medicine",
        _ => return None,
    };
    Some(Code::dcm(&modality, meaning))
}

#[cfg(test)]
mod tests {
    use dicom_core::VR;

    use super::*;
    use crate::writers::dicom::Put;

    fn header(modality: &str) -> Dataset {
        let mut dataset = Dataset::new_empty();
        dataset.put_text(tags::MODALITY, VR::CS, modality);
        dataset
    }

    #[test]
    fn values_are_told_where_their_units_are_known() {
        let of = |modality: &str, units| of(&header(modality), units).map(|q| q.units.value);
        assert_eq!(of("CT", Some("HU")).as_deref(), Some("[hnsf'U]"));
        assert_eq!(of("CT", Some("MGML")), None, "an iodine map");
        assert_eq!(of("MR", None).as_deref(), Some("1"));
        assert_eq!(of("PT", Some("BQML")).as_deref(), Some("Bq/ml"));
        assert_eq!(of("PT", Some("GML")).as_deref(), Some("g/ml{SUVbw}"));
        assert_eq!(of("PT", None), None);
        assert_eq!(of("US", None), None);
        let mut lean = header("PT");
        lean.put_text(tags::SUV_TYPE, VR::CS, "LBM");
        assert_eq!(super::of(&lean, Some("GML")), None);
    }

    #[test]
    fn procedures_follow_the_modality() {
        assert_eq!(procedure(&header("MR")).value, "25056-3");
        assert_eq!(procedure(&header("XA")).scheme, "SCT");
        assert_eq!(modality(&header("PT")).unwrap().value, "PT");
        assert_eq!(modality(&header("XA")), None);
    }
}
