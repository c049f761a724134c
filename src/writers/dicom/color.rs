//! Recommended display colours as DICOM encodes them (PS3.3 C.10.7.1.1): CIELab with the white
//! point D50, the profile connection space of ICC.

use crate::dicom::segment::SegmentDescription;

/// Easily distinguishable colours for segments that have none.
const DISTINCT: [[u8; 3]; 12] = [
    [230, 60, 60],
    [70, 180, 80],
    [70, 110, 230],
    [245, 200, 60],
    [160, 80, 200],
    [70, 200, 210],
    [240, 140, 60],
    [230, 110, 190],
    [150, 210, 70],
    [140, 110, 80],
    [120, 140, 160],
    [40, 140, 130],
];

/// Returns the colour for the segment at this index, if it has none.
pub(in crate::writers) fn distinct(index: usize) -> [u8; 3] {
    DISTINCT[index % DISTINCT.len()]
}

/// Returns a segment's colour in sRGB, the same in every output. `index` is its position in the
/// descriptions.
pub fn display_color(segment: &SegmentDescription, index: usize) -> [u8; 3] {
    segment.color.unwrap_or_else(|| distinct(index))
}

/// Converts sRGB to the three 16-bit values of Recommended Display CIELab Value (0062,000D): L* from 0
/// to 100 and a* and b* from -128 to 127, each scaled to 0 to 65535.
pub(in crate::writers) fn cielab([red, green, blue]: [u8; 3]) -> [u16; 3] {
    // IEC 61966-2-1, then its primaries adapted to D50 by Bradford's method.
    let linear = |c: u8| {
        let c = f64::from(c) / 255.0;
        if c <= 0.040_45 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) }
    };
    let (r, g, b) = (linear(red), linear(green), linear(blue));
    let x = 0.436_074_7 * r + 0.385_064_9 * g + 0.143_080_4 * b;
    let y = 0.222_504_5 * r + 0.716_878_6 * g + 0.060_616_9 * b;
    let z = 0.013_932_2 * r + 0.097_104_5 * g + 0.714_173_3 * b;

    let f = |t: f64| {
        if t > (6.0_f64 / 29.0).powi(3) {
            t.cbrt()
        } else {
            t * (29.0_f64 / 6.0).powi(2) / 3.0 + 4.0 / 29.0
        }
    };
    let (fx, fy, fz) = (f(x / 0.964_22), f(y), f(z / 0.825_21));
    let (l, a, b) = (116.0 * fy - 16.0, 500.0 * (fx - fy), 200.0 * (fy - fz));
    let scaled = |value: f64, low: f64, range: f64| {
        ((value - low) / range * 65535.0).round().clamp(0.0, 65535.0) as u16
    };
    [scaled(l, 0.0, 100.0), scaled(a, -128.0, 255.0), scaled(b, -128.0, 255.0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_colours() {
        assert_eq!(cielab([0, 0, 0]), [0, 32896, 32896]);
        let [l, a, b] = cielab([255, 255, 255]);
        assert!(l >= 65530 && a.abs_diff(32896) < 8 && b.abs_diff(32896) < 8, "{l} {a} {b}");
        // Pure red in D50: L* 54.29, a* 80.81, b* 69.89.
        let [l, a, b] = cielab([255, 0, 0]).map(f64::from);
        assert!((l / 655.35 - 54.29).abs() < 0.05, "{l}");
        assert!((a / 257.0 - 128.0 - 80.81).abs() < 0.05, "{a}");
        assert!((b / 257.0 - 128.0 - 69.89).abs() < 0.05, "{b}");
    }
}
