//! A picture and its file format.

use crate::error::{Error, Result};

/// A finished picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// Pixels per row.
    pub width: u16,
    /// Number of rows.
    pub height: u16,
    /// Red, green and blue of each pixel, row by row.
    pub rgb: Vec<u8>,
}

impl Picture {
    /// Encodes the picture as PNG.
    ///
    /// # Errors
    /// [`Error::internal`] if the pixels do not match the size.
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
