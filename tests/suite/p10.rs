//! DICOM Part 10 files: a real CT series, and defects of files in the field.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use ahi_inference::codec::{FrameFormat, Samples, decode, encode_htj2k};
use ahi_inference::dicom::p10::{list_files, read, read_bytes, read_header, series_in};
use ahi_inference::dicom::{Attributes, FrameKey, Series};
use ahi_inference::error::ErrorKind;
use ahi_inference::source::ImageSource;
use ahi_inference::source::dicom_files::DicomFiles;
use dicom_core::value::{PixelFragmentSequence, Value};
use dicom_core::{DataElement, PrimitiveValue, VR};
use dicom_dictionary_std::tags;
use dicom_object::{FileMetaTableBuilder, InMemDicomObject};
use futures::TryStreamExt;
use tempfile::TempDir;

use crate::common::shared;

const EXPLICIT: &str = "1.2.840.10008.1.2.1";
const HTJ2K_RPCL: &str = "1.2.840.10008.1.2.4.202";
const CT_CLASS: &str = "1.2.840.10008.5.1.4.1.1.2";
const PATIENT: &str = "Doe^Jane";

fn cranium() -> Option<TempDir> {
    let archive = fs::File::open(shared("data/cranium_ct_dicom.zip")?).unwrap();
    let folder = TempDir::new().unwrap();
    zip::ZipArchive::new(archive).unwrap().extract(folder.path()).unwrap();
    Some(folder)
}

fn object(series: &str, instance: &str) -> InMemDicomObject {
    let text = |tag, vr, value: &str| DataElement::new(tag, vr, PrimitiveValue::from(value));
    let word = |tag, value: u16| DataElement::new(tag, VR::US, PrimitiveValue::from(value));
    InMemDicomObject::from_element_iter([
        text(tags::SOP_CLASS_UID, VR::UI, CT_CLASS),
        text(tags::SOP_INSTANCE_UID, VR::UI, instance),
        text(tags::MODALITY, VR::CS, "CT"),
        text(tags::PATIENT_NAME, VR::PN, PATIENT),
        text(tags::STUDY_INSTANCE_UID, VR::UI, "1.2.3"),
        text(tags::SERIES_INSTANCE_UID, VR::UI, series),
        word(tags::SAMPLES_PER_PIXEL, 1),
        word(tags::ROWS, 2),
        word(tags::COLUMNS, 3),
        word(tags::BITS_ALLOCATED, 16),
        word(tags::BITS_STORED, 16),
        word(tags::PIXEL_REPRESENTATION, 1),
    ])
}

fn file(object: InMemDicomObject, transfer_syntax: &str) -> Vec<u8> {
    let meta = FileMetaTableBuilder::new().transfer_syntax(transfer_syntax);
    let mut bytes = Vec::new();
    object.with_meta(meta).unwrap().write_all(&mut bytes).unwrap();
    bytes
}

fn native(series: &str, instance: &str, pixels: &[u16]) -> Vec<u8> {
    let mut object = object(series, instance);
    let value = PrimitiveValue::U16(pixels.iter().copied().collect());
    object.put(DataElement::new(tags::PIXEL_DATA, VR::OW, value));
    file(object, EXPLICIT)
}

#[test]
fn a_ct_series_is_read_with_its_frames() {
    let Some(folder) = cranium() else { return };
    assert_eq!(list_files(folder.path()).unwrap().len(), 108);
    let all = series_in(folder.path()).unwrap();
    assert_eq!(all.len(), 1);
    assert_eq!(all[0].instances.len(), 108);
    for path in list_files(folder.path()).unwrap() {
        let (header, instance) = (read_header(&path).unwrap(), read(&path).unwrap());
        assert_eq!(header.sop_instance_uid, instance.sop_instance_uid);
        // Compared as text, since undefined lengths never compare equal.
        assert_eq!(format!("{:?}", header.dataset), format!("{:?}", instance.dataset));
        assert_eq!(instance.frames.len(), 1);
        assert!(instance.dataset.get(tags::PIXEL_DATA).is_none());
        let format = FrameFormat::from_dataset(&instance.dataset).unwrap();
        let samples = decode(&instance.transfer_syntax, &instance.frames[0], &format).unwrap();
        let (low, high) = samples.min_max().unwrap();
        assert!(low < high && samples.len() == format.pixels(), "{}", path.display());
    }
}

fn all_keys(series: &Series) -> Vec<FrameKey> {
    let keys = |(instance, i): (usize, &ahi_inference::dicom::Instance)| {
        (0..i.frames.len()).map(move |frame| FrameKey { instance, frame }).collect::<Vec<_>>()
    };
    series.instances.iter().enumerate().flat_map(keys).collect()
}

