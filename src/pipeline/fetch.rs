//! Writes the images of a series as DICOM Part 10 files.
//!
//! Every attribute of the source is written; the pixels are written decoded or as stored. A file gets
//! its name once it is complete. Frames of several instances are fetched at once and written to their
//! files in order, as they arrive: only frames in flight are held in memory.

use std::fs::{File, Permissions};
use std::io::BufWriter;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dicom_dictionary_std::{tags, uids};
use futures::{StreamExt, TryStreamExt, stream};
use tempfile::NamedTempFile;

use super::decoding::{checked, may_be_the_transfers};
use super::frames::AGAIN;
use crate::codec::{FrameFormat, Samples};
use crate::cpu;
use crate::dicom::p10::{P10Writer, PixelForm};
use crate::dicom::{Attributes, Dataset, FrameKey, Instance, Series, charset, uid};
use crate::error::{Error, ErrorKind, Result};
use crate::source::{BYTES_IN_FLIGHT, EncodedFrame, FRAMES_IN_FLIGHT, ImageSource};

/// How pixels are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Pixels {
    /// Without compression, in explicit VR little endian
    Decoded,
    /// As the source stores them
    Stored,
}

/// Totals of a fetch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fetched {
    /// Number of files written.
    pub instances: usize,
    /// Number of frames in them.
    pub frames: usize,
    /// Total size of the files in bytes.
    pub bytes: u64,
}

/// Settings of a fetch.
#[derive(Clone)]
pub struct Plan {
    /// How pixels are written.
    pub pixels: Pixels,
    /// Frames fetched at the same time.
    pub at_once: usize,
    /// Referenced as long as a file is being written.
    pub writing: Arc<()>,
}

/// Number of instances written at the same time.
const INSTANCES: usize = 16;

/// Writes the instances of `series`, each to `folder/SOPInstanceUID.dcm`, and calls `wrote` for each.
///
/// # Errors
/// Propagates the errors of the source and of decoding, with the instance.
/// [`ErrorKind::UnsupportedPixelData`] for pixels that are to be decoded but cannot be;
/// [`ErrorKind::PayloadTooLarge`] for those that no DICOM file can hold; [`ErrorKind::Io`]. Files
/// completed by then are kept.
pub async fn fetch(
    source: &dyn ImageSource,
    series: &Arc<Series>,
    folder: &Path,
    plan: &Plan,
    wrote: &(dyn Fn(Fetched) + Sync),
) -> Result<Fetched> {
    check_names(series)?;
    let at_once = affordable(series, plan.at_once);
    let instances = INSTANCES.min(at_once);
    let window = (at_once / instances).max(1);
    let mut files = stream::iter(0..series.instances.len())
        .map(|index| async move {
            let target = Target { series, index, folder, plan };
            let named = |e: Error| {
                let uid = target.instance().sop_instance_uid.as_str();
                let e = if e.details().contains_key("sopInstanceUID") {
                    e
                } else {
                    e.context(format_args!("instance {uid}"))
                };
                e.with("sopInstanceUID", uid)
            };
            target.write(source, window).await.map_err(named)
        })
        .buffer_unordered(instances);
    let mut sum = Fetched::default();
    while let Some(one) = files.try_next().await? {
        wrote(one);
        sum.instances += one.instances;
        sum.frames += one.frames;
        sum.bytes += one.bytes;
    }
    Ok(sum)
}

/// Checks the UIDs that become names of files and folders: other text could lead out of the folder.
///
/// # Errors
/// [`ErrorKind::InvalidImage`], which does not repeat the text.
pub fn check_names(series: &Series) -> Result<()> {
    let instances = series.instances.iter().map(|instance| &instance.sop_instance_uid);
    if instances.chain([&series.series_instance_uid]).all(|text| uid::is_written(text)) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::InvalidImage,
        "the SeriesInstanceUID or a SOPInstanceUID is not a UID and cannot name a file",
    ))
}

/// Returns how many frames to hold in memory at once: at most `most`, and fewer if they are large. Each
/// is held encoded and decoded.
fn affordable(series: &Series, most: usize) -> usize {
    let bytes = |instance: &Instance| {
        let number = |tag| instance.dataset.number(tag).map_or(1, |n| n.max(1.0) as u64);
        [tags::ROWS, tags::COLUMNS, tags::SAMPLES_PER_PIXEL, tags::BITS_ALLOCATED]
            .into_iter()
            .fold(1_u64, |product, tag| product.saturating_mul(number(tag)))
            / 4
    };
    let largest = series.instances.iter().map(bytes).max().unwrap_or(1).max(1);
    usize::try_from(BYTES_IN_FLIGHT / largest)
        .unwrap_or(usize::MAX)
        .clamp(FRAMES_IN_FLIGHT, most.max(2))
}

