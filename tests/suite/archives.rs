//! Folders and archives from the field: files other than slices, and files that violate the standard.

use std::fs;
use std::io::Write;

use ahi_inference::codec::{FrameFormat, Samples, decode};
use ahi_inference::dicom::p10::{self, Content};
use ahi_inference::dicom::{Attributes, FrameKey};
use ahi_inference::error::ErrorKind;
use ahi_inference::memory::Pool;
use ahi_inference::source::ImageSource;
use ahi_inference::source::archive::{self, Limits};
use ahi_inference::source::dicom_files::DicomFiles;
use ahi_inference::source::dicom_objects::DicomObjects;
use dicom_core::{DataElement, PrimitiveValue, VR, dicom_value};
use dicom_dictionary_std::tags;
use dicom_object::{FileMetaTableBuilder, InMemDicomObject};
use dicom_transfer_syntax_registry::{TransferSyntaxIndex, TransferSyntaxRegistry};
use futures::TryStreamExt;
use tempfile::TempDir;

const IMPLICIT: &str = "1.2.840.10008.1.2";
const EXPLICIT: &str = "1.2.840.10008.1.2.1";
const BIG_ENDIAN: &str = "1.2.840.10008.1.2.2";
const DEFLATED: &str = "1.2.840.10008.1.2.1.99";
const CT: &str = "1.2.840.10008.5.1.4.1.1.2";
const CAPTURE: &str = "1.2.840.10008.5.1.4.1.1.7";
const REPORT: &str = "1.2.840.10008.5.1.4.1.1.88.67";
const PRESENTATION: &str = "1.2.840.10008.5.1.4.1.1.11.1";
const DIRECTORY: &str = "1.2.840.10008.1.3.10";
const PATIENT: &str = "Doe^Jane";
const PIXELS: [u16; 6] = [1, 2, 300, 40_000, 5, 65_535];

fn text(tag: dicom_core::Tag, vr: VR, value: &str) -> DataElement<InMemDicomObject> {
    DataElement::new(tag, vr, PrimitiveValue::from(value))
}

/// An object without an image.
fn plain(class: &str, series: &str, instance: &str) -> InMemDicomObject {
    InMemDicomObject::from_element_iter([
        text(tags::SOP_CLASS_UID, VR::UI, class),
        text(tags::SOP_INSTANCE_UID, VR::UI, instance),
        text(tags::MODALITY, VR::CS, "CT"),
        text(tags::PATIENT_NAME, VR::PN, PATIENT),
        text(tags::STUDY_INSTANCE_UID, VR::UI, "1.2.3"),
        text(tags::SERIES_INSTANCE_UID, VR::UI, series),
    ])
}

/// An image without geometry.
fn picture(class: &str, series: &str, instance: &str, samples: u16) -> InMemDicomObject {
    let mut object = plain(class, series, instance);
    let word = |tag, value: u16| DataElement::new(tag, VR::US, PrimitiveValue::from(value));
    for (tag, value) in [
        (tags::SAMPLES_PER_PIXEL, samples),
        (tags::ROWS, 2),
        (tags::COLUMNS, 3),
        (tags::BITS_ALLOCATED, 16),
        (tags::BITS_STORED, 16),
        (tags::PIXEL_REPRESENTATION, 0),
    ] {
        object.put(word(tag, value));
    }
    let pixels = PIXELS.repeat(samples.into());
    let value = PrimitiveValue::U16(pixels.into_iter().collect());
    object.put(DataElement::new(tags::PIXEL_DATA, VR::OW, value));
    object
}

fn slice(series: &str, instance: &str) -> InMemDicomObject {
    let mut object = picture(CT, series, instance, 1);
    let position = dicom_value!(Strs, ["0", "0", "1"]);
    object.put(DataElement::new(tags::IMAGE_POSITION_PATIENT, VR::DS, position));
    let orientation = dicom_value!(Strs, ["1", "0", "0", "0", "1", "0"]);
    object.put(DataElement::new(tags::IMAGE_ORIENTATION_PATIENT, VR::DS, orientation));
    object
}

