//! Imports DICOM Part 10 files into image sets, as AHI's import does.
//!
//! [`encode`](super::encode) determines how an instance is stored, [`placing`](super::placing) in
//! which image set. Files that cannot be imported are listed and do not stop the import of the
//! others.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use rayon::prelude::*;
use serde::Serialize;

use super::encode::{Encoded, encode};
use super::placing::{Placed, place};
use super::store::{StorageFormat, Store};
use super::warnings::Warning;
use crate::cpu;
use crate::dicom::p10;
use crate::error::{Error, ErrorKind, Result};

/// The result of an import.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ImportSummary {
    /// The data store imported into.
    pub datastore_id: String,
    /// The image sets that instances were added to: one per series if they agree.
    pub image_sets: Vec<ImportedImageSet>,
    /// Files that could not be imported.
    pub failures: Vec<ImportFailure>,
}

/// An image set that was created or extended.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ImportedImageSet {
    /// Its id.
    pub image_set_id: String,
    /// Its series.
    #[serde(rename = "seriesInstanceUID")]
    pub series_instance_uid: String,
    /// The version that contains the instances.
    pub version: u32,
    /// Number of instances imported into it.
    pub instances: usize,
    /// Number of frames imported into it.
    pub frames: usize,
    /// Whether it is the primary image set of the series.
    pub is_primary: bool,
    /// The files of the instances, relative to the import source.
    #[serde(skip)]
    pub files: Vec<ImportedFile>,
}

/// An imported file.
#[derive(Debug, Clone, PartialEq)]
pub struct ImportedFile {
    /// The file, relative to the import source.
    pub(super) name: String,
    /// Warnings about the file.
    pub(super) warnings: Vec<Warning>,
}

/// A file that could not be imported.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ImportFailure {
    /// The file, relative to the import source.
    pub file: String,
    /// The reason.
    pub reason: String,
}

/// Maximum size of a file in a zip, in bytes.
const MOST_FILE_BYTES: u64 = 2 << 30;

/// Imports the DICOM files in a folder or zip into a data store, or into a new one if none is
/// given. `progress` receives the number of finished files and the total.
///
/// # Errors
///
/// [`ErrorKind::NotFound`] if the data store is unknown, [`ErrorKind::InvalidRequest`] if there is
/// no DICOM file, [`ErrorKind::Io`].
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
        Some(id) => id.to_owned(),
        None => store.create_datastore("local", StorageFormat::default())?.datastore_id,
    };
    import_files(store, datastore_id, &files, progress)
}

/// Imports the named files below `folder`, whatever their type, into an existing data store.
///
/// # Errors
///
/// [`ErrorKind::Io`] if the store cannot be written.
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
    let datastore = store.datastore(&datastore_id)?.ok_or_else(|| {
        Error::new(ErrorKind::NotFound, format!("there is no data store {datastore_id}"))
    })?;
    let format = datastore.lossless_storage_format;
    let done = AtomicUsize::new(0);
    let encoded: Vec<Result<Option<Encoded>>> = files
        .names
        .par_iter()
        .map(|name| {
            let result = cpu::contained(|| {
                files.read(name).and_then(|bytes| encode(&Bytes::from(bytes), format))
            });
            progress(done.fetch_add(1, Ordering::Relaxed) + 1, files.names.len());
            result
        })
        .collect();
    let (mut instances, mut failures) = (Vec::new(), Vec::new());
    // Keeps the warnings with their files.
    let mut imported: Vec<Option<ImportedFile>> = Vec::new();
    for (index, (name, result)) in files.names.iter().zip(encoded).enumerate() {
        imported.push(None);
        match result {
            Ok(None) => {}
            Ok(Some(instance)) => {
                let warnings = instance.warnings.clone();
                imported[index] = Some(ImportedFile { name: name.clone(), warnings });
                instances.push((index, instance));
            }
            Err(e) => {
                failures.push(ImportFailure { file: name.clone(), reason: e.message().to_owned() });
            }
        }
    }
    let placed = place(store, &datastore_id, instances)?;
    let image_sets = placed.into_iter().map(|placed| described(placed, &mut imported)).collect();
    Ok(ImportSummary { datastore_id, image_sets, failures })
}

fn described(placed: Placed, imported: &mut [Option<ImportedFile>]) -> ImportedImageSet {
    let Placed { image_set_id, version, is_primary, series_uid, members, instances, frames } =
        placed;
    let files = members.into_iter().filter_map(|index| imported.get_mut(index)?.take()).collect();
    ImportedImageSet {
        image_set_id,
        series_instance_uid: series_uid,
        version,
        instances,
        frames,
        is_primary,
        files,
    }
}

/// The source of the files.
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
