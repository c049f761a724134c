//! Converts points of a slice to patient coordinates: millimetres, as decimal strings.

use dicom_core::Tag;
use dicom_dictionary_std::tags;

use super::contours::{PIXEL, Point};
use crate::dicom::attributes::keyword;
use crate::error::{Error, ErrorKind, Result};
use crate::writers::dicom::{Plane, SourceSlice};

/// Most digits after the decimal point. With the largest coordinate and its sign, they make 16
/// characters, the limit of a decimal string (PS3.5 6.2).
const MOST_DIGITS: u32 = 6;
/// Fewer digits would not save much.
const FEWEST_DIGITS: u32 = 3;
/// Coordinates must be below this, in millimetres.
const FARTHEST: f64 = 1e8;
/// Least number of steps of the last digit in the smallest pixel. Rounding then moves a point by less
/// than a fifth of the distance by which contours are closer to the inside pixels.
const STEPS_IN_PIXEL: f64 = 500.0;

/// The plane of a slice, for contour points.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ContourPlane {
    /// X, Y and Z of the patient (LPS, PS3.3 C.7.6.2.1.1).
    axes: [Coordinate; 3],
    digits: u32,
}

/// One coordinate of the points of a slice.
#[derive(Debug, Clone, PartialEq)]
enum Coordinate {
    /// The same for all points: the source's own string, so that readers that match contours to slices
    /// by it succeed.
    Fixed(String),
    /// In units of the last digit: the value at the centre of the first pixel, and the increments per
    /// 1/[`PIXEL`] of a column and of a row.
    Varying { first: f64, column: f64, row: f64 },
}

impl ContourPlane {
    /// Creates the plane of a slice of `columns` by `rows` pixels.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidImage`] if coordinates cannot be written as decimal strings, or not
    /// precisely enough for the pixels. The message names the instance and the attribute.
    pub fn of(slice: &SourceSlice, columns: usize, rows: usize) -> Result<Self> {
        let plane = Plane::of(slice)?;
        let fault = |tag: Tag, what: &str| {
            let uid = &slice.instance.sop_instance_uid;
            let message = format!(
                "{} of instance {uid}, frame {}, {what}: an RT Structure Set cannot hold its contours",
                keyword(tag),
                slice.frame + 1
            );
            Error::new(ErrorKind::InvalidImage, message)
                .with("sopInstanceUID", uid.as_str())
                .with("attribute", keyword(tag))
        };
        let position: [f64; 3] = numbers(&plane.position);
        let [ax, ay, az, bx, by, bz]: [f64; 6] = numbers(&plane.orientation);
        let [between_rows, between_columns]: [f64; 2] = numbers(&plane.spacing);
        let digits = digits(between_rows.min(between_columns))
            .ok_or_else(|| fault(tags::PIXEL_SPACING, "is not a size that pixels can have"))?;
        let unit = 10_f64.powi(digits as i32);
        let mut axes = Vec::with_capacity(3);
        let directions = [(ax, bx), (ay, by), (az, bz)];
        for ((first, (along_row, along_column)), text) in
            position.into_iter().zip(directions).zip(&plane.position)
        {
            let (column, row) = (along_row * between_columns, along_column * between_rows);
            let far = first.abs()
                + column.abs() * (columns as f64 + 1.0)
                + row.abs() * (rows as f64 + 1.0);
            if !far.is_finite() || far >= FARTHEST {
                return Err(fault(tags::IMAGE_POSITION_PATIENT, "is too far from the origin"));
            }
            let step = unit / f64::from(PIXEL);
            axes.push(if column == 0.0 && row == 0.0 && text.len() <= 16 {
                Coordinate::Fixed(text.clone())
            } else {
                Coordinate::Varying { first: first * unit, column: column * step, row: row * step }
            });
        }
        let axes = axes.try_into().map_err(|_| Error::internal("a plane without three axes"))?;
        Ok(Self { axes, digits })
    }

    /// Appends the coordinates of a point, each followed by a backslash. `corner` is the column and row
    /// of the pixel that the point is relative to.
    pub fn push(&self, [x, y]: Point, corner: [usize; 2], out: &mut Vec<u8>) {
        let from = |corner: usize| corner as f64 * f64::from(PIXEL);
        let (x, y) = (from(corner[0]) + f64::from(x), from(corner[1]) + f64::from(y));
        for axis in &self.axes {
            match axis {
                Coordinate::Fixed(text) => out.extend(text.as_bytes()),
                Coordinate::Varying { first, column, row } => {
                    push_decimal((first + column * x + row * y).round() as i64, self.digits, out);
                }
            }
            out.push(b'\\');
        }
    }
}

/// Parses texts that are known to be this many numbers.
fn numbers<const N: usize>(texts: &[String]) -> [f64; N] {
    let number = |text: &String| text.parse().unwrap_or(f64::NAN);
    std::array::from_fn(|i| texts.get(i).map_or(f64::NAN, number))
}

/// Returns the digits after the decimal point for pixels of this size in millimetres.
fn digits(pixel: f64) -> Option<u32> {
    (FEWEST_DIGITS..=MOST_DIGITS)
        .find(|&digits| pixel * 10_f64.powi(digits as i32) >= STEPS_IN_PIXEL)
}

