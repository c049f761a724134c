//! The HTJ2K decoder with every instruction set available here, compared with raw pixels, `openjp2`, and across
//! instruction sets.

mod blocks;
mod conformance;
mod images;
mod random;
mod refinement;

use std::fs::{self, File};
use std::path::Path;

use ahi_inference::codec::{
    FrameFormat, Instructions, Samples, decode, decode_htj2k, decode_reduced, encode_htj2k,
};
use ahi_inference::dicom::Dataset;
use ahi_inference::error::ErrorKind;
use ahi_inference::phantom::PhantomArgs;
use dicom_dictionary_std::tags;
use dicom_object::{DefaultDicomObject, from_reader, open_file};
use rayon::prelude::*;

use crate::common::{format_of, shared};

const HTJ2K: &str = "1.2.840.10008.1.2.4.202";
/// JPEG 2000 with either block coder, which only `openjp2` decodes.
const JPEG_2000: &str = "1.2.840.10008.1.2.4.90";

/// Asserts that every decoder decodes a frame to `samples`.
fn check_exact(name: &str, data: &[u8], format: &FrameFormat, samples: &Samples) {
    for instructions in Instructions::available() {
        let decoded = decode_htj2k(data, format, 0, instructions);
        let decoded = decoded.unwrap_or_else(|e| panic!("{name} by {instructions}: {e}"));
        assert!(decoded.as_ref() == Some(samples), "{name} by {instructions}");
    }
    assert!(decode(JPEG_2000, data, format).unwrap() == *samples, "{name} by openjp2");
}

/// Asserts that a frame's lower resolutions match those of `openjp2`.
fn check_reduced(name: &str, data: &[u8], format: &FrameFormat, levels: u8) {
    for reduced in 1..=levels + 1 {
        let (size, reference) = decode_reduced(JPEG_2000, data, format, reduced).unwrap();
        assert_eq!(reference.len(), size.pixels());
        assert_eq!(size.rows, format.rows.div_ceil(1 << reduced.min(levels)));
        for instructions in Instructions::available() {
            let decoded = decode_htj2k(data, format, reduced, instructions).unwrap();
            assert!(decoded.as_ref() == Some(&reference), "{name} / {reduced} by {instructions}");
        }
        let (own_size, own) = decode_reduced(HTJ2K, data, format, reduced).unwrap();
        assert!(own_size == size && own == reference, "{name} / {reduced}");
    }
}

/// Returns the number of decomposition levels stated in COD.
fn levels_of(data: &[u8]) -> u8 {
    let cod = data.windows(2).position(|w| w == [0xFF, 0x52]).unwrap();
    data[cod + 9]
}

#[test]
fn real_frames_are_exact_at_every_resolution() {
    let Some(folder) = shared("data/htj2k") else { return };
    let mut count = 0;
    for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if path.extension().is_none_or(|e| e != "j2c") {
            continue;
        }
        let data = fs::read(&path).unwrap();
        let raw = fs::read(path.with_extension("raw")).unwrap();
        let format = format_of(&data);
        let samples = decode("1.2.840.10008.1.2.1", &raw, &format).unwrap();
        let name = path.display().to_string();
        check_exact(&name, &data, &format, &samples);
        check_reduced(&name, &data, &format, levels_of(&data));
        count += 1;
    }
    assert!(count >= 4, "{count} frames");
}

/// Returns the format and native pixels of a single-frame DICOM object.
fn native(object: &DefaultDicomObject) -> (FrameFormat, Samples) {
    let dataset: &Dataset = object;
    let format = FrameFormat::from_dataset(dataset).unwrap();
    let pixels = dataset.element(tags::PIXEL_DATA).unwrap().to_bytes().unwrap();
    let samples = decode("1.2.840.10008.1.2.1", &pixels, &format).unwrap();
    (format, samples)
}

/// Encodes and decodes a frame, and every eighth one also at lower resolutions.
fn check_encoded(number: usize, name: &str, object: &DefaultDicomObject) {
    let (format, samples) = native(object);
    let data = encode_htj2k(&samples, &format).unwrap();
    check_exact(name, &data, &format, &samples);
    if number.is_multiple_of(8) {
        check_reduced(name, &data, &format, levels_of(&data));
    }
}

#[test]
fn every_frame_of_a_cranium_is_exact() {
    let Some(path) = shared("data/cranium_ct_dicom.zip") else { return };
    let mut archive = zip::ZipArchive::new(File::open(path).unwrap()).unwrap();
    let mut objects = Vec::new();
    for index in 0..archive.len() {
        let mut file = archive.by_index(index).unwrap();
        if file.name().ends_with(".dcm") {
            let mut bytes = Vec::new();
            std::io::copy(&mut file, &mut bytes).unwrap();
            objects.push((file.name().to_owned(), bytes));
        }
    }
    assert!(objects.len() > 100, "{} objects", objects.len());
    objects.par_iter().enumerate().for_each(|(number, (name, bytes))| {
        check_encoded(number, name, &from_reader(&bytes[..]).unwrap());
    });
}

fn check_phantom(folder: &Path, size: u16, slices: u16) {
    let phantom = PhantomArgs {
        out: folder.to_owned(),
        seed: 7,
        size,
        slices,
        spacing: 320.0 / f64::from(size),
        slice_spacing: 2.0,
    };
    phantom.write().unwrap();
    let files = fs::read_dir(folder.join("dicom")).unwrap();
    let files: Vec<_> = files.map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), usize::from(slices));
    files.par_iter().enumerate().for_each(|(number, path)| {
        check_encoded(number, &path.display().to_string(), &open_file(path).unwrap());
    });
}

#[test]
fn every_frame_of_a_phantom_is_exact() {
    let folder = tempfile::tempdir().unwrap();
    check_phantom(&folder.path().join("small"), 128, 120);
    check_phantom(&folder.path().join("large"), 512, 6);
}

#[test]
fn lower_resolutions_are_refused_where_there_are_none() {
    let format = FrameFormat {
        rows: 2,
        columns: 2,
        bits_allocated: 16,
        bits_stored: 16,
        signed: false,
        float: false,
    };
    let e = decode_reduced("1.2.840.10008.1.2.1", &[0; 8], &format, 1).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::UnsupportedPixelData);
    assert!(e.message().contains("resolution"), "{e}");
    let e = decode_reduced(HTJ2K, &[0; 8], &format, 1).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::CorruptFrame);
}
