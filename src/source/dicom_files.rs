//! An image source that reads DICOM Part 10 files in a folder. Files are read and parsed on
//! blocking threads, a bounded number at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::OnceLock;

use async_trait::async_trait;
use dicom_dictionary_std::tags;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};

use super::{EncodedFrame, ImageSource};
use crate::dicom::p10::{self, Folder, SeriesFiles};
use crate::dicom::{Attributes, FrameKey, Instance, PassedOver, Series};
use crate::error::{Error, ErrorKind, Result};

/// Default number of files read at a time: enough to keep a disk busy while frames are decoded, few
/// enough that little waits in memory.
const PARALLEL_FILES: usize = 4;

/// One series of the DICOM files below a folder.
#[derive(Debug)]
pub struct DicomFiles {
    folder: PathBuf,
    series_instance_uid: Option<String>,
    parallel_files: usize,
    /// Files of the chosen series, in the order of its instances, once the headers are read.
    files: OnceLock<Vec<PathBuf>>,
    /// Warnings about the other files.
    warnings: OnceLock<Vec<String>>,
}

impl DicomFiles {
    /// Creates a source for the series below `folder`; if there are several, `series_instance_uid`
    /// selects one.
    pub fn new(folder: impl Into<PathBuf>, series_instance_uid: Option<String>) -> Self {
        Self {
            folder: folder.into(),
            series_instance_uid,
            parallel_files: PARALLEL_FILES,
            files: OnceLock::new(),
            warnings: OnceLock::new(),
        }
    }

    /// Reads at most `files` (at least one) at a time.
    #[must_use]
    pub fn with_parallel_files(mut self, files: usize) -> Self {
        self.parallel_files = files.max(1);
        self
    }
}

#[async_trait]
impl ImageSource for DicomFiles {
    /// Fails with [`NotFound`](ErrorKind::NotFound) if the folder does not hold the requested
    /// series, or none at all, and with [`InvalidRequest`](ErrorKind::InvalidRequest), listing
    /// them, if it holds several and none was requested.
    async fn series(&self) -> Result<Series> {
        let folder = self.folder.clone();
        let wanted = self.series_instance_uid.clone();
        let chosen = blocking(move || {
            let all = p10::files_by_series(&folder)?;
            let (mut chosen, mut warnings) =
                choose(all, wanted.as_deref()).map_err(|e| e.context(folder.display()))?;
            warnings.extend(leave_out_copies(&mut chosen)?.warnings());
            Ok((chosen, warnings))
        });
        let (chosen, warnings) = chosen.await?;
        let _ = self.warnings.set(warnings);
        self.files.set(chosen.paths).map_err(|_| {
            Error::internal("the headers of a folder of DICOM files were read twice")
        })?;
        Ok(chosen.series)
    }

    fn warnings(&self) -> Vec<String> {
        self.warnings.get().cloned().unwrap_or_default()
    }

    fn frames(
        &self,
        series: &Series,
        keys: Vec<FrameKey>,
    ) -> BoxStream<'static, Result<EncodedFrame>> {
        let tasks: Result<Vec<ReadTask>> = tasks(series, keys, self.files.get());
        let tasks = match tasks {
            Ok(tasks) => tasks,
            Err(e) => return stream::iter([Err(e)]).boxed(),
        };
        // Tasks start only when polled, so dropping the stream leaves only the files that are being
        // read at that moment.
        stream::iter(tasks)
            .map(|task| blocking(move || task.run()))
            .buffer_unordered(self.parallel_files)
            .map_ok(|frames| stream::iter(frames.into_iter().map(Ok)))
            .try_flatten()
            .scan(false, |failed, item| {
                let ended = std::mem::replace(failed, item.is_err());
                futures::future::ready((!ended).then_some(item))
            })
            .boxed()
    }
}

/// Reads one file for its requested frames.
struct ReadTask {
    path: PathBuf,
    sop_instance_uid: String,
    transfer_syntax: String,
    keys: Vec<FrameKey>,
}

impl ReadTask {
    /// Reads the whole file again; it must still be the instance whose header was read.
    fn run(self) -> Result<Vec<EncodedFrame>> {
        let instance = p10::read(&self.path)?;
        if instance.sop_instance_uid != self.sop_instance_uid
            || instance.transfer_syntax != self.transfer_syntax
        {
            return Err(Error::new(
                ErrorKind::Io,
                format!("{}: changed while it was being read", self.path.display()),
            ));
        }
        let frame = |key: FrameKey| {
            let data = instance.frames.get(key.frame).cloned().ok_or_else(|| {
                Error::new(
                    ErrorKind::CorruptFrame,
                    format!("{}: has no frame {}", self.path.display(), key.frame + 1),
                )
                .with("sopInstanceUID", self.sop_instance_uid.as_str())
                .with("frame", key.frame + 1)
            })?;
            Ok(EncodedFrame { key, data })
        };
        self.keys.iter().map(|&key| frame(key)).collect()
    }
}

