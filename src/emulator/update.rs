//! `UpdateImageSetMetadata` (developer guide, "Updating image set metadata").

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Json};
use axum::routing::post;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::changes::{Flags, Named, changing, instances, latest};
use super::documents;
use super::failure::Failure;
use super::service::{Answer, Service, Shared, blocking, body_of};
use super::store::ImageSet;
use crate::dicom::ahi_metadata::{self, FlatInstance, flat};
use crate::dicom::uid;
use crate::error::ErrorKind;

/// Identifiers, which change only with `force` and cannot be removed.
const UIDS: [&str; 3] = ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"];

/// Attributes in which all image sets of a study agree, besides those of the patient.
const OF_STUDY: [&str; 3] = ["StudyDate", "AccessionNumber", "StudyID"];

/// Returns the route of the operation.
pub(super) fn routes() -> Router<Arc<Service>> {
    let path = "/datastore/{datastore}/imageSet/{set}/updateImageSetMetadata";
    Router::new().route(path, post(update))
}

async fn update(
    State(service): Shared,
    Path((datastore, id)): Path<(String, String)>,
    Query(query): Query<Vec<(String, String)>>,
    body: Bytes,
) -> Answer {
    let body = body_of(&body)?;
    let flags = Flags::new(query);
    let force = flags.is_set("force")?;
    let whole_study = flags.is_set("includeStudyImageSets")?;
    let set = blocking({
        let datastore = datastore.clone();
        move || {
            let _writing = service.store.writing();
            let set = latest(&service, &datastore, &id, flags.text("latestVersion"))?;
            let present = |key: &str| body.get(key).filter(|value| !value.is_null());
            match (present("DICOMUpdates"), present("revertToVersionId")) {
                (Some(updates), None) => {
                    let updates = Updates::read(updates, &set, force, whole_study)?;
                    updates.run(&service, &datastore, set)
                }
                (None, Some(_)) if whole_study => Err(Failure::validation(
                    "includeStudyImageSets does not go with revertToVersionId",
                )),
                (None, Some(version)) => revert(&service, &datastore, set, version),
                _ => Err(Failure::validation("the body has DICOMUpdates or revertToVersionId")),
            }
        }
    })
    .await?;
    let mut answer = changing(&datastore, &set, "UPDATING");
    answer["datastoreId"] = json!(datastore);
    Ok(Json(answer).into_response())
}

/// Creates a new version with the metadata of an earlier one.
fn revert(
    service: &Service,
    datastore: &str,
    mut set: ImageSet,
    version: &Value,
) -> Result<ImageSet, Failure> {
    let id = set.image_set_id.clone();
    let version = version.as_str().and_then(|text| text.parse().ok());
    let before = version
        .filter(|version| *version != set.version)
        .and_then(|version| set.at(version))
        .ok_or_else(|| {
            Failure::validation(format!("revertToVersionId is no earlier version of ImageSet {id}"))
        })?;
    let (version, tags) = (before.version, before.tags.clone());
    let document = documents::read(&service.store, datastore, &id, version)?;
    set.advance("UPDATED");
    set.tags = tags;
    documents::write(&service.store, datastore, &id, set.version, &document)?;
    service.store.save_image_set(datastore, &set)?;
    Ok(set)
}

/// The requested changes.
struct Updates {
    updatable: Named,
    removable: Named,
    force: bool,
    whole_study: bool,
}

impl Updates {
    fn read(
        updates: &Value,
        set: &ImageSet,
        force: bool,
        whole_study: bool,
    ) -> Result<Self, Failure> {
        let series = set.tags.get("DICOMSeriesInstanceUID").and_then(Value::as_str);
        let part = |name: &str| match updates.get(name).filter(|value| !value.is_null()) {
            None => Ok(Named::default()),
            Some(value) => {
                let text = value.as_str().and_then(|text| STANDARD.decode(text).ok());
                let text =
                    text.ok_or_else(|| Failure::validation(format!("{name} is not base64")))?;
                Named::parse(&text, series.unwrap_or_default(), &set.image_set_id)
            }
        };
        let read = Self {
            updatable: part("updatableAttributes")?,
            removable: part("removableAttributes")?,
            force,
            whole_study,
        };
        read.check(set)?;
        Ok(read)
    }