#[tokio::test]
async fn a_folder_is_a_source_of_every_frame() {
    let Some(folder) = cranium() else { return };
    let source = DicomFiles::new(folder.path(), None);
    let series = source.series().await.unwrap();
    let keys = all_keys(&series);
    let frames: Vec<_> = source.frames(&series, keys.clone()).try_collect().await.unwrap();
    let got: BTreeSet<FrameKey> = frames.iter().map(|f| f.key).collect();
    assert_eq!(got, keys.into_iter().collect());
    for frame in frames {
        let instance = &series.instances[frame.key.instance];
        let format = FrameFormat::from_dataset(&instance.dataset).unwrap();
        assert!(decode(&instance.transfer_syntax, &frame.data, &format).is_ok());
    }
}

#[tokio::test]
async fn one_of_several_series_has_to_be_named() {
    let folder = TempDir::new().unwrap();
    for (series, instance) in [("1.5", "1.5.1"), ("1.6", "1.6.1"), ("1.6", "1.6.2")] {
        fs::write(folder.path().join(instance), native(series, instance, &[1; 6])).unwrap();
    }
    let e = DicomFiles::new(folder.path(), None).series().await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::InvalidRequest);
    assert!(e.message().contains("1.5 (CT, 1 instances); 1.6 (CT, 2 instances)"), "{e}");
    let source = DicomFiles::new(folder.path(), Some("1.6".into()));
    let series = source.series().await.unwrap();
    assert_eq!(series.instances.len(), 2);

    // A file that disappears ends the stream with an error that names it.
    fs::remove_file(folder.path().join("1.6.2")).unwrap();
    let stream = source.frames(&series, all_keys(&series));
    let e = stream.try_collect::<Vec<_>>().await.unwrap_err();
    assert!(e.message().contains("1.6.2"), "{e}");

    let e = DicomFiles::new(folder.path(), Some("1.7".into())).series().await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::NotFound);
    fs::write(folder.path().join("copy"), native("1.6", "1.6.1", &[1; 6])).unwrap();
    let source = DicomFiles::new(folder.path(), Some("1.6".into()));
    assert_eq!(source.series().await.unwrap().instances.len(), 1);
    assert!(
        source.warnings().iter().any(|w| w.contains("same instance")),
        "{:?}",
        source.warnings()
    );
    fs::write(folder.path().join("copy"), native("1.6", "1.6.1", &[2; 6])).unwrap();
    let e = DicomFiles::new(folder.path(), Some("1.6".into())).series().await.unwrap_err();
    assert!(e.message().contains("same instance 1.6.1"), "{e}");
}

#[test]
fn native_frames_are_split_by_size() {
    let with_frames = |frames: &str, pixels: &[u16]| {
        let mut object = object("1.5", "1.5.1");
        object.put(DataElement::new(tags::NUMBER_OF_FRAMES, VR::IS, PrimitiveValue::from(frames)));
        let value = PrimitiveValue::U16(pixels.iter().copied().collect());
        object.put(DataElement::new(tags::PIXEL_DATA, VR::OW, value));
        read_bytes(&file(object, EXPLICIT))
    };
    let pixels: Vec<u16> = (0..12).collect();
    let instance = with_frames("2", &pixels).unwrap();
    assert_eq!(instance.frames.len(), 2);
    assert_eq!(instance.frames[1][..2], [6, 0]);
    for (frames, kind) in [
        ("3", ErrorKind::CorruptFrame),
        ("1", ErrorKind::CorruptFrame),
        ("0", ErrorKind::InvalidImage),
        ("2000000000", ErrorKind::InvalidImage),
    ] {
        assert_eq!(with_frames(frames, &pixels).unwrap_err().kind(), kind, "{frames} frames");
    }
}

#[test]
fn encapsulated_frames_come_back_as_they_were_stored() {
    let format = FrameFormat {
        rows: 2,
        columns: 3,
        bits_allocated: 16,
        bits_stored: 16,
        signed: true,
        float: false,
    };
    let frames: Vec<Samples> =
        (0..3).map(|k| Samples::I16((0..6).map(|i| i * 100 - k).collect())).collect();
    let encoded: Vec<Vec<u8>> = frames.iter().map(|s| encode_htj2k(s, &format).unwrap()).collect();
    // The second frame in two fragments, without an offset table.
    let middle = (encoded[1].len() / 2) & !1;
    let fragments = [&encoded[0][..], &encoded[1][..middle], &encoded[1][middle..], &encoded[2]];
    let fragments = fragments.map(|f| {
        let mut f = f.to_vec();
        f.resize(f.len().next_multiple_of(2), 0);
        f
    });
    let mut object = object("1.5", "1.5.1");
    object.put(DataElement::new(tags::NUMBER_OF_FRAMES, VR::IS, PrimitiveValue::from("3")));
    let sequence = PixelFragmentSequence::new_fragments(fragments.to_vec());
    object.put(DataElement::new(tags::PIXEL_DATA, VR::OB, Value::from(sequence)));
    let bytes = file(object, HTJ2K_RPCL);
    let instance = read_bytes(&bytes).unwrap();
    assert_eq!(instance.transfer_syntax, HTJ2K_RPCL);
    for (data, expected) in instance.frames.iter().zip(&frames) {
        assert_eq!(&decode(HTJ2K_RPCL, data, &format).unwrap(), expected);
    }
    assert_eq!(instance.frames.len(), 3);
}

