//! A pixel canvas with text.

use std::convert::Infallible;

use embedded_graphics::Drawable;
use embedded_graphics::Pixel;
use embedded_graphics::draw_target::DrawTarget;
use embedded_graphics::geometry::{OriginDimensions, Point, Size};
use embedded_graphics::mono_font::iso_8859_1::FONT_7X13;
use embedded_graphics::mono_font::{MonoFont, MonoTextStyle};
use embedded_graphics::pixelcolor::{Rgb888, RgbColor};
use embedded_graphics::text::{Baseline, Text};

use super::picture::Picture;

/// The Latin-1 font; characters that it lacks are shown as a question mark.
const FONT: &MonoFont = &FONT_7X13;
/// Size of a character in pixels.
pub(super) const CHARACTER: [usize; 2] = [7, 13];

/// A picture being drawn.
pub(super) struct Canvas {
    width: usize,
    height: usize,
    pixels: Vec<[u8; 3]>,
}

impl Canvas {
    /// Creates a canvas filled with the background.
    pub fn new(width: usize, height: usize, background: [u8; 3]) -> Self {
        Self { width, height, pixels: vec![background; width * height] }
    }

    /// Draws rows of `width` pixels, with values from 0 to 1, with the upper left corner at (`x`, `y`).
    pub fn put(&mut self, [x, y]: [usize; 2], pixels: &[[f32; 3]], width: usize) {
        for (row, pixels) in pixels.chunks(width.max(1)).enumerate() {
            for (column, pixel) in pixels.iter().enumerate() {
                let color = pixel.map(|c| (c * 255.0).round().clamp(0.0, 255.0) as u8);
                self.set(x + column, y + row, color);
            }
        }
    }

    /// Fills a rectangle.
    pub fn fill(&mut self, [x, y]: [usize; 2], [width, height]: [usize; 2], color: [u8; 3]) {
        for row in y..y + height {
            for column in x..x + width {
                self.set(column, row, color);
            }
        }
    }

    /// Draws a line of text with its upper left corner at (`x`, `y`).
    pub fn text(&mut self, [x, y]: [usize; 2], text: &str, [r, g, b]: [u8; 3]) {
        let style = MonoTextStyle::new(FONT, Rgb888::new(r, g, b));
        let at = Point::new(x.min(1 << 16) as i32, y.min(1 << 16) as i32);
        // Drawing on this canvas cannot fail.
        let Ok(_) = Text::with_baseline(text, at, style, Baseline::Top).draw(self);
    }

    /// Draws a line of text over an image, with a shadow for contrast.
    pub fn label(&mut self, [x, y]: [usize; 2], text: &str, color: [u8; 3]) {
        for [dx, dy] in [[0, 1], [2, 1], [1, 0], [1, 2]] {
            self.text([(x + dx).saturating_sub(1), (y + dy).saturating_sub(1)], text, [0; 3]);
        }
        self.text([x, y], text, color);
    }

    /// Returns the picture.
    pub fn finish(self) -> Picture {
        let size = |n: usize| u16::try_from(n).unwrap_or(u16::MAX);
        let rgb = self.pixels.into_flattened();
        Picture { width: size(self.width), height: size(self.height), rgb }
    }

    fn set(&mut self, x: usize, y: usize, color: [u8; 3]) {
        if x < self.width
            && let Some(pixel) = self.pixels.get_mut(y * self.width + x)
        {
            *pixel = color;
        }
    }
}

impl OriginDimensions for Canvas {
    fn size(&self) -> Size {
        Size::new(self.width as u32, self.height as u32)
    }
}

impl DrawTarget for Canvas {
    type Color = Rgb888;
    type Error = Infallible;

    fn draw_iter<I>(&mut self, pixels: I) -> Result<(), Infallible>
    where
        I: IntoIterator<Item = Pixel<Rgb888>>,
    {
        for Pixel(Point { x, y }, color) in pixels {
            if let (Ok(x), Ok(y)) = (usize::try_from(x), usize::try_from(y)) {
                self.set(x, y, [color.r(), color.g(), color.b()]);
            }
        }
        Ok(())
    }
}
