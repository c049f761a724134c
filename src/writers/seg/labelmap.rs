//! Writes the file of a LABELMAP segmentation: one frame per slice, whose pixels are Segment Numbers.

use std::io::Cursor;

use rayon::prelude::*;

use super::frames::{Layers, Numbers, PlannedFrame};
use crate::codec::{FrameFormat, Samples, encode_htj2k, encode_rle, longest_rle};
use crate::dicom::Dataset;
use crate::dicom::encoding::FrameEncoding;
use crate::dicom::p10::{P10Writer, PixelForm};
use crate::dicom::segment::SegmentDescription;
use crate::error::{Error, ErrorKind, Result};
use crate::writers::Label;

/// Frames that are encoded in parallel before they are added to the file.
const TOGETHER: usize = 32;

/// Returns Bits Allocated (0028,0100) for a label map with this many segments, numbered from 1.
pub(super) fn bits_allocated(segments: usize) -> u16 {
    if segments <= usize::from(u8::MAX) { 8 } else { 16 }
}

/// Returns an upper bound on the bytes of a label map's file and of the frames being encoded, for a
/// volume of `dims` voxels along X, Y and Z. Compression normally makes label maps smaller; this bound
/// also covers those that do not shrink.
pub fn most_bytes(dims: [usize; 3], segments: usize) -> u64 {
    let [columns, rows, slices] = dims.map(|n| n as u64);
    let pixels = columns.saturating_mul(rows);
    let bytes = u64::from(bits_allocated(segments) / 8);
    // As two-byte numbers, and encoded.
    let meanwhile = slices.min(TOGETHER as u64).saturating_mul(2 + bytes);
    pixels.saturating_mul(slices.saturating_mul(bytes).saturating_add(meanwhile))
}

/// The source of frames.
pub(super) struct Frames<'a, L: Label> {
    layers: &'a Layers<'a, L>,
    numbers: Numbers,
    format: FrameFormat,
    encoding: FrameEncoding,
}

impl<'a, L: Label> Frames<'a, L> {
    /// Prepares frames of `columns` by `rows` pixels, each from 1 to 65535. `overlap` says whether any
    /// voxel belongs to several segments.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidRequest`] if segments overlap: a pixel has only one Segment Number.
    pub fn new(
        layers: &'a Layers<'a, L>,
        segments: &[SegmentDescription],
        [columns, rows]: [usize; 2],
        encoding: FrameEncoding,
        overlap: bool,
    ) -> Result<Self> {
        if overlap {
            return Err(Error::new(
                ErrorKind::InvalidRequest,
                "segments of this result overlap, and a DICOM SEG of type LABELMAP has one segment for each pixel; \
                 ask for dicom-seg, or for segments that do not overlap by \"segments\"",
            )
            .with("field", "outputs"));
        }
        let side = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let bits = bits_allocated(segments.len());
        let format = FrameFormat {
            rows: side(rows),
            columns: side(columns),
            bits_allocated: bits,
            bits_stored: bits,
            signed: false,
            float: false,
        };
        Ok(Self { layers, numbers: layers.numbers(segments), format, encoding })
    }

    /// Returns how many frames fit into one object with `most` bytes of pixel data, at least one.
    pub fn in_one(&self, most: u32) -> usize {
        let native = self.format.pixels() as u64 * u64::from(self.format.bits_allocated / 8);
        let each = match self.encoding {
            FrameEncoding::Native => native,
            FrameEncoding::Rle => longest_rle(&self.format),
            // For noise, a codestream needs little more than the native size.
            FrameEncoding::Htj2k => native.saturating_mul(2).saturating_add(1 << 16),
        };
        // Including its entry in the Basic Offset Table, its tag and its length.
        usize::try_from(u64::from(most) / (each + 14)).unwrap_or(usize::MAX).max(1)
    }

    /// Returns the complete Part 10 file of `object`, which contains everything but the pixel data,
    /// with these frames.
    pub fn file(&self, object: Dataset, frames: &[PlannedFrame]) -> Result<Vec<u8>> {
        let bytes = self.format.pixels() as u64 * u64::from(self.format.bits_allocated / 8);
        let form = match self.encoding {
            FrameEncoding::Native => PixelForm::Native(bytes.saturating_mul(frames.len() as u64)),
            FrameEncoding::Rle | FrameEncoding::Htj2k => PixelForm::Encapsulated(frames.len()),
        };
        let out = Cursor::new(Vec::new());
        let mut writer = P10Writer::new(out, object, self.encoding.transfer_syntax(), form)?;
        for frames in frames.chunks(TOGETHER) {
            let encoded: Vec<Vec<u8>> =
                frames.par_iter().map(|frame| self.encoded(frame)).collect::<Result<_>>()?;
            encoded.iter().try_for_each(|frame| writer.frame(frame))?;
        }
        Ok(writer.finish()?.into_inner())
    }

    fn encoded(&self, frame: &PlannedFrame) -> Result<Vec<u8>> {
        let mut pixels = vec![0; self.format.pixels()];
        self.layers.paint(frame, &self.numbers, &mut pixels);
        let samples = Samples::U16(pixels);
        match self.encoding {
            FrameEncoding::Native => Ok(samples.to_le_bytes(self.format.bits_allocated)),
            FrameEncoding::Rle => encode_rle(&samples, &self.format),
            FrameEncoding::Htj2k => encode_htj2k(&samples, &self.format),
        }
    }
}

/// Returns the nonempty slices, or all of them, as frames in slice order.
pub(super) fn planned(found: &[PlannedFrame], all: Option<usize>) -> Vec<PlannedFrame> {
    let frame = |slice| PlannedFrame { segment: None, slice, rows: 0..0 };
    let slices = found.iter().map(|frame| frame.slice + 1).max().unwrap_or(0);
    let mut frames: Vec<PlannedFrame> = (0..all.unwrap_or(slices)).map(frame).collect();
    for PlannedFrame { slice, rows, .. } in found {
        let Some(whole) = frames.get_mut(*slice) else { continue };
        whole.rows = match whole.rows.is_empty() {
            true => rows.clone(),
            false => whole.rows.start.min(rows.start)..whole.rows.end.max(rows.end),
        };
    }
    if all.is_none() {
        frames.retain(|frame| !frame.rows.is_empty());
    }
    frames
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_has_one_frame_over_the_rows_of_all_segments() {
        let found = |segment, slice, rows| PlannedFrame { segment: Some(segment), slice, rows };
        let all = [found(0, 1, 4..6), found(0, 3, 0..1), found(1, 1, 2..5)];
        let whole = |slice, rows| PlannedFrame { segment: None, slice, rows };
        assert_eq!(planned(&all, None), [whole(1, 2..6), whole(3, 0..1)]);
        let kept = [whole(0, 0..0), whole(1, 2..6), whole(2, 0..0), whole(3, 0..1), whole(4, 0..0)];
        assert_eq!(planned(&all, Some(5)), kept);
        assert!(planned(&[], None).is_empty());
    }

    #[test]
    fn numbers_beyond_a_byte_take_two() {
        assert_eq!([bits_allocated(1), bits_allocated(255), bits_allocated(256)], [8, 8, 16]);
        // Ten slices of 100 pixels, and as many being encoded.
        assert_eq!(most_bytes([20, 5, 10], 3), 1000 + 3000);
        assert_eq!(most_bytes([20, 5, 10], 300), 2000 + 4000);
        assert_eq!(most_bytes([usize::MAX; 3], 1), u64::MAX);
    }
}
