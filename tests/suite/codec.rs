//! Every decoder: reference images decode exactly, damaged frames are refused, and nothing panics.

use std::fs;
use std::path::{Path, PathBuf};

use ahi_inference::codec::{
    Decoder, FrameFormat, Samples, decode, decode_with, encode_htj2k, transfer_syntaxes,
};
use ahi_inference::error::ErrorKind;
use proptest::prelude::*;

use crate::common::{format_of, shared};

const HTJ2K: &str = "1.2.840.10008.1.2.4.201";
const HTJ2K_RPCL: &str = "1.2.840.10008.1.2.4.202";
const JPEG_2000: &str = "1.2.840.10008.1.2.4.90";
const BOTH: [Decoder; 2] = [Decoder::Ht, Decoder::OpenJp2];

/// Returns reference codestreams with their paths and the pixels they decode to.
fn references(folder: &Path) -> Vec<(PathBuf, Vec<u8>, Vec<u8>)> {
    let mut found: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "j2c"))
        .map(|path| {
            let raw = fs::read(path.with_extension("raw")).unwrap();
            (path.clone(), fs::read(&path).unwrap(), raw)
        })
        .collect();
    found.sort();
    assert!(!found.is_empty(), "no reference codestreams");
    found
}

#[test]
fn reference_frames_decode_exactly_by_every_decoder() {
    let Some(folder) = shared("data/htj2k") else { return };
    for (path, codestream, raw) in references(&folder) {
        let format = format_of(&codestream);
        for entry in transfer_syntaxes().iter().filter(|e| e.name.starts_with("HTJ2K")) {
            for &decoder in entry.decoders {
                let samples = decode_with(decoder, entry.uid, &codestream, &format)
                    .unwrap_or_else(|e| panic!("{} by {decoder}: {e:?}", path.display()));
                assert!(samples.to_le_bytes(16) == raw, "{} by {decoder}", path.display());
                assert_eq!(samples.crc32(16), crc32fast::hash(&raw));
            }
        }
    }
}

#[test]
fn truncated_frames_are_refused_by_every_decoder() {
    let Some(folder) = shared("data/htj2k") else { return };
    for (path, codestream, _) in references(&folder) {
        let format = format_of(&codestream);
        let whole = codestream.len();
        let cuts = (0..200)
            .chain((200..whole).step_by(whole / 40))
            .chain(whole - 20..whole)
            .filter(|&cut| cut < whole);
        for cut in cuts {
            let mut padded = codestream[..cut].to_vec();
            padded.resize(whole, 0);
            for decoder in BOTH {
                for damaged in [&codestream[..cut], &padded] {
                    if damaged == &codestream[..] {
                        continue;
                    }
                    let e = decode_with(decoder, HTJ2K, damaged, &format).unwrap_err();
                    let place = format!("{} cut at {cut} by {decoder}: {e}", path.display());
                    assert_eq!(e.kind(), ErrorKind::CorruptFrame, "{place}");
                }
            }
        }
    }
}

#[test]
fn a_truncated_frame_with_its_lengths_made_good_is_refused() {
    let Some(folder) = shared("data/htj2k") else { return };
    for (path, codestream, _) in references(&folder) {
        let format = format_of(&codestream);
        let sot = codestream.windows(2).position(|w| w == [0xFF, 0x90]).unwrap();
        for cut in (sot + 20..codestream.len() - 2).step_by(codestream.len() / 25) {
            let mut repaired = codestream[..cut].to_vec();
            repaired[sot + 6..sot + 10].copy_from_slice(&((cut - sot) as u32).to_be_bytes());
            repaired.extend([0xFF, 0xD9]);
            for decoder in BOTH {
                let decoded = decode_with(decoder, HTJ2K, &repaired, &format);
                assert!(decoded.is_err(), "{} cut at {cut} by {decoder}", path.display());
            }
            let e = decode(HTJ2K, &repaired, &format).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::CorruptFrame, "{} cut at {cut}", path.display());
        }
    }
}

#[test]
fn padding_to_an_even_length_is_tolerated_and_other_data_is_not() {
    let Some(folder) = shared("data/htj2k") else { return };
    let (_, mut codestream, raw) = references(&folder).remove(0);
    let format = format_of(&codestream);
    codestream.push(0);
    for decoder in BOTH {
        let samples = decode_with(decoder, HTJ2K, &codestream, &format).unwrap();
        assert!(samples.to_le_bytes(16) == raw, "{decoder}");
    }
    codestream.push(1);
    assert_eq!(decode(HTJ2K, &codestream, &format).unwrap_err().kind(), ErrorKind::CorruptFrame);
}

