//! `SearchImageSets`: filters and sorting.

use serde_json::{Map, Value, json};

use super::failure::Failure;
use super::store::ImageSet;

/// Attributes that support EQUAL.
const EQUAL: [&str; 6] = [
    "DICOMPatientId",
    "DICOMAccessionNumber",
    "DICOMStudyId",
    "DICOMStudyInstanceUID",
    "DICOMSeriesInstanceUID",
    "isPrimary",
];

/// Returns the image sets that match `criteria` (an object or null), in the order they request.
pub fn search(sets: Vec<ImageSet>, criteria: &Value) -> Result<Vec<ImageSet>, Failure> {
    let filters = match criteria.get("filters") {
        None | Some(Value::Null) => &[][..],
        Some(Value::Array(list)) => list,
        Some(_) => return Err(Failure::validation("filters must be a list")),
    };
    let mut found = Vec::new();
    for set in sets.into_iter().filter(|s| s.image_set_state != "DELETED") {
        let mut all = true;
        for filter in filters {
            all &= matches(&set, filter)?;
        }
        if all {
            found.push(set);
        }
    }
    if let Some(sort) = criteria.get("sort").filter(|s| !s.is_null()) {
        order(&mut found, sort)?;
    }
    Ok(found)
}

/// Returns an entry of `imageSetsMetadataSummaries`.
pub fn summary(set: &ImageSet) -> Value {
    json!({
        "imageSetId": set.image_set_id,
        "version": set.version,
        "createdAt": set.created_at,
        "updatedAt": set.updated_at,
        "isPrimary": set.is_primary,
        "DICOMTags": set.tags,
    })
}

fn matches(set: &ImageSet, filter: &Value) -> Result<bool, Failure> {
    let values = filter
        .get("values")
        .and_then(Value::as_array)
        .ok_or_else(|| Failure::validation("a filter needs values"))?;
    match filter.get("operator").and_then(Value::as_str) {
        Some("EQUAL") => {
            let [Value::Object(value)] = &values[..] else {
                return Err(Failure::validation("EQUAL takes one value"));
            };
            equal(set, value)
        }
        Some("BETWEEN") => {
            let [Value::Object(low), Value::Object(high)] = &values[..] else {
                return Err(Failure::validation("BETWEEN takes two values"));
            };
            between(set, low, high)
        }
        _ => Err(Failure::validation("operator must be EQUAL or BETWEEN")),
    }
}

fn equal(set: &ImageSet, value: &Map<String, Value>) -> Result<bool, Failure> {
    let (name, wanted) = only(value)?;
    if !EQUAL.contains(&name) {
        return Err(Failure::validation(format!("{name} cannot be compared with EQUAL")));
    }
    if name == "isPrimary" {
        return Ok(wanted.as_bool() == Some(set.is_primary));
    }
    Ok(set.tags.get(name) == Some(wanted))
}

fn between(
    set: &ImageSet,
    low: &Map<String, Value>,
    high: &Map<String, Value>,
) -> Result<bool, Failure> {
    let ((name, low), (other, high)) = (only(low)?, only(high)?);
    if name != other {
        return Err(Failure::validation("BETWEEN compares one attribute"));
    }
    match name {
        "createdAt" | "updatedAt" => {
            let at = if name == "createdAt" { set.created_at } else { set.updated_at };
            match (low.as_f64(), high.as_f64()) {
                (Some(low), Some(high)) => Ok((low..=high).contains(&at)),
                _ => Err(Failure::validation(format!("{name} takes seconds since 1970"))),
            }
        }
        "DICOMStudyDateAndTime" => {
            let text = |v: &Value| {
                let part = |key| v.get(key).and_then(Value::as_str).unwrap_or("").to_owned();
                (part("DICOMStudyDate"), part("DICOMStudyTime"))
            };
            let part = |key| set.tags.get(key).and_then(Value::as_str).unwrap_or("").to_owned();
            let at = (part("DICOMStudyDate"), part("DICOMStudyTime"));
            Ok(text(low) <= at && at <= text(high))
        }
        _ => Err(Failure::validation(format!("{name} cannot be compared with BETWEEN"))),
    }
}

fn only(value: &Map<String, Value>) -> Result<(&str, &Value), Failure> {
    let mut entries = value.iter();
    match (entries.next(), entries.next()) {
        (Some((name, value)), None) => Ok((name.as_str(), value)),
        _ => Err(Failure::validation("a filter's value names one attribute")),
    }
}

fn order(found: &mut [ImageSet], sort: &Value) -> Result<(), Failure> {
    let descending = match sort.get("sortOrder").and_then(Value::as_str) {
        Some("ASC") => false,
        Some("DESC") => true,
        _ => return Err(Failure::validation("sortOrder must be ASC or DESC")),
    };
    let tag = |set: &ImageSet, name: &str| {
        set.tags.get(name).and_then(Value::as_str).unwrap_or("").to_owned()
    };
    match sort.get("sortField").and_then(Value::as_str) {
        Some("createdAt") => found.sort_by(|a, b| a.created_at.total_cmp(&b.created_at)),
        Some("updatedAt") => found.sort_by(|a, b| a.updated_at.total_cmp(&b.updated_at)),
        Some("DICOMStudyDateAndTime") => {
            found.sort_by_key(|s| (tag(s, "DICOMStudyDate"), tag(s, "DICOMStudyTime")));
        }
        _ => {
            return Err(Failure::validation(
                "sortField must be createdAt, updatedAt or DICOMStudyDateAndTime",
            ));
        }
    }
    if descending {
        found.reverse();
    }
    Ok(())
}