/// Appends `value` / 10^`digits` without trailing zeros.
fn push_decimal(value: i64, digits: u32, out: &mut Vec<u8>) {
    let unit = 10_u64.pow(digits);
    if value < 0 {
        out.push(b'-');
    }
    let value = value.unsigned_abs();
    push_integer(value / unit, 1, out);
    let (mut fraction, mut digits) = (value % unit, digits);
    if fraction == 0 {
        return;
    }
    while fraction % 10 == 0 {
        (fraction, digits) = (fraction / 10, digits - 1);
    }
    out.push(b'.');
    push_integer(fraction, digits as usize, out);
}

/// Appends a number, zero-padded to a width.
fn push_integer(mut value: u64, width: usize, out: &mut Vec<u8>) {
    let mut text = [b'0'; 20];
    let mut used = 0;
    for digit in text.iter_mut().rev() {
        if value == 0 && used >= width {
            break;
        }
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
        used += 1;
    }
    out.extend(text.iter().skip(text.len() - used));
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use dicom_core::{DataElement, PrimitiveValue, VR};

    use super::*;
    use crate::dicom::{Dataset, FrameDescriptor, Instance};

    fn instance(position: [&str; 3], orientation: [&str; 6], spacing: [&str; 2]) -> Instance {
        let mut dataset = Dataset::new_empty();
        let mut put = |tag, values: &[&str]| {
            let values = PrimitiveValue::Strs(values.iter().map(|&v| v.to_owned()).collect());
            dataset.put(DataElement::new(tag, VR::DS, values));
        };
        put(tags::IMAGE_POSITION_PATIENT, &position);
        put(tags::IMAGE_ORIENTATION_PATIENT, &orientation);
        put(tags::PIXEL_SPACING, &spacing);
        Instance {
            dataset: Arc::new(dataset),
            sop_instance_uid: "1.2".to_owned(),
            sop_class_uid: "1.2.840.10008.5.1.4.1.1.2".to_owned(),
            transfer_syntax: "1.2.840.10008.1.2.1".to_owned(),
            frames: vec![FrameDescriptor::default()],
        }
    }

    const AXIAL: [&str; 6] = ["1", "0", "0", "0", "1", "0"];

    fn plane(
        position: [&str; 3],
        orientation: [&str; 6],
        spacing: [&str; 2],
    ) -> Result<ContourPlane> {
        let instance = instance(position, orientation, spacing);
        ContourPlane::of(&SourceSlice { instance: &instance, frame: 0 }, 512, 512)
    }

    fn text(plane: &ContourPlane, point: Point, corner: [usize; 2]) -> String {
        let mut out = Vec::new();
        plane.push(point, corner, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn rows_and_columns_have_their_spacing() {
        let plane = plane(["-100.50", "-90.250", "12.0"], AXIAL, ["0.75", "0.5"]).unwrap();
        // Coordinates that do not vary use the source's string.
        assert_eq!(text(&plane, [0, 0], [0, 0]), "-100.5\\-90.25\\12.0\\");
        assert_eq!(text(&plane, [2 * PIXEL, 0], [0, 0]), "-99.5\\-90.25\\12.0\\");
        assert_eq!(text(&plane, [99, -99], [2, 3]), "-99.253\\-88.371\\12.0\\");
    }

    #[test]
    fn oblique_points_lie_in_their_plane() {
        let orientation = ["0.8", "0.6", "0", "0", "0", "-1"];
        let plane = plane(["0", "10", "1e1"], orientation, ["2", "1"]).unwrap();
        assert_eq!(text(&plane, [PIXEL, PIXEL], [9, 1]), "8\\16\\6\\");
    }

    #[test]
    fn coordinates_fit_in_decimal_strings() {
        let far = ["-99999000.123456", "99999000", "-0.5"];
        let plane = plane(far, AXIAL, ["0.001", "0.001"]).unwrap();
        let text = text(&plane, [3, 4], [500, 7]);
        assert!(text.split('\\').all(|text| text.len() <= 16), "{text}");
        let numbers: Vec<f64> = text.split('\\').filter_map(|t| t.parse().ok()).collect();
        assert!((numbers[0] - (-99_999_000.123_456 + 0.001 * 500.015)).abs() < 1e-6, "{text}");
    }

    #[test]
    fn what_cannot_be_written_is_refused() {
        let far = plane(["1e9", "0", "0"], AXIAL, ["1", "1"]).unwrap_err();
        assert_eq!(far.kind(), ErrorKind::InvalidImage);
        assert_eq!(far.details()["attribute"], "ImagePositionPatient");
        for spacing in [["1", "1e-5"], ["0", "1"], ["-1", "1"]] {
            let small = plane(["0", "0", "0"], AXIAL, spacing).unwrap_err();
            assert_eq!(small.details()["attribute"], "PixelSpacing");
        }
        let long = plane(["0", "0", "-12.00000000000000012"], AXIAL, ["1", "1"]).unwrap();
        assert_eq!(text(&long, [0, 0], [0, 0]), "0\\0\\-12\\");
    }

    #[test]
    fn decimals_have_no_zeros_at_their_end() {
        let decimal = |value, digits| {
            let mut out = Vec::new();
            push_decimal(value, digits, &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(decimal(0, 3), "0");
        assert_eq!(decimal(-12_000, 3), "-12");
        assert_eq!(decimal(12_050, 3), "12.05");
        assert_eq!(decimal(-7, 6), "-0.000007");
        assert_eq!(decimal(99_999_999_999_999, 6), "99999999.999999");
    }
}