/// One instance and its destination.
struct Target<'a> {
    series: &'a Arc<Series>,
    index: usize,
    folder: &'a Path,
    plan: &'a Plan,
}

/// How the frames of an instance are converted for its file.
#[derive(Clone, Copy)]
struct Form {
    /// Their pixel format, if it is supported: then they are decoded, at least to check them.
    format: Option<FrameFormat>,
    /// Whether decoded pixels are written.
    decoded: bool,
}

impl Target<'_> {
    fn instance(&self) -> &Instance {
        &self.series.instances[self.index]
    }

    async fn write(&self, source: &dyn ImageSource, window: usize) -> Result<Fetched> {
        let instance = self.instance();
        let count = instance.frames.len();
        let (form, syntax, layout) = self.layout()?;
        let mut open = Open::new(self, syntax, layout).await?;
        for first in (0..count).step_by(window) {
            let last = count.min(first + window);
            let key = |frame| FrameKey { instance: self.index, frame };
            let keys: Vec<FrameKey> = (first..last).map(key).collect();
            let mut frames: Vec<EncodedFrame> =
                source.frames(self.series, keys).try_collect().await?;
            frames.sort_by_key(|frame| frame.key);
            if !frames.iter().map(|frame| frame.key.frame).eq(first..last) {
                return Err(Error::internal("the source did not deliver the frames asked for"));
            }
            for frame in frames {
                let (frame, samples) = self.intact(source, frame, form).await?;
                open = open.frame(frame, samples.filter(|_| form.decoded), form).await?;
            }
        }
        let bytes = open.finish().await?;
        Ok(Fetched { instances: 1, frames: count, bytes })
    }

    /// Returns how frames are processed, the transfer syntax of the file, and the form of its pixel
    /// data.
    fn layout(&self) -> Result<(Form, String, PixelForm)> {
        let instance = self.instance();
        let stored = instance.transfer_syntax.as_str();
        let count = instance.frames.len();
        let explicit = uids::EXPLICIT_VR_LITTLE_ENDIAN.to_owned();
        if count == 0 {
            let form = Form { format: None, decoded: false };
            return Ok((form, explicit, PixelForm::None));
        }
        let format = FrameFormat::from_dataset(&instance.dataset);
        let native =
            matches!(stored, uids::EXPLICIT_VR_LITTLE_ENDIAN | uids::IMPLICIT_VR_LITTLE_ENDIAN);
        if !native && self.plan.pixels == Pixels::Stored {
            let form = Form { format: format.ok(), decoded: false };
            return Ok((form, stored.to_owned(), PixelForm::Encapsulated(count)));
        }
        let promised = instance.dataset.integer(tags::NUMBER_OF_FRAMES).unwrap_or(1).max(1);
        if promised != count as i64 {
            return Err(Error::new(
                ErrorKind::InvalidImage,
                format!("NumberOfFrames is {promised}, the source has {count} frames"),
            ));
        }
        let (bytes, form) = match format {
            Ok(format) => {
                let frame = format.pixels() as u64 * u64::from(format.bits_allocated / 8);
                (frame, Form { format: Some(format), decoded: true })
            }
            // Uncompressed pixels need no decoder.
            Err(_) if native => {
                (native_frame_bytes(&instance.dataset)?, Form { format: None, decoded: false })
            }
            Err(e) => return Err(advised(e)),
        };
        let total = bytes.saturating_mul(count as u64);
        Ok((form, explicit, PixelForm::Native(total)))
    }

    /// Returns a frame that decodes and matches the source's description, as far as this can be
    /// checked. A broken frame is requested again.
    async fn intact(
        &self,
        source: &dyn ImageSource,
        mut frame: EncodedFrame,
        form: Form,
    ) -> Result<(EncodedFrame, Option<Samples>)> {
        let Some(format) = form.format else { return Ok((frame, None)) };
        for again in 0.. {
            let (series, key) = (self.series.clone(), frame.key);
            let writing = self.plan.writing.clone();
            let (back, result) = cpu::run(move || {
                let _writing = writing;
                let result = checked(&series, &frame, &format);
                Ok((frame, result))
            })
            .await?;
            let error = match result {
                Ok(samples) => return Ok((back, Some(samples))),
                // As stored, it is written even if no decoder supports it.
                Err(e) if !form.decoded && e.kind() == ErrorKind::UnsupportedPixelData => {
                    return Ok((back, None));
                }
                Err(e) if again < AGAIN && may_be_the_transfers(&e) => e,
                Err(e) => return Err(advised(e)),
            };
            let Some(once_more) = source.frame_again(self.series, key).await? else {
                return Err(advised(error));
            };
            frame = once_more;
        }
        Err(Error::internal("a frame without an end"))
    }
}

