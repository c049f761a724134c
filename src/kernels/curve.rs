//! Activation functions in f32, without calls or branches, so that loops over them are vectorised.
//! Their error is below 2.5e-7: relative for [`exp`], absolute for the others.

use std::f32::consts::LOG2_E;

/// 1.5 × 2²³: adding and subtracting it rounds to a whole number.
const ROUNDING: f32 = 12_582_912.0;

/// Returns eˣ: 0 below about −87.3, the largest finite value above about 88.3, NaN for NaN.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    // ln 2 in two parts, so that the product of a whole number with the first is exact.
    const HIGH: f32 = 355.0 / 512.0;
    const LOW: f32 = -2.121_944_4e-4;
    let clamped = if x > 88.3 { 88.3 } else { x };
    let shifted = clamped * LOG2_E + ROUNDING;
    let whole = shifted - ROUNDING;
    let r = (clamped - whole * HIGH) - whole * LOW;
    // The Taylor series: |r| is at most ln 2 / 2, and the first omitted term is below 4e-8 of the
    // result.
    let p = 1.0 / 720.0;
    let p = p * r + 1.0 / 120.0;
    let p = p * r + 1.0 / 24.0;
    let p = p * r + 1.0 / 6.0;
    let p = p * r + 0.5;
    let p = (p * r) * r + r + 1.0;
    // The whole number is in the low bits of the sum.
    let power = f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
    if x < -87.3 { 0.0 } else { p * power }
}

/// Returns 1 / (1 + e⁻ˣ).
#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// Returns (eˣ − 1) / (eˣ + 1) = tanh(x / 2), with the sign of `x`.
#[inline(always)]
pub(crate) fn half_tanh(x: f32) -> f32 {
    let e = exp(-x.abs());
    let far = (1.0 - e) / (1.0 + e);
    // Near 0, the difference above would cancel, so use the series: x/2 − x³/24 + x⁵/240.
    let square = x * x;
    let near = x.abs() * (0.5 - square * (1.0 / 24.0 - square * (1.0 / 240.0)));
    let size = if square < 0.04 { near } else { far };
    size.copysign(x)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn curves_are_what_they_are_called(x in -120f32..120.0, small in -0.5f32..0.5) {
            for x in [x, small, small * 1e-6] {
                let exact = f64::from(x).exp();
                if (-87.3..88.2).contains(&x) {
                    prop_assert!((f64::from(exp(x)) / exact - 1.0).abs() < 2.5e-7, "exp {x}");
                }
                let exact = 1.0 / (1.0 + (-f64::from(x)).exp());
                prop_assert!((f64::from(sigmoid(x)) - exact).abs() < 2.5e-7, "sigmoid {x}");
                let exact = (f64::from(x) / 2.0).tanh();
                prop_assert!((f64::from(half_tanh(x)) - exact).abs() < 2.5e-7, "tanh {x}");
                prop_assert!(half_tanh(x) * x >= 0.0);
            }
        }
    }

    #[test]
    fn ends() {
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(f32::INFINITY) > 2e38 && exp(f32::INFINITY).is_finite());
        assert!(
            exp(f32::NAN).is_nan() && sigmoid(f32::NAN).is_nan() && half_tanh(f32::NAN).is_nan()
        );
        assert_eq!(sigmoid(f32::INFINITY), 1.0);
        assert_eq!(half_tanh(f32::NEG_INFINITY), -1.0);
        assert_eq!(half_tanh(0.0), 0.0);
    }
}
