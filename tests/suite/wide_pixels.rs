//! Pixels stored as 32-bit integers or floating-point numbers, from files to a volume and back to files.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use ahi_inference::codec::{FrameFormat, decode};
use ahi_inference::dicom::p10::{self, P10Instance};
use ahi_inference::emulator::api::Options;
use ahi_inference::emulator::import::import;
use ahi_inference::emulator::store::Store;
use ahi_inference::error::{ErrorKind, Result};
use ahi_inference::pipeline::fetch::{self, Pixels};
use ahi_inference::pipeline::{Holding, frames};
use ahi_inference::policy::{Policy, Wanted};
use ahi_inference::progress::Silent;
use ahi_inference::source::ImageSource;
use ahi_inference::source::ahi::{AhiSource, ImageSetId};
use ahi_inference::source::dicom_files::DicomFiles;
use ahi_inference::volume;
use dicom_core::value::{PixelFragmentSequence, Value};
use dicom_core::{DataElement, PrimitiveValue, Tag, VR};
use dicom_dictionary_std::tags;
use dicom_encoding::TransferSyntaxIndex;
use dicom_object::{FileMetaTableBuilder, InMemDicomObject};
use dicom_transfer_syntax_registry::TransferSyntaxRegistry;
use tempfile::TempDir;

use super::emulator::{client, serve};

const IMPLICIT: &str = "1.2.840.10008.1.2";
const EXPLICIT: &str = "1.2.840.10008.1.2.1";
const DEFLATED: &str = "1.2.840.10008.1.2.1.99";
const BIG_ENDIAN: &str = "1.2.840.10008.1.2.2";
const RLE: &str = "1.2.840.10008.1.2.5";
const HTJ2K: &str = "1.2.840.10008.1.2.4.201";
const NATIVE: [&str; 4] = [IMPLICIT, EXPLICIT, DEFLATED, BIG_ENDIAN];

/// Returns a slice of 2 rows and 3 columns without its pixels. Rescaling halves values and adds ten.
fn slice(number: usize, bits: u16) -> InMemDicomObject {
    let text = |tag, vr, value: &str| DataElement::new(tag, vr, PrimitiveValue::from(value));
    let list = |tag, values: &[&str]| {
        let values = values.iter().map(|value| (*value).to_owned()).collect();
        DataElement::new(tag, VR::DS, PrimitiveValue::Strs(values))
    };
    let word = |tag, value: u16| DataElement::new(tag, VR::US, PrimitiveValue::from(value));
    InMemDicomObject::from_element_iter([
        text(tags::SOP_CLASS_UID, VR::UI, "1.2.840.10008.5.1.4.1.1.30"),
        text(tags::SOP_INSTANCE_UID, VR::UI, &format!("1.5.1.{number}")),
        text(tags::MODALITY, VR::CS, "MR"),
        text(tags::STUDY_INSTANCE_UID, VR::UI, "1.2.3"),
        text(tags::SERIES_INSTANCE_UID, VR::UI, "1.5"),
        text(tags::INSTANCE_NUMBER, VR::IS, &number.to_string()),
        list(tags::IMAGE_POSITION_PATIENT, &["0", "0", &number.to_string()]),
        list(tags::IMAGE_ORIENTATION_PATIENT, &["1", "0", "0", "0", "1", "0"]),
        list(tags::PIXEL_SPACING, &["1", "1"]),
        text(tags::RESCALE_SLOPE, VR::DS, "0.5"),
        text(tags::RESCALE_INTERCEPT, VR::DS, "10"),
        text(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "MONOCHROME2"),
        word(tags::SAMPLES_PER_PIXEL, 1),
        word(tags::ROWS, 2),
        word(tags::COLUMNS, 3),
        word(tags::BITS_ALLOCATED, bits),
    ])
}

fn integers(number: usize, signed: bool, stored: u16, pixels: PrimitiveValue) -> InMemDicomObject {
    let mut object = slice(number, 32);
    for (tag, value) in [
        (tags::BITS_STORED, stored),
        (tags::HIGH_BIT, stored - 1),
        (tags::PIXEL_REPRESENTATION, u16::from(signed)),
    ] {
        object.put(DataElement::new(tag, VR::US, PrimitiveValue::from(value)));
    }
    object.put(DataElement::new(tags::PIXEL_DATA, VR::OW, pixels));
    object
}

/// Splits pixels into 16-bit words, the low word first, as OW has them in any byte order.
fn words(pixels: &[u32]) -> PrimitiveValue {
    PrimitiveValue::U16(pixels.iter().flat_map(|v| [*v as u16, (v >> 16) as u16]).collect())
}

