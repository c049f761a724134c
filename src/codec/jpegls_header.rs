//! The part of a JPEG-LS image before the coded samples (ITU-T T.87 annex C).

use super::{FrameFormat, corrupt, jpeg_segment};
use crate::error::{Error, ErrorKind, Result};

const SOI: u8 = 0xD8;
const SOS: u8 = 0xDA;
const DRI: u8 = 0xDD;
const SOF55: u8 = 0xF7;
const LSE: u8 = 0xF8;
/// End of image marker.
pub(super) const EOI: u8 = 0xD9;

pub(super) fn truncated() -> Error {
    corrupt("JPEG-LS image is truncated")
}

fn unsupported(what: &str) -> Error {
    Error::new(ErrorKind::UnsupportedPixelData, format!("JPEG-LS with {what} is not supported"))
}

/// The parameters and position of the coded samples.
pub(super) struct Header<'a> {
    pub parameters: Parameters,
    /// The coded samples and the bytes after them.
    pub scan: &'a [u8],
}

/// Coding parameters (C.2.4.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Parameters {
    /// Largest sample.
    pub max: i32,
    /// Maximum error of a decoded sample.
    pub near: i32,
    /// T1, T2 and T3.
    pub thresholds: [i32; 3],
    /// Number of occurrences at which counters are halved.
    pub reset: i32,
}

impl<'a> Header<'a> {
    /// Reads the marker segments and compares the frame header with the DICOM header.
    pub fn read(data: &'a [u8], format: &FrameFormat) -> Result<Self> {
        let padding = data.iter().rev().take_while(|&&b| b == 0).count();
        let image = &data[..data.len() - padding];
        if !image.starts_with(&[0xFF, SOI]) {
            return Err(corrupt("does not start as a JPEG-LS image"));
        }
        if !image.ends_with(&[0xFF, EOI]) {
            return Err(truncated());
        }
        let mut rest = &image[2..];
        let (mut precision, mut preset) = (None, [0; 5]);
        loop {
            let (&[prefix, marker], after) = rest.split_first_chunk().ok_or_else(truncated)?;
            if prefix != 0xFF {
                return Err(corrupt("JPEG-LS image has a malformed marker"));
            }
            if marker == 0xFF {
                rest = &rest[1..];
                continue;
            }
            let (body, next) = jpeg_segment::split(after).ok_or_else(truncated)?;
            match marker {
                SOF55 if precision.is_some() => {
                    return Err(corrupt("JPEG-LS image has two frame headers"));
                }
                SOF55 => precision = Some(frame_header(body, format)?),
                LSE => preset = parameters(body)?,
                DRI if body.iter().any(|b| *b != 0) => {
                    return Err(unsupported("restart markers"));
                }
                SOS => {
                    let precision =
                        precision.ok_or_else(|| corrupt("JPEG-LS image has no frame header"))?;
                    let near = scan_header(body)?;
                    let parameters = Parameters::new(precision, near, preset)?;
                    return Ok(Self { parameters, scan: next });
                }
                0xC0..=0xCF if marker != 0xC4 && marker != 0xC8 && marker != 0xCC => {
                    return Err(corrupt("is a JPEG image of another process than JPEG-LS"));
                }
                _ => {}
            }
            rest = next;
        }
    }
}

/// Checks a frame header (C.2.2) against the DICOM header. Returns its precision.
fn frame_header(body: &[u8], format: &FrameFormat) -> Result<u32> {
    let &[precision, h1, h0, w1, w0, components] = body.first_chunk::<6>().ok_or_else(truncated)?;
    let rows = u32::from(u16::from_be_bytes([h1, h0]));
    let columns = u32::from(u16::from_be_bytes([w1, w0]));
    if (rows, columns, components) != (format.rows, format.columns, 1) {
        return Err(corrupt(format!(
            "JPEG-LS image has {rows} rows, {columns} columns and {components} components, the \
             header {} rows and {} columns",
            format.rows, format.columns
        )));
    }
    let precision = u32::from(precision);
    // With fewer bits than stored, the sign bit of a signed pixel would be unknown.
    let enough = !format.signed || precision >= u32::from(format.bits_stored);
    if !(2..=u32::from(format.bits_allocated)).contains(&precision) || !enough {
        return Err(corrupt(format!(
            "JPEG-LS image has {precision} bits a sample, the header {} stored of {}",
            format.bits_stored, format.bits_allocated
        )));
    }
    Ok(precision)
}

