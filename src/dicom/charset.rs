//! Character sets of data sets (PS3.3 C.12.1.1.2, PS3.5 section 6.1).
//!
//! Texts are Unicode, except those of a file whose bytes could not be decoded reliably: the
//! character set is unknown here, there are escape sequences between sets (ISO 2022), or the bytes
//! are not valid in the stated set. In such a data set, each character of a text stands for the
//! byte with its code, and Specific Character Set (0008,0005) holds bytes instead of text. Writers
//! write both exactly as they were read. A data set that states no character set but has non-ASCII
//! texts is treated the same way.

use std::borrow::Cow;

use dicom_core::value::{PrimitiveValue, Value};
use dicom_core::{DataElement, Tag, VR};
use dicom_dictionary_std::tags;
use dicom_encoding::text::{SpecificCharacterSet, TextCodec};
use dicom_object::mem::InMemElement;

use super::{Attributes, Dataset};

/// The Unicode character set.
const UNICODE: &str = "ISO_IR 192";

const ESCAPE: char = '\u{1b}';

/// Whether texts of a VR use the stated character set.
fn depends_on_set(vr: VR) -> bool {
    matches!(vr, VR::LO | VR::LT | VR::PN | VR::SH | VR::ST | VR::UC | VR::UT)
}

/// Whether `holds` is true for every text that depends on the character set, at any depth.
fn all_texts(dataset: &Dataset, holds: &mut dyn FnMut(&str) -> bool) -> bool {
    dataset.iter().all(|element| element_texts(element, holds))
}

fn element_texts(element: &InMemElement, holds: &mut dyn FnMut(&str) -> bool) -> bool {
    match element.value() {
        Value::Sequence(items) => items.items().iter().all(|item| all_texts(item, holds)),
        Value::Primitive(value) if depends_on_set(element.vr()) => match value {
            PrimitiveValue::Str(text) => holds(text),
            PrimitiveValue::Strs(texts) => texts.iter().all(|text| holds(text)),
            _ => true,
        },
        _ => true,
    }
}

/// ASCII without escape sequences is the same in every character set.
fn is_plain(text: &str) -> bool {
    text.is_ascii() && !text.contains(ESCAPE)
}

/// A reliable decoder for the bytes of one character set.
#[derive(Clone)]
enum Set {
    /// ISO 8859-1, whose bytes equal the codes of its characters.
    Latin1,
    /// ISO_IR 13: single-byte katakana.
    Katakana(SpecificCharacterSet),
    Other(SpecificCharacterSet),
    /// Only ASCII can be decoded reliably.
    Unsure,
}

impl Set {
    /// The set for texts without escape sequences: the first value of Specific Character Set.
    fn of(names: &[String]) -> Self {
        let name = names.first().map_or("", |name| name.trim());
        let codec = || SpecificCharacterSet::from_code(name);
        match name.strip_prefix("ISO_IR ").or_else(|| name.strip_prefix("ISO 2022 IR ")) {
            Some("100") => Self::Latin1,
            Some("13") => codec().map_or(Self::Unsure, Self::Katakana),
            Some("101" | "109" | "110" | "126" | "127" | "138" | "144" | "166") => {
                codec().map_or(Self::Unsure, Self::Other)
            }
            Some("192") if names.len() == 1 => codec().map_or(Self::Unsure, Self::Other),
            None if matches!(name, "GB18030" | "GBK") && names.len() == 1 => {
                codec().map_or(Self::Unsure, Self::Other)
            }
            _ => Self::Unsure,
        }
    }

    /// Decodes bytes, given as the characters with their codes; `None` if that is not reliable.
    fn decode<'t>(&self, text: &'t str) -> Option<Cow<'t, str>> {
        if is_plain(text) {
            return Some(Cow::Borrowed(text));
        }
        if text.contains(ESCAPE) {
            return None;
        }
        let bytes = bytes_of(text)?;
        match self {
            Self::Unsure => None,
            Self::Latin1 => {
                let printed = !bytes.iter().any(|b| (0x80..0xA0).contains(b));
                printed.then_some(Cow::Borrowed(text))
            }
            Self::Katakana(codec) => {
                let single = bytes.iter().all(|b| b.is_ascii() || (0xA1..=0xDF).contains(b));
                single.then(|| exactly(codec, &bytes)).flatten().map(Cow::Owned)
            }
            Self::Other(codec) => exactly(codec, &bytes).map(Cow::Owned),
        }
    }
}

