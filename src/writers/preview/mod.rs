//! A picture of a segmentation: the planes that show most of its segments, outlined over the image.
//!
//! - Up to three planes, axial, coronal and sagittal, named after the patient's axes that the voxels'
//!   are nearest to. Those of a volume of one slice, which would be a line, are left out.
//! - Radiological convention, whatever the order of the source: the patient's right is on the left, the
//!   front is up or on the left, the head is up. Letters as DICOM has them (PS3.3 C.7.6.1.1.1) say so.
//!   Sizes follow the spacing of the voxels.
//! - In each plane the slice is shown that shows most: each segment counts by how its cross-section
//!   compares to its own largest one, so that a small one counts as much as a large one.
//! - Every segment is outlined in its display colour and lightly filled, small ones over large ones. A
//!   legend has the names and volumes of the largest.
//! - No text says anything about the patient.
//!
//! At most [`MOST_PIXELS`] pixels, whatever the size of the volume; only those voxels of the image are
//! read that are shown.

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

/// The most pixels of a picture.
pub const MOST_PIXELS: usize = 1200 * 500;

/// Draws a scene.
pub fn draw(scene: &Scene) -> Picture {
    layout::compose(scene, &view::views(scene.geometry, scene.extents))
}

#[cfg(test)]
mod tests;
