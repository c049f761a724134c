//! Test images, and their encoder: `openjph-core` itself, which does not verify its output.

use std::panic::{AssertUnwindSafe, catch_unwind};

use ahi_inference::codec::{FrameFormat, Samples};
use openjph_core::codestream::Codestream;
use openjph_core::file::MemOutfile;
use openjph_core::{Point, Size};
use proptest::prelude::*;

/// An image and how to encode it.
#[derive(Debug, Clone)]
pub struct Image {
    pub format: FrameFormat,
    pub levels: u32,
    /// Exponents of the code-block sides.
    pub block: (u32, u32),
    pub progression: &'static str,
    /// Exponents of the precinct sides, if stated.
    pub precincts: Option<(u32, u32)>,
    /// Whether each resolution has its own tile-part, with a list of their lengths (TLM).
    pub is_divided: bool,
    pub content: Content,
    pub seed: u32,
}

/// What an image shows.
#[derive(Debug, Clone, Copy)]
pub enum Content {
    /// Any value at any pixel.
    Noise,
    /// A slow ramp with a little noise.
    Smooth,
    /// One value except for a few pixels.
    Sparse,
    /// Smallest and largest value in a checkerboard with squares of this many pixels a side.
    Extremes(u32),
    Constant,
}

/// Pseudo-random numbers, reproducible from their seed.
pub struct Random(pub u32);

impl Random {
    pub fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        // The lowest bits of such a generator have short periods.
        self.0 >> 8
    }
}

impl Image {
    /// Returns the smallest and largest value.
    fn range(&self) -> (i32, i32) {
        let values = 1 << self.format.bits_stored;
        if self.format.signed { (-values / 2, values / 2 - 1) } else { (0, values - 1) }
    }

    fn value(&self, x: u32, y: u32, random: &mut Random) -> i32 {
        let (low, high) = self.range();
        let span = (high - low + 1) as u32;
        let anything = (random.next() % span) as i32;
        low + match self.content {
            Content::Noise => anything,
            Content::Smooth => {
                let slope = self.seed % 7;
                let ramp = x * slope + y * (self.seed % 5) + random.next() % 3;
                (ramp * span.div_ceil(512) % span) as i32
            }
            Content::Sparse if random.next().is_multiple_of(50) => anything,
            Content::Extremes(side) if (x / side + y / side).is_multiple_of(2) => high - low,
            Content::Extremes(_) => 0,
            Content::Sparse | Content::Constant => (self.seed % span) as i32,
        }
    }

    pub fn pixels(&self) -> Vec<i32> {
        let mut random = Random(self.seed);
        let (columns, rows) = (self.format.columns, self.format.rows);
        let places = (0..rows).flat_map(|y| (0..columns).map(move |x| (x, y)));
        places.map(|(x, y)| self.value(x, y, &mut random)).collect()
    }

    pub fn samples(&self) -> Samples {
        let pixels = self.pixels().into_iter();
        if self.format.signed {
            Samples::I16(pixels.map(|v| v as i16).collect())
        } else {
            Samples::U16(pixels.map(|v| v as u16).collect())
        }
    }

    /// Encodes the image. Returns `None` if the encoder fails.
    pub fn encode(&self) -> Option<Vec<u8>> {
        self.encode_pixels(&self.pixels())
    }

    /// Encodes other pixels in place of the image's own.
    pub fn encode_pixels(&self, pixels: &[i32]) -> Option<Vec<u8>> {
        catch_unwind(AssertUnwindSafe(|| self.write(pixels).ok())).ok().flatten()
    }

    fn write(&self, pixels: &[i32]) -> openjph_core::Result<Vec<u8>> {
        let FrameFormat { rows, columns, bits_stored, signed, .. } = self.format;
        let mut coder = Codestream::new();
        let siz = coder.access_siz_mut();
        siz.set_image_extent(Point::new(columns, rows));
        siz.set_tile_size(Size::new(columns, rows));
        siz.set_num_components(1);
        siz.set_comp_info(0, Point::new(1, 1), bits_stored.into(), signed);
        let cod = coder.access_cod_mut();
        cod.set_num_decomposition(self.levels);
        cod.set_block_dims(1 << self.block.0, 1 << self.block.1);
        cod.set_reversible(true);
        cod.set_color_transform(false);
        cod.set_progression_order(self.progression)?;
        if let Some((x, y)) = self.precincts {
            let sizes = vec![Size::new(1 << x, 1 << y); self.levels as usize + 1];
            cod.set_precinct_size(sizes.len() as i32, &sizes);
        }
        coder.set_planar(0);
        if self.is_divided {
            coder.set_tilepart_divisions(1);
            coder.request_tlm_marker(true);
        }
        let mut file = MemOutfile::new();
        coder.write_headers(&mut file, &[])?;
        for line in pixels.chunks(columns as usize) {
            coder.exchange(line, 0)?;
        }
        coder.flush(&mut file)?;
        Ok(file.get_data().to_vec())
    }
}

/// Exponents of valid code-block sides.
fn blocks() -> impl Strategy<Value = (u32, u32)> {
    (2_u32..=10).prop_flat_map(|x| (Just(x), 2_u32..=(12 - x).min(10)))
}

fn contents() -> impl Strategy<Value = Content> {
    prop_oneof![
        2 => Just(Content::Noise),
        3 => Just(Content::Smooth),
        2 => Just(Content::Sparse),
        2 => (1_u32..6).prop_map(Content::Extremes),
        1 => Just(Content::Constant),
    ]
}

/// Images with sides of at most `most` pixels.
pub fn images(most: u32) -> impl Strategy<Value = Image> {
    let side = move || prop_oneof![1 => 1_u32..6, 3 => 1..=most];
    let depth = prop_oneof![3 => 8_u16..=16, 1 => 1_u16..8, 1 => Just(16_u16)];
    let progression = prop::sample::select(vec!["RPCL", "LRCP", "RLCP", "PCRL", "CPRL"]);
    let form = (side(), side(), depth, any::<bool>());
    let coding = (0_u32..=6, blocks(), progression, precincts(), prop::bool::weighted(0.2));
    (form, coding, contents(), any::<u32>()).prop_map(|(form, coding, content, seed)| {
        let (rows, columns, bits_stored, signed) = form;
        let (levels, block, progression, precincts, is_divided) = coding;
        // Occasionally one level more than the sides allow.
        let levels = levels.min(rows.min(columns).ilog2() + u32::from(seed.is_multiple_of(16)));
        let format =
            FrameFormat { rows, columns, bits_allocated: 16, bits_stored, signed, float: false };
        Image { format, levels, block, progression, precincts, is_divided, content, seed }
    })
}

/// Exponents of precinct sides that cover a whole image of 256 pixels. `openjph-core` 0.1.0 writes the packets
/// of such precincts only.
fn precincts() -> impl Strategy<Value = Option<(u32, u32)>> {
    prop_oneof![3 => Just(None), 1 => (8_u32..12, 8_u32..12).prop_map(Some)]
}