/// Adds advice to the error for pixels that cannot be decoded.
fn advised(error: Error) -> Error {
    match error.kind() {
        ErrorKind::UnsupportedPixelData => {
            error.context("the pixels cannot be decoded; fetch them with --pixels stored")
        }
        _ => error,
    }
}

/// Returns the bytes of a frame with uncompressed pixels of any kind.
fn native_frame_bytes(dataset: &Dataset) -> Result<u64> {
    let number = |tag| -> Result<u64> {
        u64::try_from(dataset.required_integer(tag)?).map_err(|_| {
            Error::new(ErrorKind::InvalidImage, "an attribute of its pixels is negative")
        })
    };
    let samples = dataset.integer(tags::SAMPLES_PER_PIXEL).unwrap_or(1).max(1) as u64;
    let bits = [number(tags::ROWS)?, number(tags::COLUMNS)?, number(tags::BITS_ALLOCATED)?]
        .into_iter()
        .fold(samples, u64::saturating_mul);
    let frames = dataset.integer(tags::NUMBER_OF_FRAMES).unwrap_or(1);
    if bits % 8 != 0 && frames > 1 {
        return Err(Error::new(
            ErrorKind::UnsupportedPixelData,
            "its frames do not end at whole bytes, so that they cannot be told apart",
        ));
    }
    Ok(bits.div_ceil(8))
}

/// A file being written.
struct Open {
    writer: P10Writer<BufWriter<NamedTempFile>>,
    path: PathBuf,
    writing: Arc<()>,
}

impl Open {
    /// Writes the header to a file that has no name yet.
    async fn new(target: &Target<'_>, syntax: String, layout: PixelForm) -> Result<Self> {
        let instance = target.instance().clone();
        let folder = target.folder.to_owned();
        let writing = target.plan.writing.clone();
        blocking(move || {
            let file = tempfile::Builder::new()
                .prefix(".fetch-")
                .suffix(".part")
                // The umask still applies.
                .permissions(Permissions::from_mode(0o666))
                .tempfile_in(&folder)
                .map_err(|e| unwritable(&folder, e))?;
            let mut dataset = Dataset::clone(&instance.dataset);
            charset::settle(&instance.dataset, &mut dataset, |_| true);
            let writer = P10Writer::new(BufWriter::new(file), dataset, &syntax, layout)?;
            let path = folder.join(format!("{}.dcm", instance.sop_instance_uid));
            Ok(Self { writer, path, writing })
        })
        .await
    }

    /// Writes the next frame: its samples or, without samples, its bytes.
    async fn frame(
        mut self,
        frame: EncodedFrame,
        samples: Option<Samples>,
        form: Form,
    ) -> Result<Self> {
        blocking(move || {
            match (samples, form.format) {
                (Some(samples), Some(format)) => {
                    let bits = format.bits_allocated;
                    let length = samples.len() as u64 * u64::from(bits / 8);
                    self.writer.frame_with(length, |out| samples.write_le_bytes(bits, out))?;
                }
                _ => self.writer.frame(&frame.data)?,
            }
            Ok(self)
        })
        .await
    }

    /// Gives the file its name and returns its size in bytes.
    async fn finish(self) -> Result<u64> {
        blocking(move || {
            let Self { writer, path, writing } = self;
            let out = writer.finish()?;
            let file = out.into_inner().map_err(|e| unwritable(&path, e.into_error()))?;
            let finished = |file: &File| -> std::io::Result<u64> {
                file.sync_all()?;
                Ok(file.metadata()?.len())
            };
            let bytes = finished(file.as_file()).map_err(|e| unwritable(&path, e))?;
            file.persist(&path).map_err(|e| unwritable(&path, e.error))?;
            drop(writing);
            Ok(bytes)
        })
        .await
    }
}

fn unwritable(path: &Path, e: std::io::Error) -> Error {
    Error::new(ErrorKind::Io, format!("{} cannot be written: {}", path.display(), e.kind()))
        .caused_by(e)
}

/// Runs `work` on a thread where blocking is allowed.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| Error::internal("writing a file was aborted").caused_by(e))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_uid_names_no_file() {
        let series = |series: &str, instance: &str| Series {
            study_instance_uid: "1.1".to_owned(),
            series_instance_uid: series.to_owned(),
            instances: vec![Instance {
                dataset: Arc::new(Dataset::new_empty()),
                sop_instance_uid: instance.to_owned(),
                sop_class_uid: String::new(),
                transfer_syntax: String::new(),
                frames: Vec::new(),
            }],
        };
        assert!(check_names(&series("1.2", "1.2.03")).is_ok());
        for (one, other) in [("1.2", "../../1"), ("..", "1.2"), ("1.2", ""), ("/tmp/x", "1.2")] {
            let e = check_names(&series(one, other)).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::InvalidImage);
        }
    }
}