fn data_set(object: &InMemDicomObject, syntax: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let syntax = TransferSyntaxRegistry.get(syntax).unwrap();
    object.write_dataset_with_ts(&mut bytes, syntax).unwrap();
    bytes
}

/// Returns the preamble and file meta information.
fn meta(class: &str, instance: &str, syntax: &str) -> Vec<u8> {
    let table = FileMetaTableBuilder::new()
        .media_storage_sop_class_uid(class)
        .media_storage_sop_instance_uid(instance)
        .transfer_syntax(syntax)
        .build()
        .unwrap();
    let mut bytes = vec![0; 128];
    bytes.extend(b"DICM");
    table.write(&mut bytes).unwrap();
    bytes
}

fn file(object: &InMemDicomObject) -> Vec<u8> {
    let uid = |tag| object.text(tag).unwrap();
    let meta = meta(&uid(tags::SOP_CLASS_UID), &uid(tags::SOP_INSTANCE_UID), EXPLICIT);
    [meta, data_set(object, EXPLICIT)].concat()
}

/// A DICOMDIR, whose UIDs appear only in its file meta information.
fn directory() -> Vec<u8> {
    let object = InMemDicomObject::from_element_iter([
        text(tags::FILE_SET_ID, VR::CS, "DISC1"),
        DataElement::new(tags::FILE_SET_CONSISTENCY_FLAG, VR::US, PrimitiveValue::from(0_u16)),
    ]);
    [meta(DIRECTORY, "1.9.9", EXPLICIT), data_set(&object, EXPLICIT)].concat()
}

/// Two slices, and the other files found on a typical disc.
fn disc() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("DIRFILE", directory()),
        ("README.TXT", b"Insert the disc and wait for the viewer".to_vec()),
        ("IMAGES/.DS_Store", b"\0\0\0\x01Bud1".to_vec()),
        ("IMAGES/0001", file(&slice("1.5", "1.5.1"))),
        ("IMAGES/0002", file(&slice("1.5", "1.5.2"))),
        ("IMAGES/0003", file(&plain(REPORT, "1.5", "1.5.3"))),
        ("IMAGES/0004", file(&picture(CAPTURE, "1.5", "1.5.4", 1))),
        ("IMAGES/0005", file(&picture(CT, "1.5", "1.5.5", 3))),
        ("IMAGES/0006", file(&plain(PRESENTATION, "1.6", "1.6.1"))),
        ("IMAGES/0007", file(&picture(CAPTURE, "1.7", "1.7.1", 3))),
    ]
}

fn write(files: &[(&str, Vec<u8>)]) -> TempDir {
    let folder = TempDir::new().unwrap();
    for (name, bytes) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    folder
}

fn check_warnings(warnings: &[String]) {
    let all = warnings.join("\n");
    for part in ["directory: 1", "structured report: 1", "presentation state: 1", "2 file(s)"] {
        assert!(all.contains(part), "{part}: {all}");
    }
    assert!(!all.contains("Doe") && !all.contains("README"), "{all}");
}

#[tokio::test]
async fn a_disc_is_read_for_its_slices() {
    let folder = write(&disc());
    let source = DicomFiles::new(folder.path(), None);
    let series = source.series().await.unwrap();
    assert_eq!(series.series_instance_uid, "1.5");
    let slices = series.slices();
    let uids: Vec<&str> =
        slices.instances.iter().map(|&i| series.instances[i].sop_instance_uid.as_str()).collect();
    assert_eq!(uids, ["1.5.1", "1.5.2"]);
    assert_eq!(slices.passed_over.len(), 2);
    check_warnings(&source.warnings());
    let last = source.warnings().pop().unwrap();
    assert!(last.contains("series 1.7") && last.contains("no slices"), "{last}");
    let keys = slices.instances.iter().map(|&instance| FrameKey { instance, frame: 0 }).collect();
    let frames: Vec<_> = source.frames(&series, keys).try_collect().await.unwrap();
    assert_eq!(frames.len(), 2);
}

fn objects() -> DicomObjects {
    DicomObjects::new(Pool::unbounded().open())
}

