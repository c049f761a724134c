//! Assigns instances to image sets (developer guide, "Understanding image sets" and "Understanding
//! import jobs").
//!
//! The instances of a series form one image set, the primary one, as long as they agree with it and
//! with the other primary image sets of their study. An instance that already exists is replaced:
//! the image set gets a new version but no additional instance. Instances that do not agree go to
//! image sets that are not primary.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::encode::Encoded;
use super::store::{ImageSet, Store, new_id};
use super::{documents, originals};
use crate::dicom::ahi_metadata::{FlatInstance, flat};
use crate::error::Result;

/// The attributes that instances are grouped by (developer guide, "DICOM elements used for image
/// set creation").
const KEY: [&str; 7] = [
    "StudyDate",
    "AccessionNumber",
    "PatientID",
    "StudyInstanceUID",
    "StudyID",
    "SeriesInstanceUID",
    "SeriesNumber",
];

/// Search tags in which all image sets of a study, and all of a series, must agree.
const OF_STUDY: [&str; 4] =
    ["DICOMStudyDate", "DICOMAccessionNumber", "DICOMPatientId", "DICOMStudyId"];
const OF_SERIES: [&str; 2] = ["DICOMStudyInstanceUID", "DICOMSeriesNumber"];

type Tags = Map<String, Value>;

/// The image set that a group of instances was placed in.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Placed {
    pub image_set_id: String,
    /// The version of the image set that contains them.
    pub version: u32,
    pub is_primary: bool,
    /// The UID of their series.
    pub series_uid: String,
    /// The positions of the instances in the input.
    pub members: Vec<usize>,
    /// The number of distinct instances, and of frames.
    pub instances: usize,
    pub frames: usize,
}

/// Places instances in image sets. Each comes with its position in the input.
///
/// # Errors
/// [`ErrorKind::Io`](crate::error::ErrorKind::Io) if the store cannot be read or written. Image
/// sets that are already finished stay.
pub(super) fn place(
    store: &Store,
    datastore_id: &str,
    instances: Vec<(usize, Encoded)>,
) -> Result<Vec<Placed>> {
    let _writing = store.writing();
    let mut primary = store.image_sets(datastore_id)?;
    primary.retain(|set| set.is_primary && set.image_set_state == "ACTIVE");
    let mut placed = Vec::new();
    for group in groups(instances) {
        let tags = documents::search_tags(&group.flats());
        let same_series = |set: &ImageSet| same(&set.tags, &tags, "DICOMSeriesInstanceUID");
        let set = if agrees(&primary, &tags) {
            match primary.iter().position(same_series) {
                Some(at) => join(store, datastore_id, primary.remove(at), &group)?,
                None => make(store, datastore_id, true, &group)?,
            }
        } else {
            make(store, datastore_id, false, &group)?
        };
        placed.push(group.placed(&set));
        if set.is_primary {
            primary.push(set);
        }
    }
    Ok(placed)
}

/// Instances that agree with each other.
struct Group {
    members: Vec<usize>,
    /// One per UID; the last one given wins.
    instances: Vec<Encoded>,
}

fn groups(instances: Vec<(usize, Encoded)>) -> impl Iterator<Item = Group> {
    let mut groups: BTreeMap<Vec<Option<String>>, Group> = BTreeMap::new();
    for (index, instance) in instances {
        let key = KEY.iter().map(|keyword| instance.flat.text(keyword)).collect();
        let group = groups
            .entry(key)
            .or_insert_with(|| Group { members: Vec::new(), instances: Vec::new() });
        group.members.push(index);
        group.instances.push(instance);
    }
    groups.into_values().map(Group::without_repetitions)
}

impl Group {
    fn without_repetitions(mut self) -> Self {
        let mut last = BTreeMap::new();
        for (at, instance) in self.instances.iter().enumerate() {
            last.insert(instance.flat.uid.clone(), at);
        }
        let mut at = 0..;
        self.instances.retain(|instance| last.get(&instance.flat.uid) == at.next().as_ref());
        self
    }

    fn flats(&self) -> Vec<FlatInstance> {
        self.instances.iter().map(|instance| instance.flat.clone()).collect()
    }

    /// Writes the frames and the original files.
    fn save(&self, store: &Store, datastore_id: &str, id: &str) -> Result<()> {
        for instance in &self.instances {
            for (frame, data) in &instance.frames {
                store.save_frame(datastore_id, id, frame, data)?;
            }
            if let Some(original) = &instance.original {
                originals::save(store, datastore_id, id, &instance.flat, original)?;
            }
        }
        Ok(())
    }

    fn placed(self, set: &ImageSet) -> Placed {
        let first = self.instances.first();
        let series_uid = first.and_then(|instance| instance.flat.text("SeriesInstanceUID"));
        Placed {
            image_set_id: set.image_set_id.clone(),
            version: set.version,
            is_primary: set.is_primary,
            series_uid: series_uid.unwrap_or_default(),
            instances: self.instances.len(),
            frames: self.instances.iter().map(|instance| instance.frames.len()).sum(),
            members: self.members,
        }
    }
}

fn same(one: &Tags, other: &Tags, name: &str) -> bool {
    one.get(name) == other.get(name)
}