#[test]
fn a_frame_of_another_size_is_refused_before_it_is_decoded() {
    let Some(folder) = shared("data/htj2k") else { return };
    let (_, codestream, _) = references(&folder).remove(0);
    let format = format_of(&codestream);
    let others = [
        FrameFormat { rows: format.rows + 1, ..format },
        FrameFormat { columns: format.columns / 2, ..format },
        FrameFormat { bits_allocated: 8, bits_stored: 8, ..format },
    ];
    for other in others {
        let e = decode(HTJ2K, &codestream, &other).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::CorruptFrame, "{other:?}");
    }
    // A header that claims 4 billion pixels, components or tiles it does not have.
    for (at, bytes) in [(8, &[0xFF; 8][..]), (40, &[0x40, 0]), (24, &[0, 0, 0, 1, 0, 0, 0, 1])] {
        let mut bomb = codestream.clone();
        bomb[at..at + bytes.len()].copy_from_slice(bytes);
        for decoder in BOTH {
            let e = decode_with(decoder, HTJ2K, &bomb, &format).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::CorruptFrame, "{at} by {decoder}");
        }
    }
}

/// Frames of any supported format, with pixels ranging from smooth to noise.
fn frames() -> impl Strategy<Value = (FrameFormat, Samples)> {
    let format = (1_u32..70, 1_u32..70, prop_oneof![Just(8_u16), Just(16)], any::<bool>())
        .prop_flat_map(|(rows, columns, bits_allocated, signed)| {
            (1..=bits_allocated).prop_map(move |bits_stored| FrameFormat {
                rows,
                columns,
                bits_allocated,
                bits_stored,
                signed,
                float: false,
            })
        });
    (format, any::<u32>(), 0_u32..16).prop_map(|(format, seed, noise)| {
        let unused = 16 - u32::from(format.bits_stored);
        let mut state = seed | 1;
        let words = (0..format.pixels()).map(|i| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let ramp = (i as u32).wrapping_mul(seed % 97);
            (ramp.wrapping_add(state >> (32 - noise.max(1)) << (16 - noise))) as u16
        });
        let samples = if format.signed {
            Samples::I16(words.map(|w| ((w << unused) as i16) >> unused).collect())
        } else {
            Samples::U16(words.map(|w| (w << unused) >> unused).collect())
        };
        (format, samples)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn encoded_frames_decode_exactly_by_both_decoders((format, samples) in frames()) {
        let encoded = encode_htj2k(&samples, &format).unwrap();
        for decoder in BOTH {
            let decoded = decode_with(decoder, HTJ2K_RPCL, &encoded, &format).unwrap();
            prop_assert!(decoded == samples, "{decoder} {format:?}");
        }
    }

    #[test]
    fn native_frames_decode_to_their_bytes((format, samples) in frames()) {
        let bytes = samples.to_le_bytes(format.bits_allocated);
        prop_assert_eq!(decode("1.2.840.10008.1.2.1", &bytes, &format).unwrap(), samples);
    }

    #[test]
    fn damaged_frames_never_panic_and_keep_their_size(
        (format, samples) in frames(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), 0_u8..8), 1..6),
    ) {
        let mut damaged = encode_htj2k(&samples, &format).unwrap();
        for (at, bit) in flips {
            let at = at.index(damaged.len());
            damaged[at] ^= 1 << bit;
        }
        for decoder in BOTH {
            match decode_with(decoder, HTJ2K_RPCL, &damaged, &format) {
                Ok(decoded) => prop_assert_eq!(decoded.len(), format.pixels()),
                Err(e) => prop_assert!(matches!(
                    e.kind(),
                    ErrorKind::CorruptFrame | ErrorKind::UnsupportedPixelData
                ), "{:?}", e),
            }
        }
    }

    #[test]
    fn noise_is_refused_by_every_transfer_syntax(data in prop::collection::vec(any::<u8>(), 0..300)) {
        let format = FrameFormat {
            rows: 16, columns: 17, bits_allocated: 16, bits_stored: 12, signed: true, float: false,
        };
        for entry in transfer_syntaxes() {
            for &decoder in entry.decoders {
                prop_assert!(decode_with(decoder, entry.uid, &data, &format).is_err());
            }
        }
    }
}

#[test]
fn every_bit_of_a_header_may_flip_without_a_panic() {
    let format = FrameFormat {
        rows: 40,
        columns: 33,
        bits_allocated: 16,
        bits_stored: 12,
        signed: true,
        float: false,
    };
    let pixels = (0..format.pixels()).map(|i| (i as i16 * 7) % 2048).collect();
    let encoded = encode_htj2k(&Samples::I16(pixels), &format).unwrap();
    for bit in 0..8 * encoded.len().min(160) {
        let mut damaged = encoded.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        for (decoder, uid) in
            [(Decoder::Ht, HTJ2K), (Decoder::OpenJp2, HTJ2K), (Decoder::OpenJp2, JPEG_2000)]
        {
            if let Ok(decoded) = decode_with(decoder, uid, &damaged, &format) {
                assert_eq!(decoded.len(), format.pixels(), "bit {bit} by {decoder}");
            }
        }
    }
}

#[test]
fn samples_that_do_not_fit_are_not_encoded() {
    let format = FrameFormat {
        rows: 1,
        columns: 2,
        bits_allocated: 16,
        bits_stored: 12,
        signed: true,
        float: false,
    };
    for samples in [Samples::I16(vec![0, 2048]), Samples::I16(vec![0]), Samples::U16(vec![0, 1])] {
        let e = encode_htj2k(&samples, &format).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::InvalidImage, "{samples:?}");
    }
}
