//! Selects the attributes of a search result: the defaults of its level, those it was matched by,
//! and those requested by `includefield`.

use dicom_core::Tag;
use dicom_dictionary_std::tags;
use serde_json::{Map, Value, json};

use super::Scope;
use super::catalogue::Row;
use super::level::Level;
use super::query::Search;
use crate::dicom::attributes::keyword;
use crate::dicom::{Attributes, Dataset};
use crate::emulator::dicomweb::find::typed;
use crate::emulator::dicomweb::json::{self, key};
use crate::emulator::dicomweb::uris::Base;
use crate::error::Result;

/// Study attributes that are not in whole groups (developer guide, "Study level attributes for
/// includefield=all").
const STUDY: [Tag; 16] = [
    tags::SPECIFIC_CHARACTER_SET,
    tags::STUDY_DATE,
    tags::STUDY_TIME,
    tags::ACCESSION_NUMBER,
    tags::ISSUER_OF_ACCESSION_NUMBER_SEQUENCE,
    tags::REFERRING_PHYSICIAN_NAME,
    tags::REFERRING_PHYSICIAN_IDENTIFICATION_SEQUENCE,
    tags::CONSULTING_PHYSICIAN_NAME,
    tags::TIMEZONE_OFFSET_FROM_UTC,
    tags::STUDY_DESCRIPTION,
    tags::PHYSICIANS_OF_RECORD,
    tags::NAME_OF_PHYSICIANS_READING_STUDY,
    tags::ADMITTING_DIAGNOSES_DESCRIPTION,
    tags::REFERENCED_STUDY_SEQUENCE,
    tags::STUDY_INSTANCE_UID,
    tags::STUDY_ID,
];

/// Builds one record of the response.
///
/// # Errors
/// Propagates the errors of [`typed`] and [`json::dataset`].
pub(super) fn record(row: &Row, scope: &Scope, search: &Search, base: &Base) -> Result<Value> {
    let text = |keyword| row.flat.text(keyword).unwrap_or_default();
    let (study, series) = (text("StudyInstanceUID"), text("SeriesInstanceUID"));
    let uri = match scope.level {
        Level::Study => base.study(&study),
        Level::Series => base.series(&study, &series),
        Level::Instance => base.instance(&study, &series, &row.flat.uid),
    };
    let instance = typed(&row.flat)?;
    let bulk =
        |name: &str| format!("{}/bulkdata/{name}", base.instance(&study, &series, &row.flat.uid));
    let all = json::dataset(&instance.dataset, &bulk)?;
    let mut told = wanted(&all, &instance.dataset, row, scope, search);
    let mut put = |tag: Tag, vr: &str, values: Value| {
        told.insert(key(tag), json!({"vr": vr, "Value": values}));
    };
    put(tags::INSTANCE_AVAILABILITY, "CS", json!(["ONLINE"]));
    put(tags::RETRIEVE_URL, "UR", json!([uri]));
    if scope.tells(Level::Study) {
        put(tags::MODALITIES_IN_STUDY, "CS", json!(row.study.modalities));
        put(tags::NUMBER_OF_STUDY_RELATED_SERIES, "IS", json!([row.study.series]));
        put(tags::NUMBER_OF_STUDY_RELATED_INSTANCES, "IS", json!([row.study.instances]));
    }
    if scope.tells(Level::Series) {
        put(tags::NUMBER_OF_SERIES_RELATED_INSTANCES, "IS", json!([row.series_instances]));
    }
    told.sort_keys();
    Ok(Value::Object(told))
}

/// Selects the returned attributes from all.
fn wanted(
    all: &Map<String, Value>,
    dataset: &Dataset,
    row: &Row,
    scope: &Scope,
    search: &Search,
) -> Map<String, Value> {
    let levels = [Level::Study, Level::Series, Level::Instance];
    let usual = |tag: &Tag| {
        levels.iter().any(|level| scope.tells(*level) && level.defaults().contains(tag))
            || search.keys.iter().any(|(key, _)| key == tag)
            || (search.all && is_of_level(*tag, row, scope.level))
            || search
                .creators
                .iter()
                .any(|(creator, name)| creator == tag && is(dataset, *tag, name))
    };
    let mut told = Map::new();
    for element in dataset {
        let tag = element.header().tag;
        let Some(value) = all.get(&key(tag)) else { continue };
        if usual(&tag) {
            told.insert(key(tag), value.clone());
            continue;
        }
        let below: Vec<&[Tag]> = search
            .fields
            .iter()
            .filter_map(|path| path.split_first().filter(|(first, _)| **first == tag))
            .map(|(_, rest)| rest)
            .collect();
        if !below.is_empty() && (tag.group() % 2 == 0 || creator_is_named(dataset, tag, search)) {
            told.extend(part(value, &below).map(|part| (key(tag), part)));
        }
    }
    told
}

fn is(dataset: &Dataset, tag: Tag, name: &str) -> bool {
    dataset.text(tag).as_deref() == Some(name.trim())
}

/// Whether the search names the private creator of an attribute with its value (PS3.5 section
/// 7.8.1).
fn creator_is_named(dataset: &Dataset, tag: Tag, search: &Search) -> bool {
    let creator = Tag(tag.group(), tag.element() >> 8);
    search.creators.iter().any(|(named, name)| *named == creator && is(dataset, creator, name))
}

/// Whether an attribute belongs to the given level.
fn is_of_level(tag: Tag, row: &Row, level: Level) -> bool {
    let is_of_study = matches!(tag.group(), 0x0010 | 0x0032 | 0x0038) || STUDY.contains(&tag);
    match level {
        Level::Study => is_of_study,
        Level::Series => {
            !is_of_study && (row.shared.contains(&keyword(tag)) || row.shared.contains(&key(tag)))
        }
        Level::Instance => true,
    }
}

/// Returns the parts of a value at the ends of `paths`; the whole value if a path ends here.
fn part(value: &Value, paths: &[&[Tag]]) -> Option<Value> {
    if paths.iter().any(|path| path.is_empty()) {
        return Some(value.clone());
    }
    let items = value.get("Value")?.as_array()?;
    let item = |item: &Value| {
        let mut told = Map::new();
        for (tag, value) in item.as_object().into_iter().flatten() {
            let below: Vec<&[Tag]> = paths
                .iter()
                .filter_map(|path| path.split_first().filter(|(first, _)| key(**first) == *tag))
                .map(|(_, rest)| rest)
                .collect();
            if !below.is_empty() {
                told.extend(part(value, &below).map(|part| (tag.clone(), part)));
            }
        }
        Value::Object(told)
    };
    Some(json!({"vr": "SQ", "Value": items.iter().map(item).collect::<Vec<_>>()}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_sequences_are_told() {
        let value = json!({"vr": "SQ", "Value": [
            {"00080100": {"vr": "SH", "Value": ["a"]}, "00080104": {"vr": "LO", "Value": ["b"]}},
            {"00081199": {"vr": "SQ", "Value": [{"00081150": {"vr": "UI", "Value": ["1.2"]}}]}},
        ]});
        let (code, references) = (Tag(0x0008, 0x0100), Tag(0x0008, 0x1199));
        let told = part(&value, &[&[code], &[references, Tag(0x0008, 0x1150)]]).unwrap();
        assert_eq!(told["Value"][0], json!({"00080100": {"vr": "SH", "Value": ["a"]}}));
        assert_eq!(told["Value"][1], value["Value"][1]);
        assert_eq!(part(&value, &[&[code], &[]]).unwrap(), value);
        assert_eq!(part(&json!({"vr": "SH"}), &[&[code]]), None);
    }
}