    /// Checks that the image set may be changed like this.
    fn check(&self, set: &ImageSet) -> Result<(), Failure> {
        let touched = Touched::of(&self.updatable, &self.removable);
        if self.updatable == Named::default() && self.removable == Named::default() {
            return Err(Failure::validation("DICOMUpdates names nothing to change"));
        }
        touched.check_levels()?;
        let private = touched.instances.iter().any(|key| flat::is_private_key(key));
        let identifying = touched.updates_uid || touched.study.contains(&"StudyID");
        if (private || identifying) && !self.force {
            let problem = "UIDs, StudyID and private attributes are changed with force";
            return Err(Failure::validation(problem));
        }
        if set.is_primary {
            return touched.check_primary(self.whole_study);
        }
        if self.whole_study {
            let problem = "includeStudyImageSets is for primary image sets, which this one is not";
            return Err(Failure::validation(problem));
        }
        Ok(())
    }

    fn run(&self, service: &Service, datastore: &str, set: ImageSet) -> Result<ImageSet, Failure> {
        const STUDY: &str = "DICOMStudyInstanceUID";
        let mut others = Vec::new();
        if self.whole_study {
            others = service.store.image_sets(datastore)?;
            others.retain(|other| {
                other.is_primary
                    && other.image_set_state == "ACTIVE"
                    && other.image_set_id != set.image_set_id
                    && other.tags.get(STUDY) == set.tags.get(STUDY)
            });
        }
        // Prepares all image sets before any of them is saved.
        let mut changed = vec![self.changed(service, datastore, set)?];
        for other in others {
            changed.push(self.changed(service, datastore, other)?);
        }
        for (set, instances) in &changed {
            let (store, id) = (&service.store, &set.image_set_id);
            documents::write_instances(store, datastore, id, set.version, instances)?;
        }
        for (set, _) in &changed {
            service.store.save_image_set(datastore, set)?;
        }
        Ok(changed.swap_remove(0).0)
    }

    fn changed(
        &self,
        service: &Service,
        datastore: &str,
        mut set: ImageSet,
    ) -> Result<(ImageSet, Vec<FlatInstance>), Failure> {
        let mut all = instances(service, datastore, &set)?;
        self.remove(&mut all)?;
        self.update(&mut all)?;
        check_uids(&all)?;
        let document = flat::document(datastore, &set.image_set_id, &all)?.to_string();
        // The message contains names of attributes and VRs, but no values.
        ahi_metadata::parse(document.as_bytes()).map_err(|e| match e.kind() {
            ErrorKind::Internal | ErrorKind::Io => Failure::internal(&e),
            _ => Failure::validation(e.message()),
        })?;
        set.advance("UPDATED");
        set.forced = self.force;
        set.tags = documents::search_tags(&all);
        Ok((set, all))
    }

    fn remove(&self, all: &mut Vec<FlatInstance>) -> Result<(), Failure> {
        let Named { patient, study, series, instances } = &self.removable;
        let levels = [patient, study, series];
        let named = levels.into_iter().chain(instances.values().map(|instance| &instance.dicom));
        if named.flat_map(Map::keys).any(|key| UIDS.contains(&key.as_str()) || key == "SOPClassUID")
        {
            return Err(Failure::validation("UIDs cannot be removed"));
        }
        for flat in all.iter_mut() {
            levels.into_iter().flat_map(Map::keys).for_each(|key| {
                flat.dicom.shift_remove(key);
            });
        }
        for (uid, named) in instances {
            let at = all.iter().position(|flat| flat.uid == *uid).ok_or_else(no_such_instance)?;
            if named.dicom.is_empty() {
                all.remove(at);
                continue;
            }
            for key in named.dicom.keys() {
                all[at].dicom.shift_remove(key);
                all[at].vrs.shift_remove(key);
            }
        }
        if all.is_empty() {
            return Err(Failure::validation("an image set keeps one instance at least: delete it"));
        }
        Ok(())
    }

