//! What the attributes of a segmentation are made of, for all modules that are written.

use super::frames::PlannedFrame;
use super::source::Plane;
use super::{Identity, SegRequest};
use crate::dicom::Instance;

/// Everything the attributes are made of.
pub(super) struct Content<'a, 'r, L> {
    pub request: &'a SegRequest<'r, L>,
    pub sop_instance_uid: &'a str,
    pub identity: &'a Identity,
    /// Number of the object in its series, from 1.
    pub number: usize,
    /// The source instances, each once, at least one.
    pub instances: &'a [&'a Instance],
    /// One per slice, at least one.
    pub planes: &'a [Plane],
    /// In the order of the pixel data, at least one.
    pub frames: &'a [PlannedFrame],
    /// Whether some voxel belongs to several segments.
    pub overlap: bool,
}
