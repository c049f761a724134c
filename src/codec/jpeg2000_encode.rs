//! Encodes lossless JPEG 2000 with `openjp2`.
//!
//! To write to memory, the library needs raw pointers; to write to a file it does not. Only tools
//! encode frames, and few of them, so a temporary file for each is acceptable.

use openjp2::image::{opj_image, opj_image_comptparm};
use openjp2::openjpeg::{OPJ_CLRSPC_GRAY, opj_cparameters_t};
use openjp2::{CODEC_FORMAT, Codec, Stream};

use super::samples::check_fit;
use super::{FrameFormat, Samples, codestream, contain, jpeg2000};
use crate::error::{Error, ErrorKind, Result};

/// Decomposition levels, if the image is large enough.
const LEVELS: u32 = 5;

/// Size of the write buffer in bytes.
const BUFFER: usize = 1 << 16;

/// Encodes a frame as lossless JPEG 2000: transfer syntax 1.2.840.10008.1.2.4.90. The codestream's
/// precision is Bits Stored (PS3.5 section 8.2.4). The result is decoded again and compared.
///
/// # Errors
/// [`ErrorKind::InvalidImage`] if the samples do not fit the format, [`ErrorKind::Io`] if a
/// temporary file cannot be written, [`ErrorKind::Internal`] if the result does not decode to the
/// frame.
pub fn encode_jpeg2000(samples: &Samples, format: &FrameFormat) -> Result<Vec<u8>> {
    check_fit(samples, format)?;
    let encoded = contain("the JPEG 2000 encoder", || write(samples, format))?;
    let decoded = codestream::check(&encoded, format)
        .and_then(|stream| jpeg2000::decode(&encoded, &stream, format));
    if decoded.is_ok_and(|decoded| decoded == *samples) {
        return Ok(encoded);
    }
    Err(failed("verification"))
}

fn failed(stage: &str) -> Error {
    Error::internal(format!("the JPEG 2000 encoder failed ({stage})"))
}

fn write(samples: &Samples, format: &FrameFormat) -> Result<Vec<u8>> {
    let mut image = image(samples, format)?;
    let levels = format.columns.min(format.rows).max(1).ilog2().min(LEVELS);
    // One layer at rate 0, which means lossless.
    let mut parameters = opj_cparameters_t {
        tcp_numlayers: 1,
        cp_disto_alloc: 1,
        numresolution: levels as i32 + 1,
        ..opj_cparameters_t::default()
    };
    let io = |e: std::io::Error| {
        Error::new(ErrorKind::Io, "a temporary file cannot be written or read").caused_by(e)
    };
    let file = tempfile::NamedTempFile::new().map_err(io)?;
    let mut stream = Stream::new_file(file.path(), BUFFER, false).map_err(io)?;
    let mut codec =
        Codec::new_encoder(CODEC_FORMAT::OPJ_CODEC_J2K).ok_or_else(|| failed("set-up"))?;
    if codec.setup_encoder(&mut parameters, &mut image) == 0 {
        return Err(failed("parameters"));
    }
    for (stage, done) in [
        ("header", codec.start_compress(&mut image, &mut stream)),
        ("tiles", codec.encode(&mut stream)),
        ("end", codec.end_compress(&mut stream)),
    ] {
        if done == 0 {
            return Err(failed(stage));
        }
    }
    stream.flush().map_err(io)?;
    drop(stream);
    std::fs::read(file.path()).map_err(io)
}

fn image(samples: &Samples, format: &FrameFormat) -> Result<Box<opj_image>> {
    let component = opj_image_comptparm {
        dx: 1,
        dy: 1,
        w: format.columns,
        h: format.rows,
        prec: format.bits_stored.into(),
        sgnd: format.signed.into(),
        ..opj_image_comptparm::default()
    };
    let mut image =
        opj_image::create(&[component], OPJ_CLRSPC_GRAY).ok_or_else(|| failed("image"))?;
    (image.x1, image.y1) = (format.columns, format.rows);
    let [component] = image.comps_mut().ok_or_else(|| failed("image"))? else {
        return Err(failed("image"));
    };
    let values = component.data_mut().ok_or_else(|| failed("image"))?;
    for (index, out) in values.iter_mut().enumerate() {
        // `check_fit` has verified the number of pixels and their bits.
        *out = samples.value(index).ok_or_else(|| failed("pixels"))?;
    }
    Ok(image)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::decode;
    use super::*;

    const SYNTAX: &str = "1.2.840.10008.1.2.4.90";

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn what_is_written_is_read(
            rows in 1_u32..40, columns in 1_u32..40, bits in 1_u16..=16, signed in any::<bool>(),
            seed in any::<u64>(),
        ) {
            let bits_allocated = if bits > 8 { 16 } else { 8 };
            let format =
                FrameFormat { rows, columns, bits_allocated, bits_stored: bits, signed, float: false };
            let unused = 16 - u32::from(bits);
            let words = (0..format.pixels() as u64)
                .map(|i| (i.wrapping_mul(seed | 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 48) as u16);
            let samples = if signed {
                Samples::I16(words.map(|w| ((w << unused) as i16) >> unused).collect())
            } else {
                Samples::U16(words.map(|w| (w << unused) >> unused).collect())
            };
            let encoded = encode_jpeg2000(&samples, &format).unwrap();
            prop_assert_eq!(decode(SYNTAX, &encoded, &format).unwrap(), samples);
        }
    }

    #[test]
    fn samples_must_fit() {
        let format = FrameFormat {
            rows: 2,
            columns: 2,
            bits_allocated: 16,
            bits_stored: 12,
            signed: false,
            float: false,
        };
        let e = encode_jpeg2000(&Samples::U16(vec![0, 1, 2]), &format).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::InvalidImage);
        let e = encode_jpeg2000(&Samples::U16(vec![0, 1, 2, 4096]), &format).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::InvalidImage);
    }
}
