//! Decodes and checks one frame, on the calling thread.

use std::time::{Duration, Instant};

use crate::codec::{self, FrameFormat, Samples};
use crate::dicom::{FrameDescriptor, FrameKey, Instance, Series};
use crate::error::{Error, ErrorKind, Result};
use crate::source::EncodedFrame;
use crate::volume::Slice;

/// CPU times of one frame, or of many.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Work {
    /// From the arrival of the frame to the start of its work.
    pub waited: Duration,
    /// Decoding.
    pub decoded: Duration,
    /// Checking the pixels against the metadata's checksum, and their values.
    pub checked: Duration,
    /// Converting them to physical values in the volume.
    pub placed: Duration,
}

impl std::ops::AddAssign for Work {
    fn add_assign(&mut self, other: Self) {
        self.waited += other.waited;
        self.decoded += other.decoded;
        self.checked += other.checked;
        self.placed += other.placed;
    }
}

impl Work {
    /// Returns the times by their names in the metrics.
    pub fn steps(&self) -> [(&'static str, Duration); 4] {
        [
            ("cpu_queue", self.waited),
            ("decode", self.decoded),
            ("checksum", self.checked),
            ("place", self.placed),
        ]
    }
}

/// Whether an error may be due to the transfer: a flipped bit in a header can look like an unsupported
/// format, or like samples that do not match the attributes.
pub(super) fn may_be_the_transfers(error: &Error) -> bool {
    use ErrorKind::{CorruptFrame, InvalidImage, UnsupportedPixelData};
    matches!(error.kind(), CorruptFrame | InvalidImage | UnsupportedPixelData)
        && !error.details().contains_key(METADATA)
}

/// Detail of errors that follow from the metadata alone.
const METADATA: &str = "metadata";

/// Decodes and checks one frame, and reduces each pixel to its stored bits. Also checks that the
/// rescaled values are finite.
pub(super) fn decode(
    series: &Series,
    frame: &EncodedFrame,
    slice: &Slice,
) -> Result<(Samples, Work)> {
    let (mut samples, mut work) = timed(series, frame, &slice.format)?;
    let began = Instant::now();
    samples.keep_stored_bits(slice.format.bits_stored);
    let FrameKey { instance, frame } = frame.key;
    let instance = &series.instances[instance];
    check_finite(&samples, slice)
        .map_err(|e| at_frame(e, instance, frame, &instance.frames[frame]))?;
    work.checked += began.elapsed();
    Ok((samples, work))
}

/// Refuses pixels that are NaN or infinite, or become so as 32-bit physical values: in a network's
/// input, a single one can spoil the whole result.
fn check_finite(samples: &Samples, slice: &Slice) -> Result<()> {
    let finite = |stored| slice.physical(stored).is_finite();
    // The rescale is monotonic. 16-bit pixels need not be inspected: it is enough that the extreme
    // values are finite.
    let range = match samples {
        Samples::I16(_) | Samples::U16(_) => Some((i16::MIN.into(), u16::MAX.into())),
        wide => wide.min_max(),
    };
    if range.is_some_and(|(low, high)| finite(low) && finite(high)) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::InvalidImage,
        "a pixel is not a finite number, as it is stored or in physical units",
    ))
}

/// Decodes and checks one frame; errors name the instance and frame. Samples are returned as encoded.
pub(super) fn checked(
    series: &Series,
    frame: &EncodedFrame,
    format: &FrameFormat,
) -> Result<Samples> {
    timed(series, frame, format).map(|(samples, _)| samples)
}

/// Does the same as [`checked`], and returns the times of decoding and checking.
fn timed(series: &Series, frame: &EncodedFrame, format: &FrameFormat) -> Result<(Samples, Work)> {
    let instance = &series.instances[frame.key.instance];
    let descriptor = &instance.frames[frame.key.frame];
    let run = || {
        check_dimensions(descriptor, format)?;
        let began = Instant::now();
        let samples = codec::decode(&instance.transfer_syntax, &frame.data, format)?;
        let decoded = began.elapsed();
        // The checksum covers the content of the codestream.
        check_crc32(descriptor, &samples, format)?;
        let checked = began.elapsed().saturating_sub(decoded);
        Ok((samples, Work { decoded, checked, ..Work::default() }))
    };
    run().map_err(|e| at_frame(e, instance, frame.key.frame, descriptor))
}

fn check_dimensions(descriptor: &FrameDescriptor, format: &FrameFormat) -> Result<()> {
    match descriptor.dimensions {
        Some((width, height)) if (width, height) != (format.columns, format.rows) => {
            Err(Error::new(
                ErrorKind::CorruptFrame,
                format!(
                    "the image set's metadata gives the frame {width} × {height} pixels, its \
                     attributes {} × {}",
                    format.columns, format.rows
                ),
            )
            .with(METADATA, "dimensions"))
        }
        _ => Ok(()),
    }
}

fn check_crc32(
    descriptor: &FrameDescriptor,
    samples: &Samples,
    format: &FrameFormat,
) -> Result<()> {
    let Some(expected) = descriptor.crc32 else { return Ok(()) };
    let found = samples.crc32(format.bits_allocated);
    if found == expected {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::CorruptFrame,
        format!(
            "the decoded pixels have checksum {found}, the image set's metadata says {expected}; \
             the frame is corrupt"
        ),
    ))
}

fn at_frame(
    error: Error,
    instance: &Instance,
    frame: usize,
    descriptor: &FrameDescriptor,
) -> Error {
    let uid = instance.sop_instance_uid.as_str();
    let error = error
        .context(format!("instance {uid}, frame {}", frame + 1))
        .with("sopInstanceUID", uid)
        .with("frame", frame + 1);
    if descriptor.id.is_empty() {
        error
    } else {
        error.with("imageFrameId", descriptor.id.as_str())
    }
}
