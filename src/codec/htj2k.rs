//! High-throughput JPEG 2000 (ISO/IEC 15444-15): decodes frames of the [plain](Codestream::plain)
//! form with [`ht`], and encodes with `openjph-core`.

use openjph_core::codestream::Codestream as Coder;
use openjph_core::file::MemOutfile;
use openjph_core::{Point, Size};

use super::codestream::{self, Codestream};
use super::ht::{self, Instructions, Pixels};
use super::plausible::room_in;
use super::recycle::{buffer_i16, buffer_u16};
use super::samples::{check_fit, reinterpreted};
use super::{FrameFormat, Samples, contain, corrupt, jpeg2000};
use crate::error::{Error, ErrorKind, Result};

/// Decomposition levels to encode if the image is large enough: what DICOM recommends and AWS
/// HealthImaging writes.
const LEVELS: u32 = 5;

/// Decodes a checked codestream, with each side halved `reduced` times (at most once per level) and
/// rounded up; returns `Ok(None)` if this decoder does not support its form.
pub(super) fn decode(
    data: &[u8],
    stream: &Codestream,
    format: &FrameFormat,
    reduced: u8,
    instructions: Instructions,
) -> Result<Option<Samples>> {
    let Some(plain) = &stream.plain else { return Ok(None) };
    let (mut packets, tile) = (plain.packets(data)?, &plain.tile);
    let reduced = reduced.min(tile.levels);
    let resolutions = tile.levels - reduced + 1;
    let Some(bands) = tile.bands(&mut packets, resolutions) else {
        // Malformed or incomplete; the reference decoder reports which.
        return Ok(None);
    };
    let pixels = Pixels { precision: stream.precision, signed: stream.signed, reduced };
    let count = format.halved(reduced).pixels();
    let failed = |fault: ht::Fault| match fault {
        ht::NO_MEMORY => Error::new(ErrorKind::OutOfMemory, fault.0),
        fault => corrupt(format!("codestream does not decode: {}", fault.0)),
    };
    let samples = if format.signed {
        let mut out = room_in(buffer_i16(count), count)?;
        ht::decode(tile, &bands, &packets, pixels, instructions, &mut out).map_err(failed)?;
        Samples::I16(out)
    } else {
        let mut out = room_in(buffer_u16(count), count)?;
        ht::decode(tile, &bands, &packets, pixels, instructions, &mut out).map_err(failed)?;
        Samples::U16(out)
    };
    Ok(Some(reinterpreted(samples, stream.precision, stream.signed)))
}

/// Code-block sizes to encode with, best first.
const BLOCKS: [(u32, u32); 7] = [(64, 64), (32, 32), (64, 32), (16, 16), (8, 8), (16, 8), (4, 4)];

/// Encodes a frame as HTJ2K lossless, RPCL, with five decomposition levels (fewer if the image is
/// smaller than 32 pixels): transfer syntax 1.2.840.10008.1.2.4.202.
///
/// The codestream's precision is Bits Stored (PS3.5 section 8.2.4). Every frame is decoded again by
/// both decoders and compared, because `openjph-core` 0.1.0 occasionally writes a code-block that
/// no decoder can read (in 2 of the 108 frames of a CT series). Other code-block sizes, or fewer
/// levels if those fail as well (small images of noise), then produce a valid frame.
///
/// # Errors
/// [`InvalidImage`](crate::error::ErrorKind::InvalidImage) if the samples do not fit the format.
pub fn encode_htj2k(samples: &Samples, format: &FrameFormat) -> Result<Vec<u8>> {
    check_fit(samples, format)?;
    let levels = format.columns.min(format.rows).max(1).ilog2().min(LEVELS);
    let forms = (0..=levels).rev().flat_map(|levels| BLOCKS.map(|block| (levels, block)));
    for (levels, block) in forms {
        let encoded = contain("the HTJ2K encoder", || {
            write(samples, format, levels, block)
                .map_err(|e| Error::internal("the HTJ2K encoder failed").caused_by(e))
        })?;
        if contain("an HTJ2K decoder", || decodes_to(&encoded, samples, format)).unwrap_or(false) {
            return Ok(encoded);
        }
    }
    Err(Error::internal("no HTJ2K encoding of this frame decodes to its pixels"))
}

