//! Codestreams of ITU-T T.803 with one component and the reversible wavelet.

use std::fs::File;
use std::io::Read;

use ahi_inference::codec::{Instructions, Samples, decode, decode_htj2k};

use super::JPEG_2000;
use crate::common::{format_of, shared};

/// Returns the body of the first marker segment of a kind in the main header.
fn segment(data: &[u8], marker: u8) -> Option<&[u8]> {
    let mut at = 2;
    while let Some(&[0xFF, found, high, low]) = data.get(at..at + 4) {
        let length = usize::from(u16::from_be_bytes([high, low]));
        if found == marker {
            return data.get(at + 4..at + 2 + length);
        }
        if found == 0x90 {
            return None;
        }
        at += 2 + length;
    }
    None
}

/// Parses the pixels of a PGX image: a line "PG ML +8 128 128", then bytes or big-endian words.
fn pgx(file: &[u8], format: &ahi_inference::codec::FrameFormat) -> Samples {
    let end = file.iter().position(|&b| b == b'\n').unwrap();
    let header = std::str::from_utf8(&file[..end]).unwrap();
    let is_signed = header.contains('-');
    assert!(header.starts_with("PG ML") && is_signed == format.signed, "{header}");
    let bytes = &file[end + 1..];
    let words: Vec<u16> = if bytes.len() == format.pixels() {
        // Signed bytes are sign-extended.
        bytes.iter().map(|&b| if is_signed { b as i8 as u16 } else { b.into() }).collect()
    } else {
        bytes.chunks_exact(2).map(|b| u16::from_be_bytes([b[0], b[1]])).collect()
    };
    assert_eq!(words.len(), format.pixels(), "{header}");
    if is_signed {
        Samples::I16(words.into_iter().map(|w| w as i16).collect())
    } else {
        Samples::U16(words)
    }
}

#[test]
fn reversible_conformance_streams_are_exact() {
    let Some(path) = shared("data/htj2k_conformance.zip") else { return };
    let mut archive = zip::ZipArchive::new(File::open(path).unwrap()).unwrap();
    let mut read = |name: &str| {
        let mut bytes = Vec::new();
        archive.by_name(name).ok()?.read_to_end(&mut bytes).ok()?;
        Some(bytes)
    };
    let (mut own, mut others, mut refused) = (Vec::new(), Vec::new(), Vec::new());
    for class in 0..2 {
        for number in 1..=16 {
            for bits in 8..=18 {
                let name = format!("htj2k_conformance/ds{class}_ht_{number:02}_b{bits}.j2k");
                let Some(data) = read(&name) else { continue };
                let (siz, cod) = (segment(&data, 0x51).unwrap(), segment(&data, 0x52).unwrap());
                if siz[34..36] != [0, 1] || cod[9] != 1 {
                    continue;
                }
                let reference =
                    format!("htj2k_conformance/references/c1p{class}_{number:02}-0.pgx");
                let format = format_of(&data);
                let truth = pgx(&read(&reference).unwrap(), &format);
                let mut is_own = false;
                for instructions in Instructions::available() {
                    let decoded = decode_htj2k(&data, &format, 0, instructions).unwrap();
                    is_own = decoded.is_some();
                    assert!(decoded.is_none_or(|d| d == truth), "{name} by {instructions}");
                }
                let by_openjp2 = decode(JPEG_2000, &data, &format);
                // A stream that openjp2 cannot decode is an error, never wrong pixels.
                assert!(by_openjp2.as_ref().is_ok_and(|d| *d == truth) || by_openjp2.is_err());
                match (is_own, by_openjp2) {
                    (true, _) => own.push(name),
                    (false, Ok(decoded)) => {
                        assert!(decoded == truth, "{name} by openjp2");
                        others.push(name);
                    }
                    (false, Err(e)) => refused.push(format!("{name} ({e})")),
                }
            }
        }
    }
    println!("by the own decoder: {own:#?}\nby openjp2: {others:#?}\nby none: {refused:#?}");
    for number in ["01", "11", "12", "16"] {
        assert!(own.iter().any(|name| name.contains(&format!("_ht_{number}_"))), "{own:?}");
    }
    // Regions of interest (RGN) in tiles with progression order changes (POC). openjp2 0.6.1 does not support
    // regions of interest in HTJ2K either, and DICOM has no use for them.
    let regions = ["ds0_ht_03", "ds0_ht_15"];
    assert!(refused.iter().all(|name| regions.iter().any(|r| name.contains(r))), "{refused:?}");
}
