//! DICOM Part 10 files to image sets, as AHI's import does it.
//!
//! One image set for each series. Every frame is decoded and stored as HTJ2K lossless in RPCL order, those
//! of 32-bit integers and of floating-point numbers as they are;
//! its checksum is that of the decoded pixels. A series that the data store already has as a primary
//! image set is imported as a non-primary one, as AHI does with what conflicts. Files that cannot be
//! imported are listed and do not keep the others from being imported.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use dicom_dictionary_std::{tags, uids};
use flate2::Compression;
use flate2::write::GzEncoder;
use rayon::prelude::*;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::store::{ImageSet, Store, new_id, now};
use crate::codec::{self, FrameFormat};
use crate::cpu;
use crate::dicom::ahi_metadata::write::{FrameEntry, InstanceEntry, document};
use crate::dicom::p10::{self, Content, P10Instance};
use crate::dicom::{Attributes, Dataset, classes};
use crate::error::{Error, ErrorKind, Result};

/// What an import made.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ImportSummary {
    /// The data store imported into.
    pub datastore_id: String,
    /// One for each series.
    pub image_sets: Vec<ImportedImageSet>,
    /// Files that could not be imported.
    pub failures: Vec<ImportFailure>,
}

/// An image set made.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ImportedImageSet {
    /// Its id.
    pub image_set_id: String,
    /// Its series.
    #[serde(rename = "seriesInstanceUID")]
    pub series_instance_uid: String,
    /// Instances in it.
    pub instances: usize,
    /// Frames in it.
    pub frames: usize,
    /// Whether it is the series' primary image set.
    pub is_primary: bool,
    /// The files of its instances, relative to what was imported.
    #[serde(skip)]
    pub files: Vec<String>,
}

/// A file that could not be imported.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ImportFailure {
    /// The file, relative to what was imported.
    pub file: String,
    /// Why.
    pub reason: String,
}

/// Largest size of a file in a zip.
const MOST_FILE_BYTES: u64 = 2 << 30;