fn floats(number: usize, pixels: &[f32]) -> InMemDicomObject {
    let mut object = slice(number, 32);
    let value = PrimitiveValue::F32(pixels.iter().copied().collect());
    object.put(DataElement::new(tags::FLOAT_PIXEL_DATA, VR::OF, value));
    object
}

fn doubles(number: usize, pixels: &[f64]) -> InMemDicomObject {
    let mut object = slice(number, 64);
    let value = PrimitiveValue::F64(pixels.iter().copied().collect());
    object.put(DataElement::new(tags::DOUBLE_FLOAT_PIXEL_DATA, VR::OD, value));
    object
}

/// Writes a series to files in a temporary folder.
fn files(objects: &[InMemDicomObject], syntax: &str) -> TempDir {
    let folder = TempDir::new().unwrap();
    for object in objects {
        let uid = object.element(tags::SOP_INSTANCE_UID).unwrap().to_str().unwrap();
        let meta = FileMetaTableBuilder::new()
            .media_storage_sop_class_uid("1.2.840.10008.5.1.4.1.1.30")
            .media_storage_sop_instance_uid(uid.as_ref())
            .transfer_syntax(syntax)
            .build()
            .unwrap();
        let mut bytes = vec![0; 128];
        bytes.extend(b"DICM");
        meta.write(&mut bytes).unwrap();
        let written = if syntax == DEFLATED { EXPLICIT } else { syntax };
        let written = TransferSyntaxRegistry.get(written).unwrap();
        let mut set = Vec::new();
        object.write_dataset_with_ts(&mut set, written).unwrap();
        if syntax == DEFLATED {
            let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), Default::default());
            encoder.write_all(&set).unwrap();
            set = encoder.finish().unwrap();
        }
        bytes.extend(set);
        fs::write(folder.path().join(uid.as_ref()), bytes).unwrap();
    }
    folder
}

/// Loads the voxels of a source, slice by slice and row by row.
async fn voxels(source: &dyn ImageSource) -> Result<Vec<f32>> {
    let series = Arc::new(source.series().await?);
    let plan = volume::plan(&series, &Policy::default(), Wanted::Any)?.remove(0);
    let plan = Arc::new(plan);
    let (volume, stats) =
        frames::load(source, &series, &plan, &Silent, &Holding::nothing(), false).await?;
    assert_eq!(stats.frames, series.instances.len());
    // X runs fastest in memory.
    let voxels = volume.into_physical()?;
    Ok(voxels.t().iter().copied().collect())
}

async fn read(folder: &Path) -> Result<Vec<f32>> {
    voxels(&DicomFiles::new(folder, None)).await
}

fn physical(stored: impl IntoIterator<Item = f64>) -> Vec<f32> {
    stored.into_iter().map(|v| (v * 0.5 + 10.0) as f32).collect()
}

const LONG: [[u32; 6]; 2] = [
    [0, 1, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF, 0x0123_4567],
    [0x89AB_CDEF, 65_535, 65_536, 0x00FF_FFFF, 0xFF00_0000, 42],
];
const SINGLE: [[f32; 6]; 2] =
    [[0.0, -0.25, 1e-30, f32::MAX, -f32::MAX, 3.5], [1.0, 16_777_217.0, -7.0, 0.1, 1e10, -1e-3]];
const DOUBLE: [[f64; 6]; 2] =
    [[0.0, -0.25, 1e-300, 6e38, -6e38, 3.5], [1.0, 16_777_217.0, -7.0, 0.1, 1e10, -1e-3]];

/// Returns two slices of each kind and their voxels.
fn kinds() -> Vec<(&'static str, [InMemDicomObject; 2], Vec<f32>)> {
    let of = |make: &dyn Fn(usize) -> InMemDicomObject| [make(0), make(1)];
    let long = || LONG.into_iter().flatten();
    vec![
        (
            "signed",
            of(&|i| integers(i, true, 32, words(&LONG[i]))),
            physical(long().map(|v| (v as i32).into())),
        ),
        (
            "unsigned",
            of(&|i| integers(i, false, 32, words(&LONG[i]))),
            physical(long().map(f64::from)),
        ),
        (
            "signed, 20 bits stored",
            of(&|i| integers(i, true, 20, words(&LONG[i]))),
            physical(long().map(|v| (((v << 12) as i32) >> 12).into())),
        ),
        (
            "float",
            of(&|i| floats(i, &SINGLE[i])),
            physical(SINGLE.into_iter().flatten().map(f64::from)),
        ),
        ("double", of(&|i| doubles(i, &DOUBLE[i])), physical(DOUBLE.into_iter().flatten())),
    ]
}

