//! The content of a picture.

use super::extents::Extent;
use super::labelled::Labelled;
use super::window::Window;
use crate::volume::Geometry;

/// How a segment is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown<'a> {
    /// Its display name.
    pub name: &'a str,
    /// Its display colour, sRGB.
    pub color: [u8; 3],
}

/// The scene to draw.
pub struct Scene<'a> {
    /// Size and position of the volume.
    pub geometry: &'a Geometry,
    /// Returns the image value at voxel (x, y, z), in the units of `window`.
    pub image: &'a (dyn Fn([usize; 3]) -> f32 + Sync),
    /// The positions of the segments, numbered from 0 in the order of `segments`.
    pub labels: &'a dyn Labelled,
    /// The size and distribution of each segment.
    pub extents: &'a [Extent],
    /// The segments.
    pub segments: &'a [Shown<'a>],
    /// The values shown as black and white. If absent, the range is chosen so that only the darkest and
    /// the brightest hundredth of the shown values are clipped.
    pub window: Option<Window>,
    /// A line above the picture, without anything about the patient.
    pub title: &'a str,
}
