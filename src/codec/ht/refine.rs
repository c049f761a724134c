//! The significance propagation and magnitude refinement passes (ISO/IEC 15444-15 sections 7.4 and
//! 7.5). Portable code only, because encoders of lossless images do not write these passes.

use super::fault::Fault;
use super::segment::STUFFING;
use super::vlc::Shape;

/// Rows of a stripe, and columns of a group within it.
const STRIPE: usize = 4;

/// Refines samples of magnitude and sign (bit 31), in rows of `stride`, by the bit-plane below
/// `plane`. `plane` is the lowest bit-plane of the cleanup pass, at least 1, counted from bit 0 of
/// the image's magnitudes.
pub(super) fn refine(
    samples: &mut [u32],
    shape: Shape,
    stride: usize,
    plane: u32,
    segment: &[u8],
    with_magnitudes: bool,
) -> Result<(), Fault> {
    let significant: Vec<bool> = padded(samples, shape, stride);
    let mut is_sound = propagate(samples, &significant, shape, stride, plane, segment);
    if with_magnitudes {
        let mut bits = Backward::new(segment);
        let half = 1 << (plane - 1) >> 1;
        // Clears the middle of the interval, to be replaced by the bit and a new middle.
        let keep = !(3 << (plane - 1) >> 1);
        for (x, y) in scan(shape) {
            if significant[place(x, y, shape)] {
                let sample = &mut samples[y * stride + x];
                *sample = *sample & keep | bits.bit() << (plane - 1) | half;
            }
        }
        is_sound &= bits.is_sound;
    }
    if is_sound { Ok(()) } else { Err(STUFFING) }
}

/// Index of a sample in a list with a border of one.
fn place(x: usize, y: usize, shape: Shape) -> usize {
    (y + 1) * (shape.width + 2) + x + 1
}

/// Which samples are significant, with a border of insignificant ones.
fn padded(samples: &[u32], shape: Shape, stride: usize) -> Vec<bool> {
    let mut list = vec![false; (shape.width + 2) * (shape.height + 2)];
    for (x, y) in scan(shape) {
        list[place(x, y, shape)] = samples[y * stride + x] != 0;
    }
    list
}

/// Coordinates of all samples, by stripes of four rows, then columns.
fn scan(shape: Shape) -> impl Iterator<Item = (usize, usize)> {
    (0..shape.height).step_by(STRIPE).flat_map(move |top| {
        let bottom = (top + STRIPE).min(shape.height);
        (0..shape.width).flat_map(move |x| (top..bottom).map(move |y| (x, y)))
    })
}

/// Runs the significance propagation pass. Returns whether no stuffing bit was set.
fn propagate(
    samples: &mut [u32],
    significant: &[bool],
    shape: Shape,
    stride: usize,
    plane: u32,
    segment: &[u8],
) -> bool {
    let mut bits =
        Forward { bytes: segment.iter(), window: 0, left: 0, full: false, is_sound: true };
    let mut known = significant.to_vec();
    let value = 1 << (plane - 1) | 1 << (plane - 1) >> 1;
    let row = shape.width + 2;
    for top in (0..shape.height).step_by(STRIPE) {
        let bottom = (top + STRIPE).min(shape.height);
        for left in (0..shape.width).step_by(STRIPE) {
            let right = (left + STRIPE).min(shape.width);
            let mut found = Vec::with_capacity(STRIPE * STRIPE);
            for (x, y) in (left..right).flat_map(|x| (top..bottom).map(move |y| (x, y))) {
                let at = place(x, y, shape);
                let near = [at - row, at, at + row];
                let is_near = near.iter().any(|&n| known[n - 1] || known[n] || known[n + 1]);
                if !known[at] && is_near && bits.bit() == 1 {
                    known[at] = true;
                    found.push((x, y));
                }
            }
            // A group's signs follow all its significance bits.
            for (x, y) in found {
                samples[y * stride + x] = value | bits.bit() << 31;
            }
        }
    }
    bits.is_sound
}

/// Bits of the significance propagation pass, from the lowest bit of the first byte; zeros follow
/// the last.
struct Forward<'a> {
    bytes: std::slice::Iter<'a, u8>,
    window: u8,
    left: u32,
    full: bool,
    /// No stuffing bit has been set so far.
    is_sound: bool,
}

impl Forward<'_> {
    fn bit(&mut self) -> u32 {
        if self.left == 0 {
            self.window = self.bytes.next().copied().unwrap_or(0);
            self.left = if self.full { 7 } else { 8 };
            self.is_sound &= !(self.full && self.window > 0x7F);
            self.full = self.window == 0xFF;
        }
        let bit = self.window & 1;
        self.window >>= 1;
        self.left -= 1;
        bit.into()
    }
}

/// Bits of the magnitude refinement pass, from the lowest bit of the last byte; zeros follow the
/// first byte.
struct Backward<'a> {
    bytes: std::iter::Rev<std::slice::Iter<'a, u8>>,
    window: u8,
    left: u32,
    above: bool,
    /// No stuffing bit has been set so far.
    is_sound: bool,
}

impl<'a> Backward<'a> {
    fn new(segment: &'a [u8]) -> Self {
        Self { bytes: segment.iter().rev(), window: 0, left: 0, above: true, is_sound: true }
    }

    fn bit(&mut self) -> u32 {
        if self.left == 0 {
            let byte = self.bytes.next().copied().unwrap_or(0);
            self.left = if self.above && byte & 0x7F == 0x7F { 7 } else { 8 };
            self.is_sound &= !(self.left == 7 && byte > 0x7F);
            self.above = byte > 0x8F;
            self.window = byte;
        }
        let bit = self.window & 1;
        self.window >>= 1;
        self.left -= 1;
        bit.into()
    }
}
