//! The searchable studies, series and instances: those of the primary image sets.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use dicom_core::Tag;
use dicom_dictionary_std::tags;
use serde_json::Value;

use super::level::Level;
use super::matching::matches;
use super::query::Search;
use super::{MOST_RECORDS, Scope};
use crate::dicom::ahi_metadata::{FlatInstance, flat};
use crate::dicom::attributes::keyword;
use crate::emulator::documents;
use crate::emulator::store::{ImageSet, Store};
use crate::error::Result;

/// Aggregated properties of a study.
#[derive(Debug, Default)]
pub(super) struct Study {
    pub modalities: BTreeSet<String>,
    pub series: u64,
    pub instances: u64,
    updated_at: f64,
}

/// A search result: an instance, or one that represents its series or study.
pub(super) struct Row {
    pub flat: FlatInstance,
    pub study: Arc<Study>,
    /// Number of instances in its series.
    pub series_instances: u64,
    /// Keywords of the attributes with the same value in all instances of its series; filled only
    /// by a search for series with all fields.
    pub shared: BTreeSet<String>,
    /// When its image set was last changed.
    updated_at: f64,
}

/// Returns the matching rows in result order.
///
/// # Errors
/// [`ErrorKind::Io`](crate::error::ErrorKind::Io) if an image set cannot be read.
pub(super) fn rows(
    store: &Store,
    datastore_id: &str,
    scope: &Scope,
    search: &Search,
) -> Result<Vec<Row>> {
    let mut sets = store.image_sets(datastore_id)?;
    sets.retain(|set| set.is_primary && set.image_set_state != "DELETED");
    let studies = studies(&sets);
    let mut seen = BTreeSet::new();
    let mut rows = Vec::new();
    for set in sets.iter().filter(|set| is_in(set, scope)) {
        let Some(uid) = tag(set, "DICOMStudyInstanceUID") else { continue };
        let Some(study) = studies.get(uid) else { continue };
        // One image set represents its study.
        if scope.level == Level::Study && !seen.insert(uid) {
            continue;
        }
        let document = documents::read(store, datastore_id, &set.image_set_id, set.version)?;
        let mut instances = flat::instances(&document)?;
        let series_instances = instances.len() as u64;
        let is_whole = search.all && scope.level == Level::Series;
        let shared = if is_whole { shared(&instances) } else { BTreeSet::new() };
        if scope.level != Level::Instance {
            instances.truncate(1);
        }
        let found = instances.into_iter().filter(|flat| is_found(flat, study, search));
        rows.extend(found.map(|flat| Row {
            flat,
            study: Arc::clone(study),
            series_instances,
            shared: shared.clone(),
            updated_at: set.updated_at,
        }));
    }
    sort(&mut rows, scope);
    rows.truncate(MOST_RECORDS);
    Ok(rows)
}

fn tag<'a>(set: &'a ImageSet, name: &str) -> Option<&'a str> {
    set.tags.get(name).and_then(Value::as_str)
}

fn is_in(set: &ImageSet, scope: &Scope) -> bool {
    let is = |name, wanted: &Option<String>| {
        wanted.as_ref().is_none_or(|uid| tag(set, name) == Some(uid.as_str()))
    };
    is("DICOMStudyInstanceUID", &scope.study) && is("DICOMSeriesInstanceUID", &scope.series)
}

fn studies(sets: &[ImageSet]) -> BTreeMap<String, Arc<Study>> {
    let mut all: BTreeMap<String, Study> = BTreeMap::new();
    for set in sets {
        let Some(uid) = tag(set, "DICOMStudyInstanceUID") else { continue };
        let study = all.entry(uid.to_owned()).or_default();
        study.modalities.extend(tag(set, "DICOMSeriesModality").map(str::to_owned));
        study.series += 1;
        let instances = set.tags.get("DICOMNumberOfStudyRelatedInstances");
        study.instances += instances.and_then(Value::as_u64).unwrap_or(0);
        study.updated_at = study.updated_at.max(set.updated_at);
    }
    all.into_iter().map(|(uid, study)| (uid, Arc::new(study))).collect()
}

fn shared(instances: &[FlatInstance]) -> BTreeSet<String> {
    let Some((first, others)) = instances.split_first() else { return BTreeSet::new() };
    let same = |(key, value): &(&String, &Value)| {
        others.iter().all(|other| other.dicom.get(*key) == Some(*value))
    };
    first.dicom.iter().filter(same).map(|(key, _)| key.clone()).collect()
}

fn is_found(flat: &FlatInstance, study: &Study, search: &Search) -> bool {
    let values = |tag: Tag| match tag {
        tags::MODALITIES_IN_STUDY => study.modalities.iter().cloned().collect(),
        tag => flat.texts(&keyword(tag)),
    };
    search.keys.iter().all(|(tag, wanted)| matches(*tag, &values(*tag), wanted, search.fuzzy))
}

/// Sorts studies and the instances of a study by time of change, latest first, and series and other
/// instances by number, those without a number last.
fn sort(rows: &mut [Row], scope: &Scope) {
    let number = |row: &Row, keyword: &str| {
        let number = row.flat.text(keyword).and_then(|text| text.parse::<i64>().ok());
        (number.is_none(), number)
    };
    let milliseconds = |seconds: f64| Reverse((seconds * 1000.0) as u64);
    match scope.level {
        Level::Study => rows.sort_by_key(|row| milliseconds(row.study.updated_at)),
        Level::Series => rows.sort_by_key(|row| number(row, "SeriesNumber")),
        Level::Instance if scope.study.is_some() && scope.series.is_none() => {
            rows.sort_by_key(|row| (milliseconds(row.updated_at), number(row, "InstanceNumber")));
        }
        Level::Instance => rows.sort_by_key(|row| number(row, "InstanceNumber")),
    }
}