/// Decodes bytes if the result encodes to the same bytes again.
fn exactly(codec: &SpecificCharacterSet, bytes: &[u8]) -> Option<String> {
    let text = codec.decode(bytes).ok()?;
    (codec.encode(&text).ok()? == bytes).then_some(text)
}

/// Returns the bytes that characters stand for.
fn bytes_of(text: &str) -> Option<Vec<u8>> {
    text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect()
}

/// Decodes the texts of a data set, given as the bytes of a file, one character per byte, if all of
/// them can be decoded reliably.
pub(super) fn decode(dataset: &mut Dataset) {
    if all_texts(dataset, &mut is_plain) {
        return;
    }
    if is_sure(dataset, &Set::Unsure) {
        replace(dataset, &Set::Unsure);
    } else {
        keep_bytes(dataset);
    }
}

/// Returns the set of a data set: its own, or that of the enclosing data set (PS3.5 section 6.1.1).
fn set_of(dataset: &Dataset, outer: &Set) -> Set {
    let names = dataset.texts(tags::SPECIFIC_CHARACTER_SET);
    if names.is_empty() { outer.clone() } else { Set::of(&names) }
}

fn is_sure(dataset: &Dataset, outer: &Set) -> bool {
    let set = set_of(dataset, outer);
    dataset.iter().all(|element| match element.value() {
        Value::Sequence(items) => items.items().iter().all(|item| is_sure(item, &set)),
        Value::Primitive(value) if depends_on_set(element.vr()) => {
            value.multiplicity() == 0 || set.decode(&joined(value)).is_some()
        }
        _ => true,
    })
}

/// Joins the values of a text: the second byte of a character may look like the value separator.
fn joined(value: &PrimitiveValue) -> Cow<'_, str> {
    match value {
        PrimitiveValue::Str(text) => Cow::Borrowed(text),
        PrimitiveValue::Strs(texts) => Cow::Owned(texts.join("\\")),
        _ => Cow::Borrowed(""),
    }
}

fn replace(dataset: &mut Dataset, outer: &Set) {
    let set = set_of(dataset, outer);
    for tag in dataset.tags().collect::<Vec<_>>() {
        dataset.update_value(tag, |value| {
            value.items_mut().into_iter().flatten().for_each(|item| replace(item, &set));
        });
        let Some(element) = dataset.get(tag).filter(|e| depends_on_set(e.vr())) else { continue };
        let Some(value) = element.value().primitive() else { continue };
        let decoded = match set.decode(&joined(value)) {
            Some(Cow::Owned(text)) => text,
            _ => continue,
        };
        let value = match value {
            PrimitiveValue::Strs(_) => {
                PrimitiveValue::Strs(decoded.split('\\').map(str::to_owned).collect())
            }
            _ => PrimitiveValue::Str(decoded),
        };
        let vr = element.vr();
        dataset.put(DataElement::new(tag, vr, value));
    }
}

/// Stores the stated character sets as bytes, which marks the texts as bytes, too.
fn keep_bytes(dataset: &mut Dataset) {
    let names = dataset.get(tags::SPECIFIC_CHARACTER_SET).and_then(|e| e.value().primitive());
    if let Some(names) = names.and_then(|names| bytes_of(&joined(names))) {
        let (tag, vr) = (tags::SPECIFIC_CHARACTER_SET, VR::CS);
        dataset.put(DataElement::new(tag, vr, PrimitiveValue::U8(names.into_iter().collect())));
    }
    for tag in dataset.tags().collect::<Vec<_>>() {
        dataset.update_value(tag, |value| {
            value.items_mut().into_iter().flatten().for_each(keep_bytes);
        });
    }
}

