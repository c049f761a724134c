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
mod view;
mod window;

use crate::error::{Error, Result};
use crate::volume::Geometry;
pub use extents::{Extent, extents};
pub use labelled::{Labelled, SegmentMap};
pub use window::{VoiFunction, Window};

/// The most pixels of a picture.
pub const MOST_PIXELS: usize = 1200 * 500;

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

/// A finished picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// Pixels in a row.
    pub width: u16,
    /// Rows.
    pub height: u16,
    /// Red, green and blue of each pixel, row by row.
    pub rgb: Vec<u8>,
}

/// Draws a scene.
pub fn draw(scene: &Scene) -> Picture {
    layout::compose(scene, &view::views(scene.geometry, scene.extents))
}

impl Picture {
    /// The picture as PNG.
    ///
    /// # Errors
    /// [`Error::internal`] where the pixels do not match the size.
    pub fn png(&self) -> Result<Vec<u8>> {
        let mut file = Vec::new();
        let mut encoder =
            png::Encoder::new(&mut file, u32::from(self.width), u32::from(self.height));
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        encoder.set_source_srgb(png::SrgbRenderingIntent::Perceptual);
        encoder
            .write_header()
            .and_then(|mut writer| {
                writer.write_image_data(&self.rgb)?;
                writer.finish()
            })
            .map_err(|e| Error::internal("the preview cannot be encoded as PNG").caused_by(e))?;
        Ok(file)
    }
}

#[cfg(test)]
mod tests;