/// Creates one task for each file that holds a requested frame.
fn tasks(
    series: &Series,
    keys: Vec<FrameKey>,
    files: Option<&Vec<PathBuf>>,
) -> Result<Vec<ReadTask>> {
    let mut by_instance: BTreeMap<usize, Vec<FrameKey>> = BTreeMap::new();
    for key in keys {
        by_instance.entry(key.instance).or_default().push(key);
    }
    let task = |(index, keys)| -> Result<ReadTask> {
        let known = series.instances.get(index).zip(files.and_then(|f| f.get(index)));
        let (instance, path): (&Instance, &PathBuf) = known.ok_or_else(|| {
            Error::internal(format!("instance {index} is not one of this folder's series"))
        })?;
        Ok(ReadTask {
            path: path.clone(),
            sop_instance_uid: instance.sop_instance_uid.clone(),
            transfer_syntax: instance.transfer_syntax.clone(),
            keys,
        })
    };
    by_instance.into_iter().map(task).collect()
}

/// Chooses the requested series, or the only one that holds slices. Also returns warnings about
/// what was skipped.
fn choose(folder: Folder, wanted: Option<&str>) -> Result<(SeriesFiles, Vec<String>)> {
    let Folder { series: all, passed_over } = folder;
    let list = all.iter().map(describe).collect::<Vec<_>>().join("; ");
    let not_found = |what: String| Error::new(ErrorKind::NotFound, what);
    let mut warnings = passed_over.warnings();
    if let Some(wanted) = wanted {
        let chosen = all.into_iter().find(|s| s.series.series_instance_uid == wanted);
        let chosen = chosen
            .ok_or_else(|| not_found(format!("holds no series {wanted}; it holds: {list}")))?;
        return Ok((chosen, warnings));
    }
    let (mut slices, mut others): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|files| files.series.holds_slices());
    if slices.is_empty() {
        std::mem::swap(&mut slices, &mut others);
    }
    let count = slices.len();
    let mut slices = slices.into_iter();
    match (slices.next(), slices.next()) {
        (Some(only), None) => {
            let without = |files: &SeriesFiles| {
                format!("series {} holds no slices and was passed over", describe(files))
            };
            warnings.extend(others.iter().map(without));
            Ok((only, warnings))
        }
        (None, _) if passed_over.is_empty() => Err(not_found("holds no files".into())),
        (None, _) => {
            Err(not_found(format!("holds no DICOM images; found {}", passed_over.found())))
        }
        (Some(_), Some(_)) => Err(Error::new(
            ErrorKind::InvalidRequest,
            format!("holds {count} series; name one by its SeriesInstanceUID: {list}"),
        )),
    }
}

/// UID, modality and number of instances; no patient data.
fn describe(files: &SeriesFiles) -> String {
    let instances = &files.series.instances;
    let modality = files.series.representative().and_then(|i| i.dataset.text(tags::MODALITY));
    format!(
        "{} ({}, {} instances)",
        files.series.series_instance_uid,
        modality.as_deref().unwrap_or("no modality"),
        instances.len()
    )
}

/// Removes duplicates of an instance that is in several identical files.
///
/// # Errors
/// [`ErrorKind::InvalidImage`] if the files differ: there would be two slices at one position.
fn leave_out_copies(files: &mut SeriesFiles) -> Result<PassedOver> {
    let mut passed_over = PassedOver::default();
    let mut first: BTreeMap<String, usize> = BTreeMap::new();
    let mut copies = BTreeSet::new();
    for (index, instance) in files.series.instances.iter().enumerate() {
        let uid = &instance.sop_instance_uid;
        let Some(&other) = first.get(uid) else {
            first.insert(uid.clone(), index);
            continue;
        };
        let read = |index: usize| p10::read(&files.paths[index]).map(p10::described);
        let (a, b) = (read(other)?, read(index)?);
        if !p10::identical((&a.0, &a.1), (&b.0, &b.1)) {
            return Err(Error::new(
                ErrorKind::InvalidImage,
                format!(
                    "{} and {} are the same instance {uid} with different content; remove one",
                    files.paths[other].display(),
                    files.paths[index].display(),
                ),
            )
            .with("sopInstanceUID", uid.as_str()));
        }
        copies.insert(index);
        passed_over.add_copy();
    }
    let mut index = 0..;
    files.series.instances.retain(|_| !index.next().is_some_and(|i| copies.contains(&i)));
    let mut index = 0..;
    files.paths.retain(|_| !index.next().is_some_and(|i| copies.contains(&i)));
    Ok(passed_over)
}

/// Runs `work` on a blocking thread.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| Error::internal("reading a DICOM file was aborted").caused_by(e))?
}