/// Imports the DICOM files below a folder, or in a zip, into a data store; into a new one where none
/// is named. `progress` is told how many of how many files are done.
///
/// # Errors
///
/// [`ErrorKind::NotFound`] for an unknown data store, [`ErrorKind::InvalidRequest`] where there is no
/// DICOM file at all, [`ErrorKind::Io`].
pub fn import(
    store: &Store,
    datastore_id: Option<&str>,
    source: &Path,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<ImportSummary> {
    let files = Files::open(source)?;
    if files.names.is_empty() {
        return Err(Error::new(
            ErrorKind::InvalidRequest,
            format!("{} holds no DICOM file", source.display()),
        ));
    }
    let datastore_id = match datastore_id {
        Some(id) => store.datastore(id)?.map(|d| d.datastore_id).ok_or_else(|| {
            Error::new(ErrorKind::NotFound, format!("there is no data store {id}"))
        })?,
        None => store.create_datastore("local")?.datastore_id,
    };
    import_files(store, datastore_id, &files, progress)
}

/// Imports those files below `folder` that are named, whatever they are, into a data store there is.
///
/// # Errors
///
/// [`ErrorKind::Io`] where the store cannot be written.
pub(super) fn import_named(
    store: &Store,
    datastore_id: &str,
    folder: &Path,
    names: Vec<String>,
) -> Result<ImportSummary> {
    let files = Files { source: folder.to_owned(), is_zip: false, names };
    import_files(store, datastore_id.to_owned(), &files, &|_, _| {})
}

fn import_files(
    store: &Store,
    datastore_id: String,
    files: &Files,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<ImportSummary> {
    let done = AtomicUsize::new(0);
    let encoded: Vec<(String, Result<Option<Encoded>>)> = files
        .names
        .par_iter()
        .map(|name| {
            let result = cpu::contained(|| files.read(name).and_then(|bytes| encode(&bytes)));
            progress(done.fetch_add(1, Ordering::Relaxed) + 1, files.names.len());
            (name.clone(), result)
        })
        .collect();
    let mut series: BTreeMap<String, (Vec<String>, Vec<Encoded>)> = BTreeMap::new();
    let mut failures = Vec::new();
    for (file, result) in encoded {
        match result {
            Ok(None) => {}
            Ok(Some(instance)) => {
                let (files, instances) = series.entry(instance.series_uid.clone()).or_default();
                files.push(file);
                instances.push(instance);
            }
            Err(e) => failures.push(ImportFailure { file, reason: e.message().to_owned() }),
        }
    }
    let image_sets = series
        .into_iter()
        .map(|(uid, (files, instances))| {
            let saved = save(store, &datastore_id, uid, instances)?;
            Ok(ImportedImageSet { files, ..saved })
        })
        .collect::<Result<_>>()?;
    Ok(ImportSummary { datastore_id, image_sets, failures })
}

/// Where files come from.
struct Files {
    source: PathBuf,
    is_zip: bool,
    names: Vec<String>,
}

impl Files {
    fn open(source: &Path) -> Result<Self> {
        if source.is_file() {
            let archive = open_zip(source)?;
            let mut names: Vec<String> =
                archive.file_names().filter(|n| !n.ends_with('/')).map(str::to_owned).collect();
            names.sort();
            return Ok(Self { source: source.to_owned(), is_zip: true, names });
        }
        let names = p10::list_files(source)?
            .iter()
            .map(|path| path.strip_prefix(source).unwrap_or(path).to_string_lossy().into_owned())
            .collect();
        Ok(Self { source: source.to_owned(), is_zip: false, names })
    }

    fn read(&self, name: &str) -> Result<Vec<u8>> {
        let unreadable =
            |e: std::io::Error| Error::new(ErrorKind::Io, "the file cannot be read").caused_by(e);
        if !self.is_zip {
            return std::fs::read(self.source.join(name)).map_err(unreadable);
        }
        let mut archive = open_zip(&self.source)?;
        let file = archive.by_name(name).map_err(|e| {
            Error::new(ErrorKind::Io, "the file cannot be read from the archive").caused_by(e)
        })?;
        let mut bytes = Vec::new();
        file.take(MOST_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        if bytes.len() as u64 > MOST_FILE_BYTES {
            return Err(Error::new(
                ErrorKind::PayloadTooLarge,
                format!("the file is larger than {MOST_FILE_BYTES} bytes"),
            ));
        }
        Ok(bytes)
    }
}

fn open_zip(path: &Path) -> Result<zip::ZipArchive<std::fs::File>> {
    let file = std::fs::File::open(path).map_err(|e| {
        Error::new(ErrorKind::Io, format!("{} cannot be opened", path.display())).caused_by(e)
    })?;
    zip::ZipArchive::new(file).map_err(|e| {
        Error::new(
            ErrorKind::InvalidRequest,
            format!("{} is neither a folder nor a zip", path.display()),
        )
        .caused_by(e)
    })
}

/// An instance with its frames as they are stored.
struct Encoded {
    series_uid: String,
    dataset: Dataset,
    transfer_syntax: String,
    frames: Vec<(FrameEntry, Vec<u8>)>,
}

/// An instance as it is stored; one without an image has no frames. `None` for a DICOMDIR, which is no
/// instance.
fn encode(bytes: &[u8]) -> Result<Option<Encoded>> {
    let content = p10::examine_from(bytes, bytes.len() as u64, &mut |_| Ok(()))?;
    if matches!(&content, Content::NoImage(Some(class)) if class == classes::DIRECTORY) {
        return Ok(None);
    }
    let instance = p10::read_bytes(bytes)?;
    let series_uid = instance.dataset.required_text(tags::SERIES_INSTANCE_UID)?;
    if matches!(content, Content::NoImage(_)) {
        return Ok(Some(Encoded {
            series_uid,
            dataset: instance.dataset,
            transfer_syntax: uids::EXPLICIT_VR_LITTLE_ENDIAN.to_owned(),
            frames: Vec::new(),
        }));
    }
    let format = FrameFormat::from_dataset(&instance.dataset)?;
    // Pixels that HTJ2K is not written with stay as they are.
    let retained = format.float || format.bits_allocated > 16;
    let frames = instance
        .frames
        .iter()
        .map(|data| encode_frame(&instance, data, &format, retained))
        .collect::<Result<_>>()?;
    let transfer_syntax = match retained {
        true => instance.transfer_syntax,
        false => uids::HTJ2K_LOSSLESS_RPCL.to_owned(),
    };
    Ok(Some(Encoded { series_uid, dataset: instance.dataset, transfer_syntax, frames }))
}

fn encode_frame(
    instance: &P10Instance,
    data: &[u8],
    format: &FrameFormat,
    retained: bool,
) -> Result<(FrameEntry, Vec<u8>)> {
    let samples = codec::decode(&instance.transfer_syntax, data, format)?;
    let encoded = if retained { data.to_vec() } else { codec::encode_htj2k(&samples, format)? };
    let entry = FrameEntry {
        id: new_id(),
        full_resolution: (format.columns, format.rows, samples.crc32(format.bits_allocated)),
        pixel_range: samples.min_max(),
        bytes: encoded.len() as u64,
    };
    Ok((entry, encoded))
}

fn save(
    store: &Store,
    datastore_id: &str,
    series_uid: String,
    instances: Vec<Encoded>,
) -> Result<ImportedImageSet> {
    let is_primary = !store.image_sets(datastore_id)?.iter().any(|set| {
        set.is_primary
            && set.image_set_state != "DELETED"
            && set.tags.get("DICOMSeriesInstanceUID").and_then(Value::as_str) == Some(&series_uid)
    });
    let id = new_id();
    let tags = search_tags(&instances);
    let (count, mut frames) = (instances.len(), 0);
    let mut entries = Vec::with_capacity(count);
    for instance in instances {
        let mut described = Vec::with_capacity(instance.frames.len());
        for (entry, data) in instance.frames {
            store.save_frame(datastore_id, &id, &entry.id, &data)?;
            described.push(entry);
            frames += 1;
        }
        entries.push(InstanceEntry {
            dataset: instance.dataset,
            stored_transfer_syntax: instance.transfer_syntax,
            frames: described,
        });
    }
    let document = document(datastore_id, &id, &entries)?;
    store.save_metadata(datastore_id, &id, &gzip(&document)?)?;
    let time = now();
    store.save_image_set(
        datastore_id,
        &ImageSet {
            image_set_id: id.clone(),
            image_set_state: "ACTIVE".to_owned(),
            image_set_workflow_status: "CREATED".to_owned(),
            version: 1,
            is_primary,
            created_at: time,
            updated_at: time,
            deleted_at: None,
            tags,
        },
    )?;
    Ok(ImportedImageSet {
        image_set_id: id,
        series_instance_uid: series_uid,
        instances: count,
        frames,
        is_primary,
        files: Vec::new(),
    })
}

fn gzip(document: &Value) -> Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    serde_json::to_writer(&mut encoder, document)
        .map_err(|e| Error::internal("the metadata cannot be written").caused_by(e))?;
    encoder.finish().map_err(|e| Error::internal("compressing failed").caused_by(e))
}

/// The attributes that `SearchImageSets` filters by and returns.
fn search_tags(instances: &[Encoded]) -> Map<String, Value> {
    let Some(first) = instances.first() else { return Map::new() };
    let named = [
        ("DICOMPatientId", tags::PATIENT_ID),
        ("DICOMPatientName", tags::PATIENT_NAME),
        ("DICOMPatientBirthDate", tags::PATIENT_BIRTH_DATE),
        ("DICOMPatientSex", tags::PATIENT_SEX),
        ("DICOMStudyInstanceUID", tags::STUDY_INSTANCE_UID),
        ("DICOMStudyId", tags::STUDY_ID),
        ("DICOMStudyDescription", tags::STUDY_DESCRIPTION),
        ("DICOMAccessionNumber", tags::ACCESSION_NUMBER),
        ("DICOMSeriesInstanceUID", tags::SERIES_INSTANCE_UID),
        ("DICOMSeriesModality", tags::MODALITY),
        ("DICOMSeriesBodyPart", tags::BODY_PART_EXAMINED),
        ("DICOMStudyDate", tags::STUDY_DATE),
        ("DICOMStudyTime", tags::STUDY_TIME),
    ];
    let mut map: Map<String, Value> = named
        .into_iter()
        .filter_map(|(name, tag)| Some((name.to_owned(), json!(first.dataset.text(tag)?))))
        .collect();
    if let Some(number) = first.dataset.integer(tags::SERIES_NUMBER) {
        map.insert("DICOMSeriesNumber".to_owned(), json!(number));
    }
    map.insert("DICOMNumberOfStudyRelatedSeries".to_owned(), json!(1));
    map.insert("DICOMNumberOfStudyRelatedInstances".to_owned(), json!(instances.len()));
    map
}
