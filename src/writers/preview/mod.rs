//! Draws a picture of a segmentation: the planes that show most of its segments, outlined over the
//! image.
//!
//! - Up to three planes, axial, coronal and sagittal, named after the patient axes closest to the
//!   voxels' axes. Planes that would be a line, because the volume has one slice, are left out.
//! - Radiological convention, whatever the order of the source: the patient's right is on the left, the
//!   front is up or on the left, the head is up. DICOM's letters (PS3.3 C.7.6.1.1.1) mark the sides.
//!   Sizes follow the voxel spacing.
//! - Each plane shows the best slice: each segment counts by the ratio of its cross-section to its own
//!   largest one, so a small segment counts as much as a large one.
//! - Every segment is outlined in its display colour and lightly filled, small ones over large ones. A
//!   legend lists the names and volumes of the largest.
//! - No text contains anything about the patient.
//!
//! A picture has at most [`MOST_PIXELS`] pixels, whatever the size of the volume; only voxels of the
//! image that are shown are read.

mod canvas;
mod extents;
mod labelled;
mod layout;
mod panel;
mod picture;
mod scene;
mod view;
mod window;

pub use extents::{Extent, extents};
pub use labelled::{Labelled, SegmentMap};
pub use picture::Picture;
pub use scene::{Scene, Shown};
pub use window::{VoiFunction, Window};

/// Limit on the pixels of a picture.
pub const MOST_PIXELS: usize = 1200 * 500;

/// Draws a scene.
pub fn draw(scene: &Scene) -> Picture {
    layout::compose(scene, &view::views(scene.geometry, scene.extents))
}

#[cfg(test)]
mod tests;