#[tokio::test]
async fn an_archive_of_a_disc_is_read_for_its_slices() {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, bytes) in disc() {
        zip.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(&bytes).unwrap();
    }
    let bytes = zip.finish().unwrap().into_inner();
    let mut all = objects();
    let size = bytes.len() as u64;
    let format = archive::format(&bytes).unwrap();
    let cursor = std::io::Cursor::new(bytes);
    let limits = Limits::of_bytes(1 << 20);
    archive::read(cursor, size, format, limits, &mut |number, data| all.add(number, &data))
        .unwrap();
    let series = all.into_series().unwrap();
    let uids: Vec<&str> = series.iter().map(|s| s.uid()).collect();
    assert_eq!(uids, ["1.5", "1.7"]);
    check_warnings(&series[0].warnings());
    let first = series[0].series().await.unwrap();
    assert_eq!(first.slices().instances.len(), 2);
    assert!(!series[1].series().await.unwrap().holds_slices());
}

#[tokio::test]
async fn copies_of_an_instance_are_taken_once() {
    let pool = Pool::unbounded();
    let mut all = DicomObjects::new(pool.open());
    let file = file(&slice("1.5", "1.5.1"));
    all.add(1, &file).unwrap();
    all.add(2, &file).unwrap();
    let mut others = DicomObjects::new(pool.open());
    others.add(3, &file).unwrap();
    all.append(others).unwrap();
    let mut other = slice("1.5", "1.5.1");
    other.put(text(tags::PATIENT_COMMENTS, VR::LT, "other"));
    let e = all.add(4, &self::file(&other)).unwrap_err();
    assert!(e.message().contains("twice with different content"), "{e}");
    let series = all.into_series().unwrap();
    assert_eq!(series[0].series().await.unwrap().instances.len(), 1);
    assert!(series[0].warnings()[0].contains("2 file(s) with the same instance"));
}

#[tokio::test]
async fn where_nothing_is_usable_the_error_says_what_there_is() {
    let folder = write(&[
        ("a", file(&plain(REPORT, "1.5", "1.5.3"))),
        ("b", directory()),
        ("notes.txt", b"none".to_vec()),
    ]);
    let e = DicomFiles::new(folder.path(), None).series().await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::NotFound);
    for part in ["directory: 1", "structured report: 1", "1 file(s) that are not DICOM"] {
        assert!(e.message().contains(part), "{e}");
    }
    let mut all = objects();
    all.add(1, &file(&plain(REPORT, "1.5", "1.5.3"))).unwrap();
    all.add(2, b"none").unwrap();
    let e = all.into_series().unwrap_err();
    assert!(e.message().contains("structured report: 1"), "{e}");
}

#[test]
fn an_image_without_its_pixels_is_broken_and_not_passed_over() {
    let mut cut = slice("1.5", "1.5.1");
    cut.remove_element(tags::PIXEL_DATA);
    let mut shorter = plain(CT, "1.5", "1.5.1");
    shorter.remove_element(tags::ROWS);
    for object in [cut, shorter] {
        let folder = write(&[("cut", file(&object))]);
        let e = p10::examine(&folder.path().join("cut")).unwrap_err();
        assert!(e.message().contains("no pixel data"), "{e}");
        let e = objects().add(1, &file(&object)).unwrap_err();
        assert!(e.message().contains("no pixel data"), "{e}");
    }
}

fn pixels_of(bytes: &[u8]) -> Samples {
    let instance = p10::read_bytes(bytes).unwrap();
    assert_eq!(instance.sop_instance_uid, "1.5.1");
    let format = FrameFormat::from_dataset(&instance.dataset).unwrap();
    assert_eq!(instance.frames.len(), 1);
    decode(&instance.transfer_syntax, &instance.frames[0], &format).unwrap()
}

