//! JPEG 2000 and JPEG frames written by other libraries (OpenJPEG 2.5, libjpeg-turbo and
//! liblj92): 6 rows of 9 columns whose pixels are known in closed form.

use ahi_inference::codec::{FrameFormat, Samples, decode};
use ahi_inference::error::ErrorKind;
use base64::Engine as _;

const JPEG_BASELINE: &str = "1.2.840.10008.1.2.4.50";
const JPEG_EXTENDED: &str = "1.2.840.10008.1.2.4.51";
const JPEG_LOSSLESS: &str = "1.2.840.10008.1.2.4.57";
const JPEG_LOSSLESS_SV1: &str = "1.2.840.10008.1.2.4.70";
const JPEG_2000: &str = "1.2.840.10008.1.2.4.90";

const J2K_S16: &str = "/0//UQApAAAAAAAJAAAABgAAAAAAAAAAAAAACQAAAAYAAAAAAAAAAAABjwEB/1IADAAAAAEAAAQEAAH/XAAEQID/ZAAlAAFDcmVhdGVkIGJ5IE9wZW5KUEVHIHZlcnNpb24gMi41LjT/kAAKAAAAAABqAAH/k8P/ACuAQwGE36PuatmW+cOoE1pxQePIc+jEYNBA8rbukHYKrzaq7YKEIjHTppkRgcDg/0mtvz7veOAui/9cfXAyeAZP16RQlCWPSeyK4p7PDf8oAI+YZE4iYH5//9k=";
const J2K_U12: &str = "/0//UQApAAAAAAAJAAAABgAAAAAAAAAAAAAACQAAAAYAAAAAAAAAAAABCwEB/1IADAAAAAEAAAQEAAH/XAAEQGD/ZAAlAAFDcmVhdGVkIGJ5IE9wZW5KUEVHIHZlcnNpb24gMi41LjT/kAAKAAAAAABlAAH/k9/hUBIx5kl8H9PhlFGqbZ7a2p67CrII2BYGzME0wpNhyBR3NfGE58ho1Z0xUp6ssOzeHjDcpaqtd7S74MyVSh13VC1egiDxrtv4GQqQxKNVkV9VVVNogf/Z";
const LOSSLESS_U16_LJ92: &str = "/9j/xAAWAAEBAQAAAAAAAAAAAAAAAAAMDRD/wwALEAAGAAkBABEA/9oACAEAAAYAAMolUSqJVEqiVRKolUS2Oljqx1Y6sdWOrHVjqx1sdLHVjqx1Y6sdWOrHVjrY6WOrHVjqx1Y6sdWOrHWx0sdWOrHVjqx1Y6sdWOtjpY6sdWOrHVjqx1Y6sdT/2Q==";
const LOSSLESS_U12_LJ92: &str = "/9j/xAAWAAEBAQAAAAAAAAAAAAAAAAAMCgv/wwALDAAGAAkBABEA/9oACAEAAAYAAD/6iXIkUS5EmRIolyJMiRHSR0Y6kdIdGOpHRjro64dDHUjpDox1I6MdSOkOiOkjox10dSOjHUjpDox1w6GOpHSHRjqR0h0Y6kdEdJHSHRjqR0Y66OpHRjqA/9k=";
const LOSSLESS_U12: &str = "/9j/4AAQSkZJRgABAQAAAQABAAD/wwALDAAGAAkBAREA/8QAFQABAQAAAAAAAAAAAAAAAAAACwz/2gAIAQEAAQAAn/6iUiSolIkIkqJSJCJKOkiSolIkIkqJSJKiUiQOiolIkIkqJSJKiUiQiSjpIkqJSJCJKiUiQiSolDoqJSJCJKiUiQiSolIko6SJCJKiUiSolIkIkqJf/9k=";
const LOSSLESS_U8: &str = "/9j/4AAQSkZJRgABAQAAAQABAAD/wwALCAAGAAkBAREA/8QAFgABAQEAAAAAAAAAAAAAAAAABQQI/9oACAEBAAEAAM/uuuuuuuu2uuuuuuuu2uuuuuuu4ctdddddddw5a6666667hy1111113Djv/9k=";
const BASELINE_77: &str = "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQH/wAALCAAGAAkBAREA/8QAHwAAAQUBAQEBAQEAAAAAAAAAAAECAwQFBgcICQoL/8QAtRAAAgEDAwIEAwUFBAQAAAF9AQIDAAQRBRIhMUEGE1FhByJxFDKBkaEII0KxwRVS0fAkM2JyggkKFhcYGRolJicoKSo0NTY3ODk6Q0RFRkdISUpTVFVWV1hZWmNkZWZnaGlqc3R1dnd4eXqDhIWGh4iJipKTlJWWl5iZmqKjpKWmp6ipqrKztLW2t7i5usLDxMXGx8jJytLT1NXW19jZ2uHi4+Tl5ufo6erx8vP09fb3+Pn6/9oACAEBAAA/APxnor//2Q==";
const EXTENDED_12: &str = "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAIBAQEBAQIBAQECAgICAgQDAgICAgUEBAMEBgUGBgYFBgYGBwkIBgcJBwYGCAsICQoKCgoKBggLDAsKDAkKCgr/wQALDAAGAAkBAREA/8QAFQABAQAAAAAAAAAAAAAAAAAACAv/xAAjEAABAwMCBwAAAAAAAAAAAAAIBgcJBQoLAAQWGRodW5fa/9oACAEBAAA/ADLbFjEaePO6wdd4+QaGKctJ4De3/K8Si5iPn2qbduzFigTtG3lrtLJqbw4iQyTMNfRCc4UE6VePlhkW0Tq11qEwYKIEusj3st1FyA1OVkd5E0m+x6suvjjscV7It8vi01//2Q==";