/// Returns NEAR of a scan header (C.2.3) with one component.
fn scan_header(body: &[u8]) -> Result<i32> {
    let &[components, _, table, near, interleave, transform] =
        body.first_chunk::<6>().ok_or_else(truncated)?;
    if components != 1 || interleave != 0 {
        return Err(corrupt("JPEG-LS image has a scan of several components"));
    }
    if table != 0 {
        return Err(unsupported("a mapping table"));
    }
    if transform != 0 {
        return Err(unsupported("a point transform"));
    }
    Ok(near.into())
}

/// Returns MAXVAL, T1, T2, T3 and RESET of preset parameters; zero means the default.
fn parameters(body: &[u8]) -> Result<[i32; 5]> {
    let (&id, values) = body.split_first().ok_or_else(truncated)?;
    if id != 1 {
        return Err(unsupported("a mapping table or an oversize image"));
    }
    let values = values.first_chunk::<10>().ok_or_else(truncated)?;
    Ok(std::array::from_fn(|i| i32::from(values[2 * i]) << 8 | i32::from(values[2 * i + 1])))
}

impl Parameters {
    /// Derives the parameters of an image of `precision` bits from the preset values and the
    /// defaults.
    fn new(precision: u32, near: i32, preset: [i32; 5]) -> Result<Self> {
        let [max, t1, t2, t3, reset] = preset;
        let most = (1 << precision) - 1;
        let max = if max == 0 { most } else { max };
        if max > most || max < 1 || near > 255.min(max / 2) {
            return Err(corrupt("JPEG-LS image has parameters beyond its precision"));
        }
        let default = Self::default_thresholds(max, near);
        let or = |stated: i32, default: i32| if stated == 0 { default } else { stated };
        let thresholds = [or(t1, default[0]), or(t2, default[1]), or(t3, default[2])];
        let [t1, t2, t3] = thresholds;
        let ordered = near < t1 && t1 <= t2 && t2 <= t3 && t3 <= max;
        let reset = or(reset, 64);
        if !ordered || reset < 3 || reset > 255.max(max) {
            return Err(corrupt("JPEG-LS image has parameters out of order"));
        }
        Ok(Self { max, near, thresholds, reset })
    }

    /// Default thresholds (C.2.4.1.1.1).
    fn default_thresholds(max: i32, near: i32) -> [i32; 3] {
        let clamp = |value: i32, low: i32| if value > max || value < low { low } else { value };
        let raw = if max >= 128 {
            let factor = (max.min(4095) + 128) / 256;
            [factor + 2 + 3 * near, factor * 4 + 3 + 5 * near, factor * 17 + 4 + 7 * near]
        } else {
            let factor = 256 / (max + 1);
            [
                2.max(3 / factor + 3 * near),
                3.max(7 / factor + 5 * near),
                4.max(21 / factor + 7 * near),
            ]
        };
        let t1 = clamp(raw[0], near + 1);
        let t2 = clamp(raw[1], t1);
        [t1, t2, clamp(raw[2], t2)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_thresholds_are_the_standards() {
        // Table C.3.
        assert_eq!(Parameters::default_thresholds(255, 0), [3, 7, 21]);
        assert_eq!(Parameters::default_thresholds(4095, 0), [18, 67, 276]);
        assert_eq!(Parameters::default_thresholds(65_535, 0), [18, 67, 276]);
    }
}