/// Whether instances with these search tags agree with the primary image sets of their study and
/// series.
pub(super) fn agrees(primary: &[ImageSet], tags: &Tags) -> bool {
    primary.iter().all(|set| {
        let agree = |names: &[&str]| names.iter().all(|name| same(&set.tags, tags, name));
        (!same(&set.tags, tags, "DICOMStudyInstanceUID") || agree(&OF_STUDY))
            && (!same(&set.tags, tags, "DICOMSeriesInstanceUID") || agree(&OF_SERIES))
    })
}

/// Creates an image set from the group.
fn make(store: &Store, datastore_id: &str, is_primary: bool, group: &Group) -> Result<ImageSet> {
    let flats = group.flats();
    let set = ImageSet::new(new_id(), is_primary, documents::search_tags(&flats));
    let id = &set.image_set_id;
    group.save(store, datastore_id, id)?;
    documents::write_instances(store, datastore_id, id, set.version, &flats)?;
    store.save_image_set(datastore_id, &set)?;
    Ok(set)
}

/// Creates a new version of an image set that includes the group.
fn join(store: &Store, datastore_id: &str, mut set: ImageSet, group: &Group) -> Result<ImageSet> {
    let id = set.image_set_id.clone();
    let document = documents::read(store, datastore_id, &id, set.version)?;
    let merged = merged(flat::instances(&document)?, group.flats());
    set.advance("IMPORTED");
    set.tags = documents::search_tags(&merged);
    group.save(store, datastore_id, &id)?;
    documents::write_instances(store, datastore_id, &id, set.version, &merged)?;
    store.save_image_set(datastore_id, &set)?;
    Ok(set)
}

/// Merges instances into others; an instance with the same UID is replaced.
pub(super) fn merged(mut all: Vec<FlatInstance>, others: Vec<FlatInstance>) -> Vec<FlatInstance> {
    let mut at: BTreeMap<String, usize> =
        all.iter().enumerate().map(|(index, flat)| (flat.uid.clone(), index)).collect();
    for flat in others {
        match at.get(&flat.uid).and_then(|index| all.get_mut(*index)) {
            Some(before) => *before = flat,
            None => {
                at.insert(flat.uid.clone(), all.len());
                all.push(flat);
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use dicom_core::{DataElement, PrimitiveValue, VR};
    use dicom_dictionary_std::{tags, uids};

    use super::*;
    use crate::dicom::Dataset;
    use crate::dicom::p10::{P10Writer, PixelForm};
    use crate::emulator::encode::encode;
    use crate::emulator::store::StorageFormat;

    /// Builds a report from its UID, series and patient.
    fn report((uid, series, patient): (&str, &str, &str)) -> Encoded {
        let text = |tag, vr, value: &str| DataElement::new(tag, vr, PrimitiveValue::from(value));
        let dataset = Dataset::from_element_iter([
            text(tags::SOP_CLASS_UID, VR::UI, uids::BASIC_TEXT_SR_STORAGE),
            text(tags::SOP_INSTANCE_UID, VR::UI, uid),
            text(tags::STUDY_INSTANCE_UID, VR::UI, "1.1"),
            text(tags::SERIES_INSTANCE_UID, VR::UI, series),
            text(tags::PATIENT_ID, VR::LO, patient),
        ]);
        let syntax = uids::EXPLICIT_VR_LITTLE_ENDIAN;
        let out = Cursor::new(Vec::new());
        let writer = P10Writer::new(out, dataset, syntax, PixelForm::None).unwrap();
        let file = writer.finish().unwrap().into_inner();
        encode(&file.into(), StorageFormat::Htj2k).unwrap().unwrap()
    }

    #[test]
    fn instances_join_what_they_agree_with() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        let datastore = store.create_datastore("d", StorageFormat::Htj2k).unwrap().datastore_id;
        let given = |instances: &[(&str, &str, &str)]| {
            let encoded = instances.iter().map(|one| report(*one)).enumerate().collect();
            place(&store, &datastore, encoded).unwrap()
        };
        let [first] = &given(&[("1.3", "1.2", "a"), ("1.4", "1.2", "a")])[..] else { panic!() };
        assert_eq!((first.version, first.is_primary, first.instances), (1, true, 2));
        // The same instance again and a new one give a new version; a repeated instance counts
        // once.
        let again = given(&[("1.3", "1.2", "a"), ("1.5", "1.2", "a"), ("1.3", "1.2", "a")]);
        let [again] = &again[..] else { panic!() };
        assert_eq!((&again.image_set_id, again.version), (&first.image_set_id, 2));
        assert_eq!((again.instances, &again.members[..]), (2, &[0, 1, 2][..]));
        let set = store.image_set(&datastore, &first.image_set_id).unwrap().unwrap();
        assert_eq!(set.tags["DICOMNumberOfStudyRelatedInstances"], 3);
        assert_eq!(set.at(1).unwrap().tags["DICOMNumberOfStudyRelatedInstances"], 2);
        // Another patient's instances, in this series or another one of the study, are not primary.
        for other in [("1.6", "1.2", "b"), ("1.7", "1.9", "b")] {
            let [placed] = &given(&[other])[..] else { panic!() };
            assert!(!placed.is_primary && placed.image_set_id != first.image_set_id);
        }
        assert_eq!(given(&[("1.8", "1.9", "a"), ("1.9", "1.9", "b")]).len(), 2);
    }
}