#[test]
fn truncated_files_are_refused_without_naming_the_patient() {
    let folder = TempDir::new().unwrap();
    let whole = native("1.5", "1.5.1", &[7; 6]);
    let path = folder.path().join("cut.dcm");
    for cut in 0..whole.len() {
        fs::write(&path, &whole[..cut]).unwrap();
        let whole_elements = read(&path);
        if let Ok(instance) = &whole_elements {
            // Cut between two elements, a file looks as if it never had an image.
            assert!(instance.frames.is_empty(), "cut at {cut}");
            assert_eq!(instance.dataset.integer(tags::ROWS), None, "cut at {cut}");
        }
        for e in whole_elements.err().into_iter().chain(read_header(&path).err()) {
            let told = format!("{e:?}");
            assert!(e.message().contains("cut.dcm"), "cut at {cut}: {told}");
            assert!(!told.contains("Doe"), "cut at {cut}: {told}");
        }
    }
    fs::write(&path, &whole).unwrap();
    assert!(read(&path).is_ok());
}

#[test]
fn damaged_files_do_not_panic() {
    let whole = native("1.5", "1.5.1", &[7; 6]);
    for bit in 8 * 128..8 * whole.len() {
        let mut damaged = whole.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        if let Ok(instance) = read_bytes(&damaged) {
            assert!(instance.frames.iter().map(|f| f.len()).sum::<usize>() <= whole.len());
        }
    }
}

#[test]
fn lengths_and_nesting_beyond_reason_are_refused_before_they_cost_anything() {
    let whole = native("1.5", "1.5.1", &[7; 6]);
    let at = whole.windows(4).position(|w| w == b"\xE0\x7F\x10\0").unwrap();
    let mut bomb = whole.clone();
    bomb[at + 8..at + 12].copy_from_slice(&0xFFFF_FF00_u32.to_le_bytes());
    assert_eq!(read_bytes(&bomb).unwrap_err().kind(), ErrorKind::InvalidImage);
    // Sequences of undefined length within items of undefined length, 100,000 deep.
    let mut nested = whole[..at].to_vec();
    for _ in 0..100_000 {
        nested.extend_from_slice(b"\x40\0\x75\x02SQ\0\0\xFF\xFF\xFF\xFF");
        nested.extend_from_slice(b"\xFE\xFF\0\xE0\xFF\xFF\xFF\xFF");
    }
    assert_eq!(read_bytes(&nested).unwrap_err().kind(), ErrorKind::InvalidImage);
}

#[test]
fn encodings_of_the_data_set_that_nothing_reads_are_named() {
    let mut bytes = native("1.5", "1.5.1", &[1; 6]);
    let at = bytes.windows(19).position(|w| w == EXPLICIT.as_bytes()).unwrap();
    bytes[at + 18] = b'7';
    let e = read_bytes(&bytes).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::UnsupportedPixelData);
    assert!(e.message().contains("1.2.840.10008.1.2.7"), "{e}");
}

#[test]
fn folders_are_searched_without_following_links() {
    let folder = TempDir::new().unwrap();
    let below = folder.path().join("a/b");
    fs::create_dir_all(&below).unwrap();
    let image = native("1.5", "1.5.1", &[7; 6]);
    for name in ["2", "1", "DICOMDIR"] {
        fs::write(below.join(name), &image).unwrap();
    }
    fs::write(folder.path().join("notes.txt"), "no image").unwrap();
    link(folder.path(), &below.join("loop"));
    link(&below.join("1"), &folder.path().join("3"));
    let files = list_files(folder.path()).unwrap();
    assert_eq!(files, ["1", "2", "DICOMDIR"].map(|name| below.join(name)), "whatever the name");
    assert_eq!(list_files(&folder.path().join("none")).unwrap_err().kind(), ErrorKind::NotFound);
}

fn link(target: &Path, at: &Path) {
    std::os::unix::fs::symlink(target, at).unwrap();
}
