//! The query of a search.

use dicom_core::{DataDictionary, Tag};
use dicom_dictionary_std::StandardDataDictionary;

use super::level::Level;
use crate::emulator::failure::Failure;

/// Maximum number of `includefield` values, and of search keys.
const MOST_FIELDS: usize = 50;

/// Maximum and default limit, and maximum offset.
const MOST_LIMIT: usize = 1000;
const MOST_OFFSET: usize = 1_000_000;

/// The path of a requested attribute through sequences.
pub(super) type FieldPath = Vec<Tag>;

/// The parsed search parameters.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Search {
    /// Search keys and the values they must match.
    pub keys: Vec<(Tag, String)>,
    /// Attributes requested in addition to the defaults.
    pub fields: Vec<FieldPath>,
    /// Private creators named for private attributes, with their values.
    pub creators: Vec<(Tag, String)>,
    /// Whether all attributes are requested.
    pub all: bool,
    pub fuzzy: bool,
    pub limit: usize,
    pub offset: usize,
}

impl Search {
    /// Parses the parameters of a search at this level.
    ///
    /// # Errors
    /// `ValidationException` for invalid numbers, for attributes that are not search keys, and for
    /// too many of either.
    pub fn read(pairs: &[(String, String)], level: Level) -> Result<Self, Failure> {
        let mut search = Self {
            keys: Vec::new(),
            fields: Vec::new(),
            creators: Vec::new(),
            all: false,
            fuzzy: false,
            limit: MOST_LIMIT,
            offset: 0,
        };
        let mut included = 0;
        for (name, value) in pairs {
            match name.as_str() {
                "limit" => search.limit = number(name, value)?.min(MOST_LIMIT),
                "offset" => {
                    search.offset = number(name, value)?;
                    if search.offset > MOST_OFFSET {
                        let problem = format!("offset must be at most {MOST_OFFSET}");
                        return Err(Failure::validation(problem));
                    }
                }
                "fuzzymatching" => {
                    search.fuzzy = value
                        .parse()
                        .map_err(|_| Failure::validation("fuzzymatching must be true or false"))?;
                }
                "includefield" => {
                    for field in value.split(',') {
                        included += 1;
                        search.include(field.trim());
                    }
                }
                name => search.key(name, value, level)?,
            }
            if included > MOST_FIELDS || search.keys.len() > MOST_FIELDS {
                let problem =
                    format!("a search has at most {MOST_FIELDS} attributes and includefield");
                return Err(Failure::validation(problem));
            }
        }
        Ok(search)
    }

    /// Requested fields that are not attributes are ignored.
    fn include(&mut self, field: &str) {
        if field.eq_ignore_ascii_case("all") {
            self.all = true;
            return;
        }
        let path: Option<FieldPath> = field.split('.').map(attribute).collect();
        let path = path.filter(|path| !self.fields.contains(path));
        self.fields.extend(path);
    }

    fn key(&mut self, name: &str, value: &str, level: Level) -> Result<(), Failure> {
        let unknown = |what: &str| {
            // Repeats a name in the error only if it has the form of one.
            let named = name.len() <= 64 && name.bytes().all(|b| b.is_ascii_alphanumeric());
            let name = if named { name } else { "a parameter" };
            Failure::validation(format!("{name} {what}"))
        };
        let tag = attribute(name).ok_or_else(|| unknown("is no attribute and no parameter"))?;
        if tag.group() % 2 == 1 && (0x10..=0xFF).contains(&tag.element()) {
            self.creators.push((tag, value.to_owned()));
            return Ok(());
        }
        if !level.is_key(tag) {
            return Err(unknown("is not an attribute that is searched by at this level"));
        }
        self.keys.push((tag, value.to_owned()));
        Ok(())
    }
}

fn number(name: &str, value: &str) -> Result<usize, Failure> {
    value.parse().map_err(|_| Failure::validation(format!("{name} must be a number")))
}

/// Parses an attribute given by keyword or as eight hexadecimal digits.
fn attribute(text: &str) -> Option<Tag> {
    if text.len() == 8 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
        let half = |part: &str| u16::from_str_radix(part, 16).ok();
        return Some(Tag(half(&text[..4])?, half(&text[4..])?));
    }
    StandardDataDictionary.by_name(text).map(|entry| entry.tag.inner())
}

#[cfg(test)]
mod tests {
    use dicom_dictionary_std::tags;

    use super::*;

    fn read(pairs: &[(&str, &str)], level: Level) -> Result<Search, Failure> {
        let pairs: Vec<_> = pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        Search::read(&pairs, level)
    }

    #[test]
    fn parameters_are_read() {
        let search = read(
            &[
                ("PatientID", "1*"),
                ("00080020", "20240101-"),
                ("includefield", "PatientWeight,00101081"),
                ("includefield", "00101081"),
                ("includefield", "00080096.00080100"),
                ("includefield", "nonsense"),
                ("00190010", "Philips"),
                ("fuzzymatching", "true"),
                ("limit", "5000"),
                ("offset", "7"),
            ],
            Level::Study,
        )
        .unwrap();
        assert_eq!(search.keys[0], (tags::PATIENT_ID, "1*".to_owned()));
        assert_eq!(search.keys[1].0, tags::STUDY_DATE);
        assert_eq!(search.fields.len(), 3);
        assert_eq!(search.fields[2], [Tag(0x0008, 0x0096), Tag(0x0008, 0x0100)]);
        assert_eq!(search.creators, [(Tag(0x0019, 0x0010), "Philips".to_owned())]);
        assert!(search.fuzzy && !search.all);
        assert_eq!((search.limit, search.offset), (1000, 7));
    }

    #[test]
    fn what_is_no_search_is_refused() {
        for pairs in [
            [("limit", "-1")],
            [("offset", "1000001")],
            [("fuzzymatching", "maybe")],
            [("Nonsense", "1")],
            [("Modality", "CT")],
            [("PixelData", "1")],
        ] {
            assert!(read(&pairs, Level::Study).is_err(), "{pairs:?}");
        }
        assert!(read(&[("Modality", "CT")], Level::Series).is_ok());
        assert!(read(&[("includefield", "Rows"); 51], Level::Study).is_err());
    }
}