#[tokio::test]
async fn voxels_are_those_of_the_files_in_every_native_transfer_syntax() {
    for (kind, objects, expected) in kinds() {
        for syntax in NATIVE {
            let folder = files(&objects, syntax);
            assert_eq!(read(folder.path()).await.unwrap(), expected, "{kind}, {syntax}");
        }
    }
}

#[tokio::test]
async fn monochrome1_is_mirrored_in_32_bits_and_refused_of_floats() {
    let inverted = |mut object: InMemDicomObject| {
        object.put(DataElement::new(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "MONOCHROME1"));
        object
    };
    let [first, second] = [0, 1].map(|i| integers(i, false, 32, words(&LONG[i])));
    let folder = files(&[inverted(first), inverted(second)], EXPLICIT);
    let expected = physical(LONG.into_iter().flatten().map(|v| f64::from(u32::MAX - v)));
    assert_eq!(read(folder.path()).await.unwrap(), expected);
    let folder = files(&[inverted(floats(0, &SINGLE[0]))], EXPLICIT);
    let e = read(folder.path()).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::UnsupportedPixelData);
    assert!(e.message().contains("1.5.1.0") && e.message().contains("MONOCHROME1"), "{e}");
}

#[tokio::test]
async fn what_is_no_number_is_refused_naming_the_frame() {
    let with = |value: f32| [floats(0, &SINGLE[0]), floats(1, &[0.0, 1.0, value, 2.0, 3.0, 4.0])];
    // 1e39 is finite in 64 bits, but not in 32.
    let large = [doubles(0, &DOUBLE[0]), doubles(1, &[0.0, 1.0, 1e39, 2.0, 3.0, 4.0])];
    for objects in [with(f32::NAN), with(f32::INFINITY), with(f32::NEG_INFINITY), large] {
        let folder = files(&objects, EXPLICIT);
        let e = read(folder.path()).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::InvalidImage);
        assert!(e.message().contains("1.5.1.1, frame 1") && e.message().contains("finite"), "{e}");
    }
}

#[tokio::test]
async fn what_would_be_misread_is_refused() {
    // Compressed in a form that is decoded with 16 bits only, which is known before any frame is read.
    let mut packed = integers(0, true, 32, words(&LONG[0]));
    let fragments = PixelFragmentSequence::new_fragments(vec![vec![0_u8; 64]]);
    packed.put(DataElement::new(tags::PIXEL_DATA, VR::OB, Value::from(fragments)));
    let e = read(files(&[packed], HTJ2K).path()).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::UnsupportedPixelData);
    assert!(e.message().contains(HTJ2K) && e.message().contains("1.5.1.0"), "{e}");
    // Integers whose sign is not stated are not read as floating-point numbers.
    let mut unsaid = integers(0, true, 32, words(&LONG[0]));
    for tag in [tags::BITS_STORED, tags::HIGH_BIT, tags::PIXEL_REPRESENTATION] {
        unsaid.remove_element(tag);
    }
    let e = read(files(&[unsaid], EXPLICIT).path()).await.unwrap_err();
    assert!(e.message().contains("PixelRepresentation"), "{e}");
    // Floating-point pixels remain so whatever the header says about bits.
    let mut stray = floats(0, &SINGLE[0]);
    stray.put(DataElement::new(tags::BITS_STORED, VR::US, PrimitiveValue::from(16_u16)));
    stray.put(DataElement::new(tags::PIXEL_REPRESENTATION, VR::US, PrimitiveValue::from(0_u16)));
    let expected = physical(SINGLE[0].map(f64::from));
    assert_eq!(read(files(&[stray], EXPLICIT).path()).await.unwrap(), expected);
    // Bits Allocated that does not match the element.
    let mut short = floats(0, &SINGLE[0]);
    short.put(DataElement::new(tags::BITS_ALLOCATED, VR::US, PrimitiveValue::from(16_u16)));
    short.put(DataElement::new(tags::COLUMNS, VR::US, PrimitiveValue::from(6_u16)));
    let e = read(files(&[short], EXPLICIT).path()).await.unwrap_err();
    assert!(e.message().contains("FloatPixelData"), "{e}");
    // Bytes whose order is unknown.
    let mut bytes = integers(0, true, 32, words(&LONG[0]));
    bytes.put(DataElement::new(tags::PIXEL_DATA, VR::OB, PrimitiveValue::from(vec![0_u8; 24])));
    let e = read(files(&[bytes], BIG_ENDIAN).path()).await.unwrap_err();
    assert!(e.message().contains("big endian"), "{e}");
}

