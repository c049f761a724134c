//! Converts stored values to physical ones: `stored · RescaleSlope + RescaleIntercept`, computed in
//! f64 and rounded once to f32.

use super::Slice;
use crate::codec::Samples;

/// Whole numbers up to this magnitude are exact in f32, as are sums and products that stay below
/// it.
const EXACT: f64 = (1 << 24) as f64;

/// Writes the pixels in physical units to `target`.
pub(super) fn fill(samples: &Samples, slice: &Slice, target: &mut [f32]) {
    match (samples, whole(slice)) {
        (Samples::I16(v), Some(by)) => fill_whole(v, by, target),
        (Samples::U16(v), Some(by)) => fill_whole(v, by, target),
        _ => each(samples, slice, |out, value| *out = value, target),
    }
}

/// Blends the pixels in physical units into `target` with the given `weight`.
pub(super) fn mix(samples: &Samples, slice: &Slice, weight: f32, target: &mut [f32]) {
    each(samples, slice, |out, value| *out += (value - *out) * weight, target);
}

/// Returns slope and intercept if they are whole numbers and so small that 16-bit pixels result in
/// whole numbers that f32 holds exactly: 32-bit integer arithmetic then gives identical values in a
/// quarter of the time.
pub(super) fn whole(slice: &Slice) -> Option<(i32, i32)> {
    let (slope, intercept) = slice.rescale;
    let most = slope.abs() * f64::from(u16::MAX) + intercept.abs();
    // An intercept of minus zero could result in minus zero, which integers cannot represent.
    let is_whole = slope.fract() == 0.0 && intercept.fract() == 0.0 && most < EXACT;
    (is_whole && slope != 0.0 && !(intercept == 0.0 && intercept.is_sign_negative()))
        .then_some((slope as i32, intercept as i32))
}

fn fill_whole<T: Copy + Into<i32>>(
    stored: &[T],
    (slope, intercept): (i32, i32),
    target: &mut [f32],
) {
    // CT's slope is 1: skips the product, for which baseline x86-64 has no vector instruction.
    if slope == 1 {
        for (out, &v) in target.iter_mut().zip(stored) {
            *out = (v.into() + intercept) as f32;
        }
    } else {
        for (out, &v) in target.iter_mut().zip(stored) {
            *out = (v.into() * slope + intercept) as f32;
        }
    }
}

/// Writes how far each pixel's physical value lies above `low`, modulo 2¹⁶. Returns false if the pixels are not
/// 16-bit numbers whose physical values are whole.
pub(super) fn offsets(samples: &Samples, slice: &Slice, low: i32, target: &mut [u16]) -> bool {
    fn run<T: Copy>(stored: &[T], bits: impl Fn(T) -> u16, by: [u16; 2], target: &mut [u16]) {
        let [slope, intercept] = by;
        for (out, &v) in target.iter_mut().zip(stored) {
            *out = bits(v).wrapping_mul(slope).wrapping_add(intercept);
        }
    }
    let Some((slope, intercept)) = whole(slice) else { return false };
    // Modulo 2¹⁶, products and sums need no more than the lowest 16 bits of each number.
    let by = [slope, intercept.wrapping_sub(low)].map(|n| n as u16);
    match samples {
        Samples::I16(v) => run(v, |v| v as u16, by, target),
        Samples::U16(v) => run(v, |v| v, by, target),
        _ => return false,
    }
    true
}

/// Calls `put` with each element of `target` and the pixel's physical value.
fn each(samples: &Samples, slice: &Slice, put: impl Fn(&mut f32, f32) + Copy, target: &mut [f32]) {
    fn run<T: Copy + Into<f64>>(
        stored: &[T],
        to_physical: impl Fn(f64) -> f32,
        put: impl Fn(&mut f32, f32),
        target: &mut [f32],
    ) {
        for (out, &v) in target.iter_mut().zip(stored) {
            put(out, to_physical(v.into()));
        }
    }
    let to_physical = |stored| slice.physical(stored);
    match samples {
        Samples::I16(v) => run(v, to_physical, put, target),
        Samples::U16(v) => run(v, to_physical, put, target),
        Samples::I32(v) => run(v, to_physical, put, target),
        Samples::U32(v) => run(v, to_physical, put, target),
        Samples::F32(v) => run(v, to_physical, put, target),
        Samples::F64(v) => run(v, to_physical, put, target),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::codec::FrameFormat;
    use crate::dicom::FrameKey;

    fn slice(rescale: (f64, f64)) -> Slice {
        let format = FrameFormat {
            rows: 1,
            columns: 1,
            bits_allocated: 16,
            bits_stored: 16,
            signed: true,
            float: false,
        };
        Slice { key: FrameKey { instance: 0, frame: 0 }, rescale, format }
    }

    #[test]
    fn which_rescales_are_whole() {
        for rescale in [(1.0, -1024.0), (-1.0, 0.0), (3.0, 7.0), (256.0, 12.0)] {
            assert!(whole(&slice(rescale)).is_some(), "{rescale:?}");
        }
        for rescale in [
            (1.5, 0.0),
            (1.0, 0.5),
            (0.0, 3.0),
            (1.0, -0.0),
            (257.0, 0.0),
            (1.0, 1e9),
            (f64::NAN, 0.0),
            (1.0, f64::INFINITY),
            (f64::MAX, 0.0),
        ] {
            assert!(whole(&slice(rescale)).is_none(), "{rescale:?}");
        }
    }

    proptest! {
        /// Integer arithmetic gives the same bits as f64.
        #[test]
        fn the_fast_way_is_the_exact_way(
            slope in prop_oneof![Just(1.0), Just(-1.0), (-300i32..300).prop_map(f64::from), -3.0..3.0f64],
            intercept in prop_oneof![
                Just(0.0), Just(-0.0), (-70_000i32..70_000).prop_map(f64::from), -9.0..9.0f64,
            ],
            some in prop::collection::vec(any::<u16>(), 1..40),
        ) {
            let slice = slice((slope, intercept));
            let mut unsigned = vec![0, u16::MAX, 1 << 15];
            unsigned.extend(some);
            let signed = unsigned.iter().map(|&v| v as i16).collect();
            for samples in [Samples::U16(unsigned), Samples::I16(signed)] {
                let (mut fast, mut exact) = (vec![0.0; samples.len()], vec![0.0; samples.len()]);
                fill(&samples, &slice, &mut fast);
                each(&samples, &slice, |out, value| *out = value, &mut exact);
                let bits = |v: &[f32]| v.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                prop_assert_eq!(bits(&fast), bits(&exact));
                let low = -40_000;
                let mut offsets = vec![0; samples.len()];
                if super::offsets(&samples, &slice, low, &mut offsets) {
                    let expected: Vec<_> = exact.iter().map(|v| (*v as i32 - low) as u16).collect();
                    prop_assert_eq!(offsets, expected);
                } else {
                    prop_assert!(whole(&slice).is_none());
                }
            }
        }
    }
}