/// Whether the texts of a data set are undecoded bytes.
pub fn has_bytes(dataset: &Dataset) -> bool {
    match dataset.get(tags::SPECIFIC_CHARACTER_SET).and_then(|e| e.value().primitive()) {
        Some(PrimitiveValue::U8(_)) => true,
        Some(value) if value.multiplicity() > 0 => false,
        _ => !all_texts(dataset, &mut is_plain),
    }
}

/// States Unicode if a data set states no character set and has non-ASCII texts: whoever wrote the
/// JSON has already decoded them.
pub(super) fn state_unicode(dataset: &mut Dataset) {
    let stated = dataset.text(tags::SPECIFIC_CHARACTER_SET).is_some();
    if !stated && !all_texts(dataset, &mut is_plain) {
        put_set(dataset, &[UNICODE.to_owned()]);
    }
}

/// Removes an item's own character set, unless its texts are undecoded bytes in it.
pub fn forget(item: &mut Dataset) {
    let value = item.get(tags::SPECIFIC_CHARACTER_SET).and_then(|e| e.value().primitive());
    if !matches!(value, Some(PrimitiveValue::U8(_))) {
        item.remove_element(tags::SPECIFIC_CHARACTER_SET);
    }
}

/// Applies [`forget`] to all items of a data set.
fn forget_below(dataset: &mut Dataset) {
    for tag in dataset.tags().collect::<Vec<_>>() {
        dataset.update_value(tag, |value| {
            for item in value.items_mut().into_iter().flatten() {
                forget(item);
                forget_below(item);
            }
        });
    }
}

/// Sets Specific Character Set of `dataset`, which is about to be written: that of `source` if
/// texts taken from it are undecoded bytes, or if that set can encode every text; otherwise
/// Unicode.
///
/// `taken` tells whether an element of `dataset` was taken from `source`. Other texts, if they are
/// written next to undecoded bytes, are reduced to ASCII, with a question mark for every other
/// character.
pub fn settle(source: &Dataset, dataset: &mut Dataset, taken: impl Fn(Tag) -> bool) {
    let names = source.texts(tags::SPECIFIC_CHARACTER_SET);
    let bytes_taken = has_bytes(source)
        && dataset.iter().any(|e| taken(e.header().tag) && !element_texts(e, &mut is_plain));
    if bytes_taken {
        for tag in dataset.tags().collect::<Vec<_>>() {
            if !taken(tag) {
                dataset.update_value(tag, to_ascii);
            }
        }
        dataset.remove_element(tags::SPECIFIC_CHARACTER_SET);
        if let Some(stated) = source.get(tags::SPECIFIC_CHARACTER_SET) {
            dataset.put(stated.clone());
        }
        return;
    }
    forget_below(dataset);
    let carried = match Set::of(&names) {
        Set::Unsure => {
            let known = names.iter().all(|n| matches!(n.trim(), "" | "ISO_IR 6" | "ISO 2022 IR 6"));
            known && all_texts(dataset, &mut is_plain)
        }
        Set::Latin1 => carries(&SpecificCharacterSet::ISO_IR_100, dataset),
        Set::Katakana(codec) | Set::Other(codec) => carries(&codec, dataset),
    };
    if carried {
        dataset.remove_element(tags::SPECIFIC_CHARACTER_SET);
        if !names.is_empty() {
            put_set(dataset, &names);
        }
    } else {
        put_set(dataset, &[UNICODE.to_owned()]);
    }
}

/// Whether a set can encode every character of a data set.
fn carries(codec: &SpecificCharacterSet, dataset: &Dataset) -> bool {
    all_texts(dataset, &mut |text| {
        is_plain(text) || {
            let back = codec.encode(text).ok().and_then(|bytes| codec.decode(&bytes).ok());
            !text.contains(ESCAPE) && back.is_some_and(|back| back == text)
        }
    })
}

fn put_set(dataset: &mut Dataset, names: &[String]) {
    let value = PrimitiveValue::Strs(names.iter().cloned().collect());
    dataset.put(DataElement::new(tags::SPECIFIC_CHARACTER_SET, VR::CS, value));
}

