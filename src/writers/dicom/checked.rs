//! Checks that the input of a writer is consistent and can be encoded.

use std::collections::HashSet;

use crate::dicom::segment::{Algorithm, SegmentDescription, check_text};
use crate::error::{Error, ErrorKind, Result};
use crate::writers::Voxels;

/// The input of every DICOM object of a segmentation.
pub(in crate::writers) struct Checked<'a, 'v, L> {
    /// The voxels.
    pub voxels: &'a Voxels<'v, L>,
    /// Number of source slices.
    pub slices: usize,
    /// The segments.
    pub segments: &'a [SegmentDescription],
    /// The algorithm that found them.
    pub algorithm: &'a Algorithm,
    /// Series Description (0008,103E).
    pub series_description: &'a str,
}

impl<L> Checked<'_, '_, L> {
    /// Checks the input.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidModel`] if there are no segments, two with the same label, or texts that
    /// cannot be encoded; [`ErrorKind::Internal`] if numbers are inconsistent.
    pub fn check(&self) -> Result<()> {
        let (columns, rows, slices) = self.voxels.dim();
        if slices != self.slices {
            return Err(Error::internal(format!(
                "the label map has {slices} slices, the request names {}",
                self.slices
            )));
        }
        if [columns, rows].iter().any(|&n| n == 0 || n > usize::from(u16::MAX)) || slices == 0 {
            return Err(Error::internal(format!(
                "a label map of {columns} × {rows} × {slices} cannot be written"
            )));
        }
        if self.segments.is_empty() {
            return Err(Error::new(
                ErrorKind::InvalidModel,
                "the model package describes no foreground segment",
            ));
        }
        if self.segments.len() > usize::from(u16::MAX) {
            return Err(Error::new(ErrorKind::InvalidModel, "there are more than 65535 segments"));
        }
        if let Voxels::Masks(masks) = self.voxels
            && masks.dim().0 != self.segments.len()
        {
            return Err(Error::internal(format!(
                "there are {} masks for {} segments",
                masks.dim().0,
                self.segments.len()
            )));
        }
        let mut values = HashSet::new();
        for segment in self.segments {
            segment.check()?;
            if !values.insert(segment.value) && !matches!(self.voxels, Voxels::Masks(_)) {
                return Err(Error::new(
                    ErrorKind::InvalidModel,
                    format!("label value {} is described by two segments", segment.value),
                ));
            }
        }
        self.algorithm.check()?;
        check_text(self.series_description, 64, "seriesDescription")
    }
}
