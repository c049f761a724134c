//! JPEG 2000 of either block coder with `openjp2`, a translation of the reference library
//! OpenJPEG: slower than [`ht`](super::ht) on HTJ2K, but it reads every form of codestream.

use openjp2::openjpeg::opj_dparameters_t;
use openjp2::{CODEC_FORMAT, Codec};

use super::codestream::Codestream;
use super::openjp2_ffi::InputStream;
use super::samples::from_integers;
use super::{FrameFormat, Samples, corrupt};
use crate::error::Result;

/// Decodes a checked codestream, strictly: data that ends early is an error.
pub(super) fn decode(data: &[u8], stream: &Codestream, format: &FrameFormat) -> Result<Samples> {
    let failed = |stage: &str| corrupt(format!("codestream does not decode ({stage})"));
    let mut input = InputStream::new(data.get(..stream.length).unwrap_or(data));
    let mut codec =
        Codec::new_decoder(CODEC_FORMAT::OPJ_CODEC_J2K).ok_or_else(|| failed("set-up"))?;
    let mut parameters = opj_dparameters_t::default();
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
    let same_form = component.w == format.columns
        && component.h == format.rows
        && component.prec == stream.precision
        && (component.sgnd != 0) == stream.signed;
    if !same_form {
        return Err(failed("size"));
    }
    let values = component.data().ok_or_else(|| failed("no pixels"))?;
    from_integers(values, stream.precision, stream.signed, format)
}
