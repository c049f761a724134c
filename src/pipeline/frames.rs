//! Frames of a volume fetched and decoded at the same time.
//!
//! Encoded frames arrive in any order; each is decoded on the CPU pool as soon as it is there and
//! checked against what the source said of it. How many wait for a decoder is bounded, so a fast
//! network does not fill the memory.

use std::sync::Arc;

use futures::TryStreamExt;

use crate::codec::{self, FrameFormat, Samples};
use crate::cpu;
use crate::dicom::{FrameDescriptor, FrameKey, Instance, Series};
use crate::error::{Error, ErrorKind, Result};
use crate::progress::{Progress, Stage};
use crate::source::{EncodedFrame, ImageSource};
use crate::volume::{Plan, Slice, Volume};

use super::Holding;

/// What fetching and decoding took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FrameStats {
    /// Frames decoded.
    pub frames: usize,
    /// Bytes as they came.
    pub encoded_bytes: u64,
}

/// Fetches every frame of `plan` and decodes it into a volume. Decoders at work hold `holding`.
pub async fn load(
    source: &dyn ImageSource,
    series: &Arc<Series>,
    plan: &Arc<Plan>,
    progress: &dyn Progress,
    holding: &Holding,
) -> Result<(Volume, FrameStats)> {
    let place: std::collections::HashMap<FrameKey, usize> =
        plan.slices.iter().enumerate().map(|(i, slice)| (slice.key, i)).collect();
    let keys: Vec<FrameKey> = plan.slices.iter().map(|s| s.key).collect();
    let total = keys.len();
    let mut volume = Volume::new(plan.clone());
    let mut stats = FrameStats::default();
    let waiting = 2 * rayon::current_num_threads();
    let mut decoded = source
        .frames(series, keys)
        .map_ok(|frame| {
            let index = place.get(&frame.key).copied();
            async move {
                let index = index.ok_or_else(|| {
                    Error::internal("the source delivered a frame that was not asked for")
                })?;
                let slice = plan.slices[index].clone();
                let (samples, bytes) = intact(source, series, slice, frame, holding).await?;
                Ok::<_, Error>((index, samples, bytes))
            }
        })
        .try_buffer_unordered(waiting);
    while let Some((index, samples, bytes)) = decoded.try_next().await? {
        progress.check()?;
        volume.insert(index, samples)?;
        stats.frames += 1;
        stats.encoded_bytes += bytes;
        progress.advance(Stage::Frames, stats.frames, total);
    }
    drop(decoded);
    Ok((volume, stats))
}

/// Times that a frame is asked for once more.
pub(super) const AGAIN: usize = 2;

/// Decodes a frame. One that came broken (cut off, flipped, or another frame's bytes, which its checksum
/// tells) is asked for again before it is the image set's fault; the bytes of all transfers count.
async fn intact(
    source: &dyn ImageSource,
    series: &Arc<Series>,
    slice: Slice,
    mut frame: EncodedFrame,
    holding: &Holding,
) -> Result<(Samples, u64)> {
    let mut bytes = 0;
    for again in 0.. {
        bytes += frame.data.len() as u64;
        let (key, headers, held) = (frame.key, series.clone(), holding.clone());
        let slice = slice.clone();
        let decoding = move || {
            let _held = held;
            decode(&headers, &frame, &slice)
        };
        let error = match cpu::run(decoding).await {
            Ok(samples) => return Ok((samples, bytes)),
            Err(e) if again < AGAIN && may_be_the_transfers(&e) => e,
            Err(e) => return Err(e),
        };
        let Some(once_more) = source.frame_again(series, key).await? else { return Err(error) };
        tracing::warn!(%error, "a frame came broken and was asked for again");
        frame = once_more;
    }
    Err(Error::internal("a frame without an end"))
}

/// Whether an error can come of a transfer: a flipped bit in a header can look like a format that
/// nothing here decodes, or like samples that do not fit the attributes.
pub(super) fn may_be_the_transfers(error: &Error) -> bool {
    use ErrorKind::{CorruptFrame, InvalidImage, UnsupportedPixelData};
    matches!(error.kind(), CorruptFrame | InvalidImage | UnsupportedPixelData)
        && !error.details().contains_key(METADATA)
}

/// Detail of errors that the metadata shows by itself.
const METADATA: &str = "metadata";

/// Decodes one frame and checks it, and leaves of each pixel its stored bits. What the rescale makes of them
/// is a number.
fn decode(series: &Series, frame: &EncodedFrame, slice: &Slice) -> Result<Samples> {
    let mut samples = checked(series, frame, &slice.format)?;
    samples.keep_stored_bits(slice.format.bits_stored);
    let FrameKey { instance, frame } = frame.key;
    let instance = &series.instances[instance];
    check_finite(&samples, slice)
        .map_err(|e| at_frame(e, instance, frame, &instance.frames[frame]))?;
    Ok(samples)
}

/// Refuses pixels that are NaN or infinite, or become so as physical values of 32 bits: in a network's
/// input a single one can spoil the whole result.
fn check_finite(samples: &Samples, slice: &Slice) -> Result<()> {
    let finite = |stored| slice.physical(stored).is_finite();
    // The rescale is monotone. Of 16 bits no pixel need be looked at: the widest are finite or not.
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

/// Decodes one frame and checks it; errors name instance and frame. Samples are as they are encoded.
pub(super) fn checked(
    series: &Series,
    frame: &EncodedFrame,
    format: &FrameFormat,
) -> Result<Samples> {
    let instance = &series.instances[frame.key.instance];
    let descriptor = &instance.frames[frame.key.frame];
    check_dimensions(descriptor, format)
        .and_then(|()| codec::decode(&instance.transfer_syntax, &frame.data, format))
        // The checksum is of what the codestream holds.
        .and_then(|samples| check_crc32(descriptor, &samples, format).map(|()| samples))
        .map_err(|e| at_frame(e, instance, frame.key.frame, descriptor))
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
