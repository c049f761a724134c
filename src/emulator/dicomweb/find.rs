//! Finds the image set of a series, and an instance in it.

use crate::dicom::ahi_metadata::{self, FlatInstance, flat};
use crate::dicom::{Instance, uid};
use crate::emulator::documents;
use crate::emulator::failure::Failure;
use crate::emulator::service::{Service, checked};
use crate::emulator::store::ImageSet;
use crate::error::{Error, Result};

/// The resource named by a URL and its query.
#[derive(Debug, Clone)]
pub(super) struct Named {
    pub datastore: String,
    pub study: String,
    pub series: String,
    /// `imageSetId`, which may name an image set that is not primary.
    pub image_set: Option<String>,
}

/// A series as stored in one image set.
pub(super) struct Series {
    pub set: ImageSet,
    pub instances: Vec<FlatInstance>,
}

/// Finds the named series.
pub(super) fn series(service: &Service, named: &Named) -> Result<Series, Failure> {
    let Named { datastore, study, series, image_set } = named;
    if !uid::is_written(study) || !uid::is_written(series) {
        return Err(Failure::validation("a UID in the URL is malformed"));
    }
    let is_wanted = |set: &ImageSet| {
        let is = |name: &str, uid: &str| set.tags.get(name).and_then(|v| v.as_str()) == Some(uid);
        is("DICOMStudyInstanceUID", study) && is("DICOMSeriesInstanceUID", series)
    };
    let set = match image_set {
        Some(id) => {
            checked(id, "imageSetId")?;
            Some(service.readable(datastore, id)?).filter(is_wanted)
        }
        None => {
            service.datastore(datastore)?;
            let mut sets = service.store.image_sets(datastore)?.into_iter();
            sets.find(|set| set.is_primary && set.image_set_state != "DELETED" && is_wanted(set))
        }
    };
    let set = set.ok_or_else(|| {
        let primary = if image_set.is_none() { "a primary" } else { "this" };
        Failure::not_found(format!(
            "{primary} image set does not have the series {series} of the study"
        ))
    })?;
    let document = documents::read(&service.store, datastore, &set.image_set_id, set.version)?;
    Ok(Series { instances: flat::instances(&document)?, set })
}

impl Series {
    /// Returns the instance with this UID.
    pub fn take(self, uid: &str) -> Result<(ImageSet, FlatInstance), Failure> {
        let found = self.instances.into_iter().find(|instance| instance.uid == uid);
        let instance = found.ok_or_else(|| {
            let uid = if uid::is_written(uid) { uid } else { "of that UID" };
            Failure::not_found(format!("the series has no instance {uid}"))
        })?;
        Ok((self.set, instance))
    }
}

/// Parses the attributes of an instance into a data set.
///
/// # Errors
/// [`ErrorKind::InvalidImage`](crate::error::ErrorKind::InvalidImage) if an attribute does not
/// match its VR.
pub(super) fn typed(instance: &FlatInstance) -> Result<Instance> {
    let document = flat::document("", "", std::slice::from_ref(instance))?.to_string();
    let parsed = ahi_metadata::parse(document.as_bytes())?;
    let mut instances = parsed.series.instances.into_iter();
    instances.next().ok_or_else(|| Error::internal("a document of one instance has none"))
}
