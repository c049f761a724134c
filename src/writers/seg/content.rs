//! The source of a segmentation's attributes, shared by all module writers.

use super::frames::PlannedFrame;
use super::{SegRequest, SegmentationType};
use crate::dicom::Instance;
use crate::writers::dicom::Plane;

/// The source of the attributes.
pub(super) struct Content<'a, 'r, L> {
    pub request: &'a SegRequest<'r, L>,
    pub sop_instance_uid: &'a str,
    pub series_instance_uid: &'a str,
    /// Number of the object in its series, from 1.
    pub number: usize,
    /// The source instances without duplicates, at least one.
    pub instances: &'a [&'a Instance],
    /// One per slice, at least one.
    pub planes: &'a [Plane],
    /// In the order of the pixel data, at least one.
    pub frames: &'a [PlannedFrame],
    /// Whether any voxel belongs to several segments.
    pub overlap: bool,
}

impl<L> Content<'_, '_, L> {
    /// Whether each frame belongs to one segment.
    pub fn by_segment(&self) -> bool {
        self.request.options.segmentation_type == SegmentationType::Binary
    }

    /// Returns the name from which the Dimension Organization UID (0020,9164) is derived; it differs
    /// between sets of dimensions.
    pub fn dimensions(&self) -> &'static str {
        if self.by_segment() { "dimensions" } else { "dimensions of a label map" }
    }
}