#[tokio::test]
async fn rle_of_32_bits_is_read() {
    // One literal run per byte plane, the highest first.
    let frame = |pixels: &[u32; 6]| {
        let mut data = vec![0_u8; 64];
        data[0] = 4;
        for plane in 0..4 {
            let offset = data.len() as u32;
            data[4 + 4 * plane..8 + 4 * plane].copy_from_slice(&offset.to_le_bytes());
            data.push(5);
            data.extend(pixels.iter().map(|v| v.to_be_bytes()[plane]));
            data.push(128);
        }
        data
    };
    let objects = [0, 1].map(|i| {
        let mut object = integers(i, true, 32, words(&LONG[i]));
        let fragments = PixelFragmentSequence::new_fragments(vec![frame(&LONG[i])]);
        object.put(DataElement::new(tags::PIXEL_DATA, VR::OB, Value::from(fragments)));
        object
    });
    let expected = physical(LONG.into_iter().flatten().map(|v| (v as i32).into()));
    assert_eq!(read(files(&objects, RLE).path()).await.unwrap(), expected);
}

/// Returns whether a file has this element at the top level.
fn has(path: &Path, tag: Tag) -> bool {
    dicom_object::open_file(path).unwrap().element(tag).is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_set_retains_them_and_they_are_fetched_as_they_were() {
    for (kind, objects, expected) in kinds() {
        let (folder, root) = (files(&objects, IMPLICIT), TempDir::new().unwrap());
        let store = Store::open(root.path()).unwrap();
        let made = import(&store, None, folder.path(), &|_, _| {}).unwrap();
        assert!(made.failures.is_empty(), "{kind}: {:?}", made.failures);
        let id = ImageSetId::new(&made.datastore_id, &made.image_sets[0].image_set_id).unwrap();
        let endpoint = serve(store, Options::default()).await;
        let source = AhiSource::new(client(endpoint).await, id, None).unwrap();
        assert_eq!(voxels(&source).await.unwrap(), expected, "{kind}");
        let series = Arc::new(source.series().await.unwrap());
        // HealthImaging does not store images in implicit VR.
        assert_eq!(series.instances[0].transfer_syntax, EXPLICIT);
        for pixels in [Pixels::Decoded, Pixels::Stored] {
            let out = TempDir::new().unwrap();
            let plan = fetch::Plan { pixels, at_once: 4, writing: Arc::new(()) };
            fetch::fetch(&source, &series, out.path(), &plan, &|_| {}).await.unwrap();
            assert_eq!(read(out.path()).await.unwrap(), expected, "{kind}, {pixels:?}");
            for object in &objects {
                let uid = object.element(tags::SOP_INSTANCE_UID).unwrap().to_str().unwrap();
                let written = out.path().join(format!("{uid}.dcm"));
                for tag in [tags::PIXEL_DATA, tags::FLOAT_PIXEL_DATA, tags::DOUBLE_FLOAT_PIXEL_DATA]
                {
                    assert_eq!(has(&written, tag), object.element(tag).is_ok(), "{kind}, {tag}");
                }
                // Bits above those stored are not part of a pixel and need not be preserved.
                let pixels = |path: &Path| {
                    let P10Instance { dataset, transfer_syntax, frames, .. } =
                        p10::read(path).unwrap();
                    let format = FrameFormat::from_dataset(&dataset).unwrap();
                    (format, decode(&transfer_syntax, &frames[0], &format).unwrap())
                };
                assert_eq!(pixels(&written), pixels(&folder.path().join(&*uid)), "{kind}");
            }
        }
    }
}

#[tokio::test]
async fn what_is_no_number_is_nevertheless_fetched() {
    let folder = files(&[floats(0, &[f32::NAN; 6])], EXPLICIT);
    let source = DicomFiles::new(folder.path(), None);
    let series = Arc::new(source.series().await.unwrap());
    let out = TempDir::new().unwrap();
    let plan = fetch::Plan { pixels: Pixels::Decoded, at_once: 4, writing: Arc::new(()) };
    fetch::fetch(&source, &series, out.path(), &plan, &|_| {}).await.unwrap();
    let frames = p10::read(&out.path().join("1.5.1.0.dcm")).unwrap().frames;
    assert_eq!(frames[0][..], [f32::NAN; 6].map(f32::to_le_bytes).as_flattened()[..]);
}