#[test]
fn files_without_what_the_standard_puts_first_are_read() {
    let object = slice("1.5", "1.5.1");
    let whole = file(&object);
    let expected = Samples::U16(PIXELS.to_vec());
    assert_eq!(pixels_of(&whole), expected);
    // The group length is an element of 12 bytes right after the prefix.
    let without_length = [&whole[..132], &whole[144..]].concat();
    let mut wrong_length = whole.clone();
    wrong_length[140..144].copy_from_slice(&7_u32.to_le_bytes());
    let mut too_long = whole.clone();
    too_long[140..144].copy_from_slice(&70_000_u32.to_le_bytes());
    for (what, bytes) in [
        ("no preamble and prefix", whole[132..].to_vec()),
        ("no preamble", whole[128..].to_vec()),
        ("no group length", without_length.clone()),
        ("neither", without_length[132..].to_vec()),
        ("a wrong group length", wrong_length),
        ("a group length beyond the file", too_long),
        ("no file meta information, explicit", data_set(&object, EXPLICIT)),
        ("no file meta information, implicit", data_set(&object, IMPLICIT)),
        ("no file meta information, big endian", data_set(&object, BIG_ENDIAN)),
        ("a preamble alone", [&whole[..132], &data_set(&object, IMPLICIT)].concat()),
    ] {
        assert!(p10::is_dicom(&bytes[..bytes.len().min(p10::HEAD)]), "{what}");
        assert_eq!(pixels_of(&bytes), expected, "{what}");
        let folder = write(&[("x", bytes)]);
        assert!(matches!(p10::examine(&folder.path().join("x")), Ok(Content::Image(_))), "{what}");
    }
}

#[test]
fn big_endian_and_deflated_files_are_read() {
    let object = slice("1.5", "1.5.1");
    let expected = Samples::U16(PIXELS.to_vec());
    let big = [meta(CT, "1.5.1", BIG_ENDIAN), data_set(&object, BIG_ENDIAN)].concat();
    assert_eq!(pixels_of(&big), expected);
    let deflate = |bytes: &[u8]| {
        let mut encoder =
            flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let deflated = |bytes: &[u8]| [meta(CT, "1.5.1", DEFLATED), deflate(bytes)].concat();
    let whole = deflated(&data_set(&object, EXPLICIT));
    assert_eq!(pixels_of(&whole), expected);
    // The last bytes only mark the end of the compressed data; the pixels are complete without them.
    let frames = p10::read_bytes(&whole).unwrap().frames;
    for cut in 132..whole.len() {
        let examined = p10::examine_from(&whole[..cut], cut as u64, &mut |_| Ok(()));
        match examined {
            Err(_) => {}
            Ok(Content::Image(instance)) => {
                assert!(instance.frames == frames && cut + 8 > whole.len(), "cut at {cut}");
            }
            // Cut off before the header shows that this is an image.
            Ok(Content::NoImage(class)) => assert!(class.is_none() || cut < 330, "cut at {cut}"),
        }
    }

    // Memory for the inflated data is reserved before it is allocated, and bounded.
    let mut large = object.clone();
    for (tag, side) in [(tags::ROWS, 2048_u16), (tags::COLUMNS, 4096)] {
        large.put(DataElement::new(tag, VR::US, PrimitiveValue::from(side)));
    }
    large.put(DataElement::new(
        tags::PIXEL_DATA,
        VR::OW,
        PrimitiveValue::from(vec![0_u8; 16 << 20]),
    ));
    let bytes = deflated(&data_set(&large, EXPLICIT));
    assert!(bytes.len() < 1 << 16);
    let mut held = 0;
    let mut hold = |more| {
        held += more;
        Ok(())
    };
    p10::examine_from(&bytes[..], bytes.len() as u64, &mut hold).unwrap();
    assert!(held >= 16 << 20, "{held}");
    let pool = Pool::new("inputs", "MAX_INPUT_BYTES", Some(1 << 20));
    let e = DicomObjects::new(pool.open()).add(1, &bytes).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::PayloadTooLarge);
    large.put(DataElement::new(
        tags::PIXEL_DATA,
        VR::OW,
        PrimitiveValue::from(vec![0_u8; 64 << 20]),
    ));
    let bomb = deflated(&data_set(&large, EXPLICIT));
    let kind = p10::read_bytes(&bomb).unwrap_err().kind();
    assert!(matches!(kind, ErrorKind::InvalidImage | ErrorKind::CorruptFrame), "{kind:?}");
}