/// Whether both decoders reproduce `samples`.
fn decodes_to(encoded: &[u8], samples: &Samples, format: &FrameFormat) -> Result<bool> {
    let stream = codestream::check(encoded, format)?;
    let fast = decode(encoded, &stream, format, 0, Instructions::best())?;
    Ok(fast.as_ref() == Some(samples) && jpeg2000::decode(encoded, &stream, format)? == *samples)
}

fn write(
    samples: &Samples,
    format: &FrameFormat,
    levels: u32,
    block: (u32, u32),
) -> openjph_core::Result<Vec<u8>> {
    let (columns, rows) = (format.columns, format.rows);
    let mut coder = Coder::new();
    let siz = coder.access_siz_mut();
    siz.set_image_extent(Point::new(columns, rows));
    siz.set_tile_size(Size::new(columns, rows));
    siz.set_num_components(1);
    siz.set_comp_info(0, Point::new(1, 1), u32::from(format.bits_stored), format.signed);
    let cod = coder.access_cod_mut();
    cod.set_num_decomposition(levels);
    cod.set_block_dims(block.0, block.1);
    cod.set_reversible(true);
    cod.set_color_transform(false);
    cod.set_progression_order("RPCL")?;
    coder.set_planar(0);
    let mut file = MemOutfile::with_capacity(format.pixels());
    coder.write_headers(&mut file, &[])?;
    let width = columns as usize;
    let mut line = vec![0; width];
    for row in 0..rows as usize {
        for (x, out) in line.iter_mut().enumerate() {
            // `check_fit` has verified the number of pixels.
            *out = samples.value(row * width + x).unwrap_or(0);
        }
        coder.exchange(&line, 0)?;
    }
    coder.flush(&mut file)?;
    Ok(file.get_data().to_vec())
}

#[cfg(test)]
mod tests {
    use super::super::{Decoder, decode, decode_with};
    use super::*;

    const HTJ2K: &str = "1.2.840.10008.1.2.4.201";
    const FORMAT: FrameFormat = FrameFormat {
        rows: 50,
        columns: 70,
        bits_allocated: 16,
        bits_stored: 12,
        signed: false,
        float: false,
    };

    fn ramp() -> Vec<u16> {
        (0..FORMAT.pixels()).map(|i| (i * 37 % 4096) as u16).collect()
    }

    /// A codestream with 32 × 32 tiles, which `openjph-core` can write but only `openjp2` can read
    /// here.
    fn tiled(pixels: &[u16]) -> Vec<u8> {
        let mut coder = Coder::new();
        let siz = coder.access_siz_mut();
        siz.set_image_extent(Point::new(FORMAT.columns, FORMAT.rows));
        siz.set_tile_size(Size::new(32, 32));
        siz.set_num_components(1);
        siz.set_comp_info(0, Point::new(1, 1), 12, false);
        let cod = coder.access_cod_mut();
        cod.set_num_decomposition(1);
        cod.set_reversible(true);
        cod.set_color_transform(false);
        coder.set_planar(0);
        let mut file = MemOutfile::new();
        coder.write_headers(&mut file, &[]).unwrap();
        for row in pixels.chunks(FORMAT.columns as usize) {
            let line: Vec<i32> = row.iter().map(|&v| v.into()).collect();
            coder.exchange(&line, 0).unwrap();
        }
        coder.flush(&mut file).unwrap();
        file.get_data().to_vec()
    }

    #[test]
    fn what_this_decoder_cannot_read_goes_to_the_next() {
        let pixels = ramp();
        let data = tiled(&pixels);
        let stream = codestream::check(&data, &FORMAT).unwrap();
        assert!(stream.high_throughput && stream.plain.is_none(), "{stream:?}");
        assert_eq!(decode(HTJ2K, &data, &FORMAT).unwrap(), Samples::U16(pixels));
        let e = decode_with(Decoder::Ht, HTJ2K, &data, &FORMAT).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::UnsupportedPixelData);
    }

    #[test]
    fn what_is_written_has_the_form_of_its_transfer_syntax() {
        let data = encode_htj2k(&Samples::U16(ramp()), &FORMAT).unwrap();
        let stream = codestream::check(&data, &FORMAT).unwrap();
        assert!(stream.high_throughput && stream.plain.is_some(), "{stream:?}");
        assert_eq!(stream.precision, 12);
        // COD: progression order RPCL is 2, then one layer and five levels (A.6.1).
        let cod = data.windows(2).position(|w| w == [0xFF, 0x52]).unwrap();
        assert_eq!(data[cod + 5], 2);
        assert_eq!(data[cod + 9], 5);
    }
}
