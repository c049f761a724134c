//! JPEG 2000 with either block coder, decoded by `openjp2`, a translation of the reference library
//! OpenJPEG: slower than [`ht`](super::ht) on HTJ2K, but it reads every form of codestream.

use openjp2::openjpeg::opj_dparameters_t;
use openjp2::{CODEC_FORMAT, Codec};

use super::codestream::Codestream;
use super::openjp2_ffi::InputStream;
use super::samples::from_integers;
use super::{FrameFormat, Samples, corrupt};
use crate::error::{Error, Result};

/// Decodes a checked codestream in strict mode: truncated data is an error.
pub(super) fn decode(data: &[u8], stream: &Codestream, format: &FrameFormat) -> Result<Samples> {
    let (decoded, samples) = decode_reduced(data, stream, format, 0)?;
    if decoded == *format { Ok(samples) } else { Err(failed("size")) }
}

fn failed(stage: &str) -> Error {
    corrupt(format!("codestream does not decode ({stage})"))
}

/// Like [`decode`], with each side halved `reduced` times (at most once per level). Returns the
/// format with the resulting size.
pub(super) fn decode_reduced(
    data: &[u8],
    stream: &Codestream,
    format: &FrameFormat,
    reduced: u8,
) -> Result<(FrameFormat, Samples)> {
    let mut input = InputStream::new(data.get(..stream.length).unwrap_or(data));
    let mut codec =
        Codec::new_decoder(CODEC_FORMAT::OPJ_CODEC_J2K).ok_or_else(|| failed("set-up"))?;
    let reduced = reduced.min(stream.levels);
    let mut parameters =
        opj_dparameters_t { cp_reduce: reduced.into(), ..opj_dparameters_t::default() };
    if codec.setup_decoder(&mut parameters) == 0 || codec.decoder_set_strict_mode(1) == 0 {
        return Err(failed("set-up"));
    }
    let mut image = codec.read_header(input.get()).ok_or_else(|| failed("header"))?;
    if codec.decode(input.get(), &mut image) == 0 {
        return Err(failed("tiles"));
    }
    if codec.end_decompress(input.get()) == 0 {
        return Err(failed("end"));
    }
    let component = match image.comps() {
        Some([component]) => component,
        _ => return Err(failed("components")),
    };
    // If the image does not begin at the origin, a side may be one less than rounded up.
    let is_halved = |side: u32, whole: u32| {
        let (whole, unit) = (u64::from(whole), 1_u64 << reduced);
        side > 0 && (whole / unit..=whole.div_ceil(unit)).contains(&side.into())
    };
    let same_form = is_halved(component.w, format.columns)
        && is_halved(component.h, format.rows)
        && component.prec == stream.precision
        && (component.sgnd != 0) == stream.signed;
    if !same_form {
        return Err(failed("size"));
    }
    let format = FrameFormat { rows: component.h, columns: component.w, ..*format };
    let values = component.data().ok_or_else(|| failed("no pixels"))?;
    let samples = from_integers(values, stream.precision, stream.signed, &format)?;
    Ok((format, samples))
}
