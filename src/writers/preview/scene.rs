//! What is shown.

use super::extents::Extent;
use super::labelled::Labelled;
use super::window::Window;
use crate::volume::Geometry;

/// How a segment is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown<'a> {
    /// What it is called.
    pub name: &'a str,
    /// Its display colour, sRGB.
    pub color: [u8; 3],
}

/// What to show.
pub struct Scene<'a> {
    /// Size of the volume, and where it is.
    pub geometry: &'a Geometry,
    /// The image's value at the voxel (x, y, z), in the units of `window`.
    pub image: &'a (dyn Fn([usize; 3]) -> f32 + Sync),
    /// Where the segments are; they are counted from 0 in the order of `segments`.
    pub labels: &'a dyn Labelled,
    /// How much of each segment there is, and where.
    pub extents: &'a [Extent],
    /// The segments.
    pub segments: &'a [Shown<'a>],
    /// Which values are black and white; where absent, all but the darkest and the brightest hundredth
    /// of what is shown are told apart.
    pub window: Option<Window>,
    /// A line above the picture; nothing about the patient.
    pub title: &'a str,
}
