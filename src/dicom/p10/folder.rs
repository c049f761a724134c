//! Folders of DICOM files: finds the files and groups them into series.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use dicom_dictionary_std::tags;
use dicom_transfer_syntax_registry::entries::EXPLICIT_VR_LITTLE_ENDIAN;
use rayon::prelude::*;

use super::{Content, HEAD, P10Header, P10Instance, examine, io, is_dicom};
use crate::dicom::{Attributes, FrameDescriptor, Instance, PassedOver, Series};
use crate::error::{Error, ErrorKind, Result};

/// Deeper nested folders are rejected.
const MAX_DEPTH: usize = 32;
/// Folders with more entries than this are rejected.
const MAX_ENTRIES: usize = 1_000_000;

/// A series and the files of its instances, in the same order.
#[derive(Debug, Clone)]
pub struct SeriesFiles {
    /// The series.
    pub series: Series,
    /// The file of each of its instances.
    pub paths: Vec<PathBuf>,
}

/// The series of images below a folder, and a summary of the other files.
#[derive(Debug, Clone, Default)]
pub struct Folder {
    /// The series, by SeriesInstanceUID.
    pub series: Vec<SeriesFiles>,
    /// Files without an image.
    pub passed_over: PassedOver,
}

/// Lists all DICOM files below `dir`, sorted by path, whatever their content and name; or `dir`
/// itself if it is such a file.
///
/// Does not follow symbolic links below `dir`, so that no file outside it is read and no loop is
/// entered. More than 32 levels or a million entries are an error.
pub fn list_files(dir: &Path) -> Result<Vec<PathBuf>> {
    list(dir, &mut PassedOver::default())
}

/// Like [`list_files`], counting the other files.
fn list(dir: &Path, passed_over: &mut PassedOver) -> Result<Vec<PathBuf>> {
    let named = |path: &Path, e| io(e).context(path.display());
    if dir.is_file() {
        let dicom = begins_as_dicom(dir)?;
        if !dicom {
            passed_over.add_no_dicom();
        }
        return Ok(if dicom { vec![dir.to_path_buf()] } else { Vec::new() });
    }
    let mut folders = vec![(dir.to_path_buf(), 0)];
    let mut files = Vec::new();
    let mut entries = 0;
    while let Some((folder, depth)) = folders.pop() {
        for entry in fs::read_dir(&folder).map_err(|e| named(&folder, e))? {
            let entry = entry.map_err(|e| named(&folder, e))?;
            entries += 1;
            if depth > MAX_DEPTH || entries > MAX_ENTRIES {
                return Err(Error::new(
                    ErrorKind::InvalidImage,
                    format!("{}: too many or too deeply nested files", dir.display()),
                ));
            }
            let path = entry.path();
            // The type of the entry itself: a link is neither folder nor file.
            let kind = entry.file_type().map_err(|e| named(&path, e))?;
            if kind.is_dir() {
                folders.push((path, depth + 1));
            } else if kind.is_file() && begins_as_dicom(&path)? {
                files.push(path);
            } else if kind.is_file() {
                passed_over.add_no_dicom();
            }
        }
    }
    files.sort();
    Ok(files)
}

fn begins_as_dicom(path: &Path) -> Result<bool> {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut start = Vec::with_capacity(HEAD);
        fs::File::open(path)?.take(HEAD as u64).read_to_end(&mut start)?;
        Ok(start)
    };
    let start = read().map_err(|e| io(e).context(path.display()))?;
    Ok(is_dicom(&start))
}

/// Returns the series of the files below `dir`, by SeriesInstanceUID, with instances in the order
/// of their paths. Reads every header, in parallel on rayon's threads; do not call it on an
/// asynchronous thread.
pub fn series_in(dir: &Path) -> Result<Vec<Series>> {
    Ok(files_by_series(dir)?.series.into_iter().map(|s| s.series).collect())
}

/// Like [`series_in`], with the files and a summary of what was skipped.
///
/// # Errors
/// Propagates the errors of [`list_files`] and [`examine`], naming the file.
pub fn files_by_series(dir: &Path) -> Result<Folder> {
    let mut passed_over = PassedOver::default();
    let contents: Vec<(PathBuf, Content<P10Header>)> = list(dir, &mut passed_over)?
        .into_par_iter()
        .map(|path| examine(&path).map(|content| (path, content)))
        .collect::<Result<_>>()?;
    let mut all: BTreeMap<String, SeriesFiles> = BTreeMap::new();
    for (path, content) in contents {
        let header = match content {
            Content::Image(header) => header,
            Content::NoImage(class) => {
                passed_over.add_without_image(class.as_deref());
                continue;
            }
        };
        let required =
            |tag| header.dataset.required_text(tag).map_err(|e| e.context(path.display()));
        let study = required(tags::STUDY_INSTANCE_UID)?;
        let series = required(tags::SERIES_INSTANCE_UID)?;
        let files = all.entry(series.clone()).or_insert_with(|| SeriesFiles {
            series: Series {
                study_instance_uid: study,
                series_instance_uid: series,
                instances: Vec::new(),
            },
            paths: Vec::new(),
        });
        files.series.instances.push(instance(header));
        files.paths.push(path);
    }
    Ok(Folder { series: all.into_values().collect(), passed_over })
}

/// Converts a whole instance to an instance of a series and its frames.
pub fn described(whole: P10Instance) -> (Instance, Vec<Bytes>) {
    let P10Instance { dataset, transfer_syntax, sop_instance_uid, sop_class_uid, frames } = whole;
    let number_of_frames = frames.len();
    let header =
        P10Header { dataset, transfer_syntax, sop_instance_uid, sop_class_uid, number_of_frames };
    (instance(header), frames)
}

/// Whether two instances, each with its frames, are identical: attributes, transfer syntax and
/// pixels.
pub fn identical(a: (&Instance, &[Bytes]), b: (&Instance, &[Bytes])) -> bool {
    let written = |instance: &Instance| {
        let mut bytes = Vec::new();
        let syntax = EXPLICIT_VR_LITTLE_ENDIAN.erased();
        instance.dataset.write_dataset_with_ts(&mut bytes, &syntax).ok().map(|()| bytes)
    };
    a.0.transfer_syntax == b.0.transfer_syntax
        && a.1 == b.1
        && written(a.0).is_some_and(|bytes| Some(bytes) == written(b.0))
}

fn instance(header: P10Header) -> Instance {
    let side = |tag| header.dataset.integer(tag).and_then(|v| u32::try_from(v).ok());
    let frame = FrameDescriptor {
        dimensions: side(tags::COLUMNS).zip(side(tags::ROWS)),
        ..FrameDescriptor::default()
    };
    // An object without an image (a report, a plan) has no frames.
    let count = if frame.dimensions.is_some() { header.number_of_frames } else { 0 };
    Instance {
        sop_instance_uid: header.sop_instance_uid,
        sop_class_uid: header.sop_class_uid,
        transfer_syntax: header.transfer_syntax,
        frames: vec![frame; count],
        dataset: Arc::new(header.dataset),
    }
}
