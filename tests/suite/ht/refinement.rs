//! An encoder of the significance propagation and magnitude refinement passes (ISO/IEC 15444-15 sections 7.4 and
//! 7.5), which no available encoder writes. It encodes images of a single block.

use ahi_inference::codec::Samples;
use ahi_inference::codec::plain::Plain;

use super::images::Image;

/// Encodes `coefficients` in 2 or 3 `passes`: the cleanup pass ends at bit-plane `plane`, the others at the one
/// below. Returns `None` if the cleanup pass cannot be encoded.
pub fn stream(image: &Image, coefficients: &[i32], plane: u32, passes: u32) -> Option<Plain> {
    let upper: Vec<i32> = coefficients.iter().map(|c| c.signum() * (c.abs() >> plane)).collect();
    let data = image.encode_pixels(&upper)?;
    let mut stream = Plain::read(&data, &image.format).ok()??;
    let [Some(block)] = &mut stream.blocks[..] else { return None };
    // The encoder placed the shifted coefficients at bit-plane 0.
    block.skipped = block.skipped.checked_sub(plane)?;
    block.passes = passes;
    block.refinement = refinement(coefficients, image.format.columns as usize, plane, passes);
    Some(stream)
}

/// Returns the decoder's reconstruction: the midpoint of each coefficient's interval, rounded down to an
/// integer.
pub fn expected(coefficients: &[i32], width: usize, plane: u32, passes: u32) -> Samples {
    let found = Passes::of(coefficients, width, plane).found;
    let value = |n: usize| {
        let coefficient = coefficients[n];
        let magnitude = coefficient.unsigned_abs();
        let known = if magnitude >> plane != 0 {
            // The refinement pass, if present, adds one bit.
            if passes > 2 { plane - 1 } else { plane }
        } else if found[n] {
            plane - 1
        } else {
            return 0;
        };
        let middle = if known > 0 { 1 << (known - 1) } else { 0 };
        (((magnitude >> known) << known) | middle) as i16 * coefficient.signum() as i16
    };
    Samples::I16((0..coefficients.len()).map(value).collect())
}

fn refinement(coefficients: &[i32], width: usize, plane: u32, passes: u32) -> Vec<u8> {
    let coded = Passes::of(coefficients, width, plane);
    let mut bytes = forward(&coded.propagation);
    if passes > 2 {
        bytes.extend(backward(&coded.refinement).into_iter().rev());
    }
    // A pass has at least one byte.
    if bytes.is_empty() { vec![0] } else { bytes }
}

/// The bits of both passes.
struct Passes {
    propagation: Vec<u8>,
    refinement: Vec<u8>,
    /// Coefficients that the propagation pass finds significant.
    found: Vec<bool>,
}

impl Passes {
    fn of(coefficients: &[i32], width: usize, plane: u32) -> Self {
        let height = coefficients.len() / width;
        let cleaned: Vec<bool> = coefficients.iter().map(|c| c.abs() >> plane != 0).collect();
        let bit = |n: usize| (coefficients[n].abs() >> (plane - 1) & 1) as u8;
        let mut coded =
            Self { propagation: vec![], refinement: vec![], found: vec![false; cleaned.len()] };
        for top in (0..height).step_by(4) {
            for left in (0..width).step_by(4) {
                let mut signs = Vec::new();
                for x in left..width.min(left + 4) {
                    for y in top..height.min(top + 4) {
                        let n = y * width + x;
                        let is_known = |n: usize| cleaned[n] || coded.found[n];
                        if is_known(n) || !neighbours(x, y, width, height).any(is_known) {
                            continue;
                        }
                        coded.propagation.push(bit(n));
                        if bit(n) == 1 {
                            coded.found[n] = true;
                            signs.push(u8::from(coefficients[n] < 0));
                        }
                    }
                }
                coded.propagation.extend(signs);
            }
            for x in 0..width {
                let rows = (top..height.min(top + 4)).map(|y| y * width + x);
                coded.refinement.extend(rows.filter(|&n| cleaned[n]).map(bit));
            }
        }
        coded
    }
}

/// Returns the indices of the coefficients around one.
fn neighbours(x: usize, y: usize, width: usize, height: usize) -> impl Iterator<Item = usize> {
    let rows = y.saturating_sub(1)..height.min(y + 2);
    rows.flat_map(move |v| (x.saturating_sub(1)..width.min(x + 2)).map(move |u| v * width + u))
        .filter(move |&n| n != y * width + x)
}

/// Packs bits into bytes, lowest bit first. `is_short` receives the previous byte and the next seven bits, and
/// returns whether the byte has no eighth bit (bit stuffing).
fn pack(bits: &[u8], first: u8, is_short: impl Fn(u8, u8) -> bool) -> Vec<u8> {
    let (mut bytes, mut rest, mut last) = (Vec::new(), bits, first);
    while !rest.is_empty() {
        let take = |count: usize| {
            rest.iter().take(count).enumerate().fold(0, |byte, (n, bit)| byte | (bit << n))
        };
        let count = if is_short(last, take(7)) { 7 } else { 8 };
        last = take(count);
        bytes.push(last);
        rest = rest.get(count..).unwrap_or_default();
    }
    bytes
}

fn forward(bits: &[u8]) -> Vec<u8> {
    let mut bytes = pack(bits, 0, |last, _| last == 0xFF);
    if bytes.last() == Some(&0xFF) {
        bytes.push(0);
    }
    bytes
}

fn backward(bits: &[u8]) -> Vec<u8> {
    pack(bits, 0xFF, |last, next| last > 0x8F && next == 0x7F)
}