    fn update(&self, all: &mut [FlatInstance]) -> Result<(), Failure> {
        let Named { patient, study, series, instances } = &self.updatable;
        for (key, value) in patient.iter().chain(study).chain(series) {
            check_key(key)?;
            for flat in all.iter_mut() {
                flat.dicom.insert(key.clone(), value.clone());
            }
        }
        for (uid, named) in instances {
            let mut found = all.iter_mut().filter(|flat| flat.uid == *uid);
            let flat = found.next().ok_or_else(no_such_instance)?;
            for (key, value) in &named.dicom {
                check_key(key)?;
                flat.dicom.insert(key.clone(), value.clone());
            }
            flat.vrs.extend(named.vrs.clone());
            if let Some(uid) = named.dicom.get("SOPInstanceUID").and_then(Value::as_str) {
                uid.clone_into(&mut flat.uid);
            }
        }
        Ok(())
    }
}

/// The attributes named in an update, by level.
struct Touched<'a> {
    patient: Vec<&'a str>,
    study: Vec<&'a str>,
    series: Vec<&'a str>,
    instances: Vec<&'a str>,
    /// Whether one of them is a UID.
    updates_uid: bool,
}

impl<'a> Touched<'a> {
    fn of(updatable: &'a Named, removable: &'a Named) -> Self {
        let both = [updatable, removable];
        let keys = |pick: fn(&Named) -> &Map<String, Value>| -> Vec<&'a str> {
            both.into_iter().flat_map(|named| pick(named).keys().map(String::as_str)).collect()
        };
        let (patient, study, series) =
            (keys(|n| &n.patient), keys(|n| &n.study), keys(|n| &n.series));
        let of_instances = both.into_iter().flat_map(|named| named.instances.values());
        let instances: Vec<&str> =
            of_instances.flat_map(|named| named.dicom.keys().map(String::as_str)).collect();
        let has_uid = |keys: &[&str]| keys.iter().any(|key| UIDS.contains(key));
        let updates_uid = has_uid(&study) || has_uid(&series) || has_uid(&instances);
        Self { patient, study, series, instances, updates_uid }
    }

    /// Checks that the attributes belong to the levels they are named at.
    fn check_levels(&self) -> Result<(), Failure> {
        let mut above = [&self.patient, &self.study, &self.series].into_iter().flatten();
        if above.any(|key| flat::is_private_key(key)) {
            return Err(Failure::validation("private attributes are those of instances"));
        }
        if self.instances.iter().any(|key| flat::stands_above_instances(key)) {
            return Err(Failure::validation(
                "an attribute of the patient, the study or the series is named at an instance",
            ));
        }
        Ok(())
    }

    /// Checks that a primary image set may be changed like this.
    fn check_primary(&self, whole_study: bool) -> Result<(), Failure> {
        if self.updates_uid || !self.series.is_empty() {
            return Err(Failure::validation(
                "UIDs and attributes of the series of primary image sets cannot be changed",
            ));
        }
        let is_common = |key: &&str| OF_STUDY.contains(key);
        let is_common = !self.patient.is_empty() || self.study.iter().any(is_common);
        if is_common && !whole_study {
            return Err(Failure::validation(
                "what is common to the primary image sets of a study is changed in all of them: set \
                 includeStudyImageSets",
            ));
        }
        if whole_study && !self.instances.is_empty() {
            return Err(Failure::validation("includeStudyImageSets does not go with instances"));
        }
        Ok(())
    }
}

fn no_such_instance() -> Failure {
    Failure::validation("the attributes name an instance that the image set does not have")
}

fn check_key(key: &str) -> Result<(), Failure> {
    if flat::is_key(key) {
        return Ok(());
    }
    Err(Failure::validation(
        "the attributes have a key that is neither a keyword nor a private tag",
    ))
}

fn check_uids(all: &[FlatInstance]) -> Result<(), Failure> {
    let mut seen = BTreeSet::new();
    for flat in all {
        let are_uids =
            UIDS.iter().all(|key| flat.text(key).is_some_and(|text| uid::is_written(&text)));
        if !are_uids || !uid::is_written(&flat.uid) {
            return Err(Failure::validation("a UID is malformed"));
        }
        if !seen.insert(flat.uid.as_str()) {
            return Err(Failure::validation("two instances have the same UID"));
        }
    }
    Ok(())
}
