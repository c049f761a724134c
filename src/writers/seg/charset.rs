//! Which character set a segmentation is written in. The source's own is kept wherever it can carry
//! every text, so that copied names keep their bytes; otherwise it is UTF-8.

use dicom_core::VR;
use dicom_dictionary_std::tags;
use dicom_encoding::text::{SpecificCharacterSet, TextCodec};

use super::elements::Put;
use crate::dicom::{Attributes, Dataset};

/// Sets Specific Character Set (0008,0005) of `dataset`, whose other attributes are all there.
pub(super) fn set_character_set(source: &Dataset, dataset: &mut Dataset) {
    // Texts go through the first value's codec (PS3.5 6.1.2.3). A further value announces escape
    // sequences, which a decoder that does not know them leaves in the text: as such they are
    // written back unchanged.
    let names = source.texts(tags::SPECIFIC_CHARACTER_SET);
    let name = names.first().map_or("", String::as_str);
    let codec = match name {
        "" => Some(SpecificCharacterSet::ISO_IR_6),
        name => SpecificCharacterSet::from_code(name),
    };
    if codec.is_some_and(|codec| carries_all(&codec, dataset)) {
        if !names.is_empty() {
            dataset.put_texts(tags::SPECIFIC_CHARACTER_SET, VR::CS, &names);
        }
    } else {
        dataset.put_text(tags::SPECIFIC_CHARACTER_SET, VR::CS, "ISO_IR 192");
    }
}

fn carries_all(codec: &SpecificCharacterSet, dataset: &Dataset) -> bool {
    dataset.iter().all(|element| {
        if let Some(items) = element.value().items() {
            return items.iter().all(|item| carries_all(codec, item));
        }
        let depends_on_character_set =
            matches!(element.vr(), VR::LO | VR::LT | VR::PN | VR::SH | VR::ST | VR::UC | VR::UT);
        !depends_on_character_set
            || element
                .value()
                .primitive()
                .is_none_or(|value| value.to_multi_str().iter().all(|text| carries(codec, text)))
    })
}

fn carries(codec: &SpecificCharacterSet, text: &str) -> bool {
    if *codec == SpecificCharacterSet::ISO_IR_6 {
        return text.is_ascii();
    }
    let encoded = codec.encode(text).ok();
    encoded.and_then(|bytes| codec.decode(&bytes).ok()).is_some_and(|back| back == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(source: &[&str], text: &str) -> Vec<String> {
        let mut from = Dataset::new_empty();
        if !source.is_empty() {
            let names: Vec<String> = source.iter().map(|&name| name.to_owned()).collect();
            from.put_texts(tags::SPECIFIC_CHARACTER_SET, VR::CS, &names);
        }
        let mut item = Dataset::new_empty();
        item.put_text(tags::CODE_MEANING, VR::LO, text);
        let mut to = Dataset::new_empty();
        to.put_items(tags::PROCEDURE_CODE_SEQUENCE, vec![item]);
        set_character_set(&from, &mut to);
        to.texts(tags::SPECIFIC_CHARACTER_SET)
    }

    #[test]
    fn the_sources_is_kept_where_it_suffices() {
        assert!(chosen(&[], "Liver").is_empty());
        assert_eq!(chosen(&["ISO_IR 100"], "Foie coupé"), ["ISO_IR 100"]);
        assert_eq!(chosen(&["", "ISO 2022 IR 87"], "\u{1b}$B;3\u{1b}(B"), ["", "ISO 2022 IR 87"]);
    }

    #[test]
    fn otherwise_it_is_utf_8() {
        assert_eq!(chosen(&[], "Foie coupé"), ["ISO_IR 192"]);
        assert_eq!(chosen(&["ISO_IR 100"], "肝臓"), ["ISO_IR 192"]);
        assert_eq!(chosen(&["ISO 2022 IR 6", "ISO 2022 IR 87"], "肝臓"), ["ISO_IR 192"]);
        assert_eq!(chosen(&["unheard of"], "Liver"), ["ISO_IR 192"]);
    }
}
