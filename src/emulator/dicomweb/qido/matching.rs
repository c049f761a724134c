//! Attribute matching (PS3.4 section C.2.2.2, PS3.18 section 8.3.4).

use dicom_core::dictionary::DataDictionaryEntry;
use dicom_core::{DataDictionary, Tag, VR};
use dicom_dictionary_std::StandardDataDictionary;

/// Whether one of the values matches `wanted`.
pub(super) fn matches(tag: Tag, values: &[String], wanted: &str, fuzzy: bool) -> bool {
    let wanted = wanted.trim();
    // Universal matching.
    if wanted.is_empty() || wanted == "*" {
        return true;
    }
    let vr = StandardDataDictionary.by_tag(tag).map(|entry| entry.vr().relaxed());
    let any = |test: &dyn Fn(&str) -> bool| values.iter().any(|value| test(value));
    match vr {
        Some(VR::UI) => {
            let mut list = wanted.split([',', '\\']).map(str::trim);
            list.any(|uid| any(&|value| value == uid))
        }
        Some(VR::DA | VR::TM | VR::DT) => any(&|value| in_range(value, wanted)),
        Some(VR::PN) if fuzzy => any(&|value| begins_words(value, wanted)),
        Some(VR::PN) => any(&|value| wildcard(&value.to_lowercase(), &wanted.to_lowercase())),
        Some(VR::US | VR::IS) => {
            any(&|value| wildcard(value, wanted) || is_same_number(value, wanted))
        }
        _ => any(&|value| wildcard(value, wanted)),
    }
}

fn is_same_number(value: &str, wanted: &str) -> bool {
    wanted.parse::<i64>().is_ok_and(|wanted| value.parse() == Ok(wanted))
}

/// Dates and times sort like their text; the end of a range includes all values that begin with it.
fn in_range(value: &str, wanted: &str) -> bool {
    let Some((low, high)) = wanted.split_once('-') else { return value.starts_with(wanted) };
    let (low, high) = (low.trim(), high.trim());
    value >= low && (high.is_empty() || value <= high || value.starts_with(high))
}

/// Matches `*` for any text and `?` for any character.
fn wildcard(value: &str, pattern: &str) -> bool {
    let (value, pattern): (Vec<char>, Vec<char>) =
        (value.chars().collect(), pattern.chars().collect());
    let (mut v, mut p) = (0, 0);
    // The position of the last `*`, and how much text it covers.
    let mut star: Option<(usize, usize)> = None;
    while v < value.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, v));
                p += 1;
            }
            Some(c) if *c == '?' || *c == value[v] => {
                v += 1;
                p += 1;
            }
            _ => match &mut star {
                Some((at, reach)) => {
                    *reach += 1;
                    (p, v) = (*at + 1, *reach);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

/// Whether each wanted word is a prefix of a word in the name, ignoring case.
fn begins_words(name: &str, wanted: &str) -> bool {
    let words = |text: &str| -> Vec<String> {
        let separators = |c: char| c.is_whitespace() || matches!(c, '^' | '=' | ',' | '"' | '*');
        text.to_lowercase().split(separators).filter(|w| !w.is_empty()).map(str::to_owned).collect()
    };
    let name = words(name);
    words(wanted).iter().all(|wanted| name.iter().any(|word| word.starts_with(wanted)))
}

#[cfg(test)]
mod tests {
    use dicom_dictionary_std::tags;

    use super::*;

    fn one(tag: Tag, value: &str, wanted: &str) -> bool {
        matches(tag, &[value.to_owned()], wanted, false)
    }

    #[test]
    fn texts_match_with_wildcards() {
        assert!(one(tags::STUDY_DESCRIPTION, "CT Nuclear", "*Nuclear"));
        assert!(one(tags::STUDY_DESCRIPTION, "CT Nuclear x", "*Nu*ar*"));
        assert!(!one(tags::STUDY_DESCRIPTION, "CT Nuclear x", "*Nuclear"));
        assert!(one(tags::PATIENT_ID, "200965981abc", "200965981???"));
        assert!(!one(tags::PATIENT_ID, "200965981ab", "200965981???"));
        assert!(one(tags::PATIENT_ID, "", "*") && one(tags::PATIENT_ID, "a", ""));
        assert!(!one(tags::PATIENT_ID, "a", "A"));
        assert!(!matches(tags::PATIENT_ID, &[], "a", false));
        assert!(matches(tags::PATIENT_ID, &[], "*", false));
    }

    #[test]
    fn dates_match_in_ranges() {
        for (wanted, expected) in [
            ("20240105", true),
            ("20240101-20240105", true),
            ("20240105-", true),
            ("-20240104", false),
            ("20240106-20240107", false),
        ] {
            assert_eq!(one(tags::STUDY_DATE, "20240105", wanted), expected, "{wanted}");
        }
        assert!(one(tags::STUDY_TIME, "101530.5", "0900-1015"));
    }

    #[test]
    fn uids_and_numbers_match_as_wholes() {
        assert!(one(tags::STUDY_INSTANCE_UID, "1.2", "1.3,1.2"));
        assert!(!one(tags::STUDY_INSTANCE_UID, "1.23", "1.2"));
        assert!(one(tags::SERIES_NUMBER, "4", "04") && !one(tags::SERIES_NUMBER, "4", "40"));
        assert!(
            one(tags::WARNING_REASON, "45312", "*") && one(tags::WARNING_REASON, "45312", "453*")
        );
    }

    #[test]
    fn names_match_by_the_beginnings_of_words() {
        let fuzzy =
            |wanted| matches(tags::PATIENT_NAME, &["Thomas^Albert".to_owned()], wanted, true);
        for wanted in ["thomas", "Albert", "alb", "Thomas Albert", "\"Thomas^Albert\""] {
            assert!(fuzzy(wanted), "{wanted}");
        }
        assert!(!fuzzy("hom") && !fuzzy("ber"));
        assert!(one(tags::PATIENT_NAME, "Thomas^Albert", "thomas*"));
        assert!(!one(tags::PATIENT_NAME, "Thomas^Albert", "albert"));
    }
}
