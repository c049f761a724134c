//! SOP classes by the kind of their objects (PS3.4 annex B): which hold slices, which hold no image
//! of a patient, and which are screenshots.

/// Media Storage Directory Storage: a DICOMDIR, whatever its name.
pub const DIRECTORY: &str = "1.2.840.10008.1.3.10";

/// Storage classes below this root.
const STORAGE: &str = "1.2.840.10008.5.1.4.1.1.";

/// Classes whose objects have no image, by the part after the root; an entry that ends with a
/// period includes all classes below it.
const WITHOUT_IMAGES: [(&str, &str); 16] = [
    ("88.", "structured report"),
    ("11.", "presentation state"),
    ("9.", "waveform"),
    ("104.", "encapsulated document"),
    ("68.", "surface scan"),
    ("78.", "ophthalmic measurement"),
    ("79.", "ophthalmic measurement"),
    ("80.", "ophthalmic measurement"),
    ("66", "raw data"),
    ("66.1", "spatial registration"),
    ("66.2", "spatial fiducials"),
    ("66.3", "deformable registration"),
    ("66.5", "surface segmentation"),
    ("66.6", "tractography"),
    ("67", "real world value mapping"),
    ("200.", "procedure protocol"),
];

/// Radiotherapy objects without an image, by the part after the root and `481.`.
const RADIOTHERAPY: [(&str, &str); 7] = [
    ("3", "structure set"),
    ("4", "treatment record"),
    ("5", "radiotherapy plan"),
    ("6", "treatment record"),
    ("7", "treatment record"),
    ("8", "radiotherapy plan"),
    ("9", "treatment record"),
];

/// Pixels derived from an image instead of acquired from a patient: not an input for a model.
const DERIVED: [(&str, &str); 4] = [
    ("66.4", "segmentation"),
    ("66.7", "label map segmentation"),
    ("66.8", "height map segmentation"),
    ("481.2", "dose distribution"),
];

/// Classes whose instances are one or more slices of a body.
const SLICES: [&str; 15] = [
    "2", "2.1", "2.2", "4", "4.1", "4.3", "4.4", "20", "128", "128.1", "130", "13.1.1", "13.1.2",
    "13.1.3", "14.1",
];

/// Returns the kind of an object without an image, by its SOP class; `None` if the class may have
/// one.
pub fn without_image(class: &str) -> Option<&'static str> {
    if class == DIRECTORY {
        return Some("directory");
    }
    let name = class.strip_prefix(STORAGE)?;
    if let Some(name) = name.strip_prefix("481.") {
        return RADIOTHERAPY.iter().find(|(number, _)| *number == name).map(|(_, what)| *what);
    }
    let is = |(number, _): &&(&str, &str)| match number.strip_suffix('.') {
        Some(root) => name == root || name.starts_with(*number),
        None => name == *number,
    };
    WITHOUT_IMAGES.iter().find(is).map(|(_, what)| *what)
}

/// Returns the kind of an object with derived pixels, by its SOP class.
pub fn derived(class: &str) -> Option<&'static str> {
    let name = class.strip_prefix(STORAGE)?;
    DERIVED.iter().find(|(number, _)| *number == name).map(|(_, what)| *what)
}

/// Whether every object of this class has slices: without them it is incomplete.
pub fn has_slices(class: &str) -> bool {
    class.strip_prefix(STORAGE).is_some_and(|name| SLICES.contains(&name))
}

/// Whether objects of this class are Secondary Captures: screenshots, scanned paper.
pub fn is_secondary_capture(class: &str) -> bool {
    class.strip_prefix(STORAGE).is_some_and(|name| name == "7" || name.starts_with("7."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_told_apart() {
        let of = |name: &str| format!("{STORAGE}{name}");
        assert_eq!(without_image(DIRECTORY), Some("directory"));
        for (name, what) in [
            ("88.67", "structured report"),
            ("88.59", "structured report"),
            ("11.1", "presentation state"),
            ("104.1", "encapsulated document"),
            ("66", "raw data"),
            ("66.1", "spatial registration"),
            ("481.3", "structure set"),
            ("481.5", "radiotherapy plan"),
        ] {
            assert_eq!(without_image(&of(name)), Some(what), "{name}");
            assert!(!has_slices(&of(name)), "{name}");
        }
        for name in
            ["2", "2.1", "4", "128", "7", "66.4", "481.1", "481.2", "1", "12.1", "8", "13.1.1"]
        {
            assert_eq!(without_image(&of(name)), None, "{name}");
        }
        assert!(has_slices(&of("2")) && has_slices(&of("4.1")) && !has_slices(&of("7")));
        assert!(is_secondary_capture(&of("7")) && is_secondary_capture(&of("7.4")));
        assert!(!is_secondary_capture(&of("77.1.1")));
        assert_eq!(derived(&of("66.4")), Some("segmentation"));
        assert_eq!(derived(&of("2")), None);
    }
}
