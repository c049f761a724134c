//! Magnitudes and signs of the cleanup pass (ISO/IEC 15444-15 sections 7.3.7 and 7.3.8), portably:
//! the reference for the kernels of specific processors.

use super::fault::Fault;
use super::segment::{MAGNITUDE_BYTES, Magnitudes};
use super::vlc::{Quads, Shape};

pub(super) const EXPONENT: Fault = Fault("a code-block has an exponent out of range");

/// Bottom samples of a row of quads, in the form that the exponents of the row below need: v | 1 if
/// a sample is significant, else 0. One padding sample precedes the first, and several follow the
/// last.
pub(super) struct Bottoms<T> {
    values: Vec<T>,
}

/// Padding samples before the first of a row of bottom samples.
pub(super) const BEFORE: usize = 1;
/// Samples of the widest block, plus what a kernel may write past them.
const MOST_BOTTOMS: usize = BEFORE + 1024 + 64;

impl<T: Copy + Default> Bottoms<T> {
    pub fn new() -> Self {
        Self { values: vec![T::default(); MOST_BOTTOMS] }
    }

    pub fn clear(&mut self) {
        self.values.fill(T::default());
    }

    #[cfg(target_arch = "x86_64")]
    pub fn values(&mut self) -> &mut [T] {
        &mut self.values
    }
}

/// The inputs that magnitudes and signs are decoded from.
#[derive(Clone, Copy)]
pub(super) struct Coded<'a> {
    pub quads: &'a Quads,
    pub shape: Shape,
    pub flat: &'a Magnitudes,
    /// The largest possible exponent, 31 at most.
    pub most: u32,
}

/// Decodes magnitudes (bits 0 to 30) and signs (bit 31) in rows of `stride` samples (even), in
/// whole quads even if the block's width or height is odd. Returns the number of bits consumed,
/// which may exceed the number available.
#[inline(always)]
pub(super) fn decode(
    coded: Coded<'_>,
    bottoms: &mut Bottoms<u32>,
    out: &mut [u32],
    stride: usize,
) -> Result<usize, Fault> {
    let Coded { quads, shape, flat, most } = coded;
    bottoms.clear();
    let mut position = 0;
    for row in 0..shape.rows() {
        let (patterns, residuals) = quads.row(row, &shape);
        let (top, bottom) = out[2 * row * stride..][..2 * stride].split_at_mut(stride);
        // The old bottom sample at the left, which this row has overwritten.
        let mut left = 0;
        for quad in 0..shape.quads() {
            let pattern = patterns[quad / 2] >> (16 * (quad & 1));
            let residual = u32::from(residuals[quad / 2]) >> (8 * (quad & 1)) & 0xFF;
            let rho = pattern & 0xF;
            let below = &mut bottoms.values[BEFORE + 2 * quad..BEFORE + 2 * quad + 3];
            let around = left | below[0] | below[1] | below[2];
            left = below[1];
            let kappa = if row > 0 && rho & rho.wrapping_sub(1) != 0 {
                (31 - (around | 1).leading_zeros()).max(1)
            } else {
                1
            };
            let exponent = residual + kappa;
            if exponent > most && rho != 0 {
                return Err(EXPONENT);
            }
            let mut values = [0; 4];
            for (n, value) in values.iter_mut().enumerate() {
                if rho >> n & 1 == 1 {
                    let length = exponent - (pattern >> (4 + n) & 1);
                    let bits = load(flat, position) & ((1_u64 << length) - 1);
                    position += length as usize;
                    *value = 1 | (bits as u32 | (pattern >> (8 + n) & 1) << length) << 1;
                }
            }
            // Bit 0: significance; bit 1: the sign; above: the magnitude minus 1.
            let sample = |v: u32| if v == 0 { 0 } else { ((v >> 2) + 1) | ((v & 2) << 30) };
            let x = 2 * quad;
            (top[x], bottom[x]) = (sample(values[0]), sample(values[1]));
            (top[x + 1], bottom[x + 1]) = (sample(values[2]), sample(values[3]));
            (below[0], below[1]) = (values[1] >> 1 | values[1] & 1, values[3] >> 1 | values[3] & 1);
        }
    }
    Ok(position)
}

#[inline(always)]
fn load(flat: &Magnitudes, position: usize) -> u64 {
    let at = (position >> 3) & (MAGNITUDE_BYTES - 1);
    let bytes = flat.bytes[at..at + 8].first_chunk().copied().unwrap_or_default();
    u64::from_le_bytes(bytes) >> (position & 7)
}