fn format(bits_allocated: u16, bits_stored: u16, signed: bool) -> FrameFormat {
    FrameFormat { rows: 6, columns: 9, bits_allocated, bits_stored, signed }
}

fn bytes(base64: &str) -> Vec<u8> {
    base64::engine::general_purpose::STANDARD.decode(base64).unwrap()
}

/// Pixel values by column and row.
fn pixels(value: impl Fn(i32, i32) -> i32) -> Vec<i32> {
    (0..6).flat_map(|y| (0..9).map(move |x| (x, y))).map(|(x, y)| value(x, y)).collect()
}

fn unsigned(values: Vec<i32>) -> Samples {
    Samples::U16(values.into_iter().map(|v| v as u16).collect())
}

fn u16_ramp() -> Samples {
    unsigned(pixels(|x, y| (x * 371 + y * 911) * 7))
}

fn u12_ramp() -> Samples {
    unsigned(pixels(|x, y| ((x * 371 + y * 911) * 7) & 0xFFF))
}

#[test]
fn lossless_frames_of_other_encoders_decode_exactly() {
    let s16 = pixels(|x, y| (x * 37 - y * 91) * 11 - 400);
    let s16 = Samples::I16(s16.into_iter().map(|v| v as i16).collect());
    let u8_ramp = unsigned(pixels(|x, y| (x * 29 + y * 13) % 256));
    for (name, uid, data, format, expected) in [
        ("JPEG 2000, 16 bits signed", JPEG_2000, J2K_S16, format(16, 16, true), s16),
        ("JPEG 2000, 12 bits", JPEG_2000, J2K_U12, format(16, 12, false), u12_ramp()),
        ("JPEG, 16 bits", JPEG_LOSSLESS, LOSSLESS_U16_LJ92, format(16, 16, false), u16_ramp()),
        ("JPEG, 12 bits", JPEG_LOSSLESS, LOSSLESS_U12_LJ92, format(16, 12, false), u12_ramp()),
        ("JPEG SV1, 12 bits", JPEG_LOSSLESS_SV1, LOSSLESS_U12, format(16, 12, false), u12_ramp()),
        ("JPEG SV1, 8 bits", JPEG_LOSSLESS_SV1, LOSSLESS_U8, format(8, 8, false), u8_ramp.clone()),
        ("JPEG SV1, 8 of 16 bits", JPEG_LOSSLESS_SV1, LOSSLESS_U8, format(16, 8, false), u8_ramp),
    ] {
        let mut data = bytes(data);
        assert!(decode(uid, &data, &format).unwrap() == expected, "{name}");
        data.push(0);
        assert!(decode(uid, &data, &format).unwrap() == expected, "{name} with padding");
    }
}

#[test]
fn signed_pixels_in_unsigned_codestreams_keep_their_bits() {
    // JPEG lossless knows no sign, and many JPEG 2000 encoders leave it out.
    let words = u12_ramp();
    let Samples::U16(words) = words else { unreachable!() };
    let expected = Samples::I16(words.iter().map(|w| ((w << 4) as i16) >> 4).collect());
    for (uid, data) in [(JPEG_LOSSLESS_SV1, LOSSLESS_U12), (JPEG_2000, J2K_U12)] {
        assert_eq!(decode(uid, &bytes(data), &format(16, 12, true)).unwrap(), expected, "{uid}");
        // Of 14 bits stored, twelve in the codestream leave the sign open.
        assert!(decode(uid, &bytes(data), &format(16, 14, true)).is_err(), "{uid}");
    }
}

#[test]
fn jpeg_baseline_decodes_and_twelve_bits_of_it_are_named() {
    let flat = unsigned(vec![77; 54]);
    assert_eq!(decode(JPEG_BASELINE, &bytes(BASELINE_77), &format(8, 8, false)).unwrap(), flat);
    assert_eq!(decode(JPEG_EXTENDED, &bytes(BASELINE_77), &format(8, 8, false)).unwrap(), flat);
    let e = decode(JPEG_EXTENDED, &bytes(EXTENDED_12), &format(16, 12, false)).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::UnsupportedPixelData);
    assert!(e.message().contains("12 bits"), "{e}");
}

#[test]
fn truncated_and_mismatched_frames_are_refused() {
    for (uid, data, format) in [
        (JPEG_2000, J2K_S16, format(16, 16, true)),
        (JPEG_LOSSLESS, LOSSLESS_U16_LJ92, format(16, 16, false)),
        (JPEG_LOSSLESS_SV1, LOSSLESS_U12, format(16, 12, false)),
        (JPEG_BASELINE, BASELINE_77, format(8, 8, false)),
    ] {
        let whole = bytes(data);
        for cut in 0..whole.len() {
            let e = decode(uid, &whole[..cut], &format).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::CorruptFrame, "{uid} cut at {cut}");
        }
        for other in [FrameFormat { rows: 7, ..format }, FrameFormat { columns: 8, ..format }] {
            let e = decode(uid, &whole, &other).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::CorruptFrame, "{uid} as {other:?}");
        }
        for bit in 0..8 * whole.len() {
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            if let Ok(samples) = decode(uid, &damaged, &format) {
                assert_eq!(samples.len(), format.pixels(), "{uid} bit {bit}");
            }
        }
    }
}