fn to_ascii(value: &mut Value<Dataset, dicom_object::mem::InMemFragment>) {
    let ascii = |text: &str| -> String {
        text.chars().map(|c| if c.is_ascii() && c != ESCAPE { c } else { '?' }).collect()
    };
    match value {
        Value::Sequence(items) => {
            for item in items.items_mut() {
                for tag in item.tags().collect::<Vec<_>>() {
                    item.update_value(tag, to_ascii);
                }
            }
        }
        Value::Primitive(PrimitiveValue::Str(text)) => *text = ascii(text),
        Value::Primitive(PrimitiveValue::Strs(texts)) => {
            texts.iter_mut().for_each(|text| *text = ascii(text));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A data set as read from a file, with these character sets and this PatientName.
    fn read(sets: &[&str], name: &[u8]) -> Dataset {
        let mut dataset = Dataset::new_empty();
        if !sets.is_empty() {
            let sets: Vec<String> = sets.iter().map(|&set| set.to_owned()).collect();
            put_set(&mut dataset, &sets);
        }
        let name: String = name.iter().copied().map(char::from).collect();
        let values = name.split('\\').map(str::to_owned).collect();
        let value = PrimitiveValue::Strs(values);
        dataset.put(DataElement::new(tags::PATIENT_NAME, VR::PN, value));
        decode(&mut dataset);
        dataset
    }

    /// Writes its name next to a label.
    fn written(source: &Dataset, label: &str) -> Dataset {
        let mut dataset = Dataset::new_empty();
        dataset.put(source.element(tags::PATIENT_NAME).unwrap().clone());
        let label = PrimitiveValue::from(label);
        dataset.put(DataElement::new(tags::SERIES_DESCRIPTION, VR::LO, label));
        settle(source, &mut dataset, |tag| tag == tags::PATIENT_NAME);
        dataset
    }

    fn bytes(dataset: &Dataset) -> Vec<u8> {
        let syntax = dicom_transfer_syntax_registry::entries::EXPLICIT_VR_LITTLE_ENDIAN.erased();
        let mut bytes = Vec::new();
        dataset.write_dataset_with_ts(&mut bytes, &syntax).unwrap();
        bytes
    }

    fn holds(dataset: &Dataset, part: &[u8]) -> bool {
        bytes(dataset).windows(part.len()).any(|window| window == part)
    }

    #[test]
    fn texts_are_decoded_where_that_is_certain() {
        for (sets, name, expected) in [
            (&["ISO_IR 100"][..], &b"M\xFCller"[..], "Müller"),
            (&["ISO_IR 192"], "Müller^山田".as_bytes(), "Müller^山田"),
            (&["ISO_IR 144"], b"\xBB\xEE\xDA", "Люк"),
            (&["ISO_IR 13"], b"\xD4\xCF\xC0\xDE", "ﾔﾏﾀﾞ"),
            (&["GB18030"], b"Wang^XiaoDong=\xCD\xF5^\xD0\xA1\xB6\xAB", "Wang^XiaoDong=王^小东"),
            // The second byte of the character equals the separator.
            (&["GBK"], b"\x81\x5C", "乗"),
            (&["ISO 2022 IR 100", "ISO 2022 IR 149"], b"M\xFCller", "Müller"),
            (&["", "ISO 2022 IR 149"], b"Hong", "Hong"),
            (&["unheard of"], b"Hong", "Hong"),
        ] {
            let dataset = read(sets, name);
            assert!(!has_bytes(&dataset), "{sets:?}");
            assert_eq!(dataset.text(tags::PATIENT_NAME).as_deref(), Some(expected), "{sets:?}");
        }
    }

    /// Source sets that are not decoded, with a name in each.
    const UNSURE: [(&[&str], &[u8]); 9] = [
        (&["ISO_IR 148"], b"\xDDnan\xFE"),
        (
            &["", "ISO 2022 IR 149"],
            b"Hong^Gildong=\x1b$)C\xFB\xF3^\x1b$)C\xD1\xCE\xD4\xD7=\x1b$)C\xC8\xAB",
        ),
        (&["", "ISO 2022 IR 58"], b"Zhang=\x1b$)A\xD5\xC5"),
        (&["", "ISO 2022 IR 87"], b"Yamada=\x1b$B;3ED\x1b(B"),
        (&["ISO 2022 IR 13", "ISO 2022 IR 87"], b"\xD4\xCF\xC0\xDE=\x1b$B;3ED\x1b(J"),
        (&[], b"M\xFCller"),
        (&["ISO_IR 6"], b"M\xFCller"),
        (&["ISO_IR 192"], b"M\xFCller"),
        (&["ISO_IR 100", "unheard of"], b"\x1b-Mx"),
    ];

    #[test]
    fn what_is_not_certain_keeps_its_bytes_and_its_set() {
        for (sets, name) in UNSURE {
            let source = read(sets, name);
            assert!(has_bytes(&source), "{sets:?}");
            let object = written(&source, "Foie coupé");
            assert!(holds(&object, name), "{sets:?}");
            assert_eq!(object.texts(tags::SPECIFIC_CHARACTER_SET), sets, "{sets:?}");
            assert!(holds(&object, b"Foie coup?"), "{sets:?}");
        }
    }

    #[test]
    fn the_sources_set_is_kept_where_it_carries_everything() {
        let chosen = |sets: &[&str], name: &[u8], label: &str| {
            written(&read(sets, name), label).texts(tags::SPECIFIC_CHARACTER_SET)
        };
        assert!(chosen(&[], b"Doe", "Liver").is_empty());
        assert_eq!(chosen(&["ISO_IR 100"], b"M\xFCller", "Foie coupé"), ["ISO_IR 100"]);
        assert_eq!(chosen(&["ISO_IR 144"], b"\xBB\xEE\xDA", "Liver"), ["ISO_IR 144"]);
        assert_eq!(chosen(&["GB18030"], b"\xCD\xF5", "肝"), ["GB18030"]);
        assert_eq!(chosen(&[], b"Doe", "Foie coupé"), ["ISO_IR 192"]);
        assert_eq!(chosen(&["ISO_IR 100"], b"M\xFCller", "肝臓"), ["ISO_IR 192"]);
        assert_eq!(chosen(&["unheard of"], b"Doe", "Liver"), ["ISO_IR 192"]);
        assert!(holds(&written(&read(&["ISO_IR 144"], b"\xBB\xEE\xDA"), "x"), b"\xBB\xEE\xDA"));
    }

    #[test]
    fn items_have_the_set_of_what_they_are_in_or_their_own() {
        let text = |tag, value: &str| DataElement::new(tag, VR::LO, PrimitiveValue::from(value));
        let inherits = Dataset::from_element_iter([text(tags::CODE_MEANING, "\u{bb}")]);
        let mut own = Dataset::from_element_iter([text(tags::CODE_MEANING, "\u{fc}")]);
        put_set(&mut own, &["ISO_IR 100".to_owned()]);
        let items = dicom_core::value::DataSetSequence::from(vec![inherits, own]);
        let mut dataset = Dataset::new_empty();
        put_set(&mut dataset, &["ISO_IR 144".to_owned()]);
        dataset.put(DataElement::new(tags::PROCEDURE_CODE_SEQUENCE, VR::SQ, items));
        decode(&mut dataset);
        let sequence = dataset.element(tags::PROCEDURE_CODE_SEQUENCE).unwrap();
        let meanings: Vec<String> =
            sequence.items().unwrap().iter().filter_map(|i| i.text(tags::CODE_MEANING)).collect();
        assert_eq!(meanings, ["Л", "ü"]);
    }

    #[test]
    fn json_without_a_set_is_unicode() {
        let mut dataset = Dataset::new_empty();
        let name = PrimitiveValue::from("Müller");
        dataset.put(DataElement::new(tags::PATIENT_NAME, VR::PN, name));
        state_unicode(&mut dataset);
        assert!(!has_bytes(&dataset));
        assert!(holds(&written(&dataset, "x"), "Müller".as_bytes()));
    }
}
