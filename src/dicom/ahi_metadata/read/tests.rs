use std::io::Write;

use dicom_core::{Tag, VR};
use dicom_dictionary_std::tags;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const SERIES: &str = "1.2.3.4";
const INSTANCE: &str = "1.2.3.4.5";

/// A document with the features of real ones: padding, nulls, private attributes, sequences.
fn document() -> Value {
    let instance = json!({
        "DICOM": {
            "SOPClassUID": "1.2.840.10008.5.1.4.1.1.2",
            "SOPInstanceUID": INSTANCE,
            "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
            "ImagePositionPatient": ["-158.135803 ", "-179.035797", "-75.699997"],
            "RescaleIntercept": "-1000 ",
            "SliceLocation": null,
            "Rows": 512,
            "PixelRepresentation": 1,
            "SmallestImagePixelValue": -2000,
            "RedPaletteColorLookupTableData": "AQID",
            "ReferencedImageSequence": [
                {"ReferencedSOPInstanceUID": "1.2.9", "00091002": "inner",
                 "PurposeOfReferenceCodeSequence": [{"CodeValue": "121311"}]}
            ],
            "FrameIncrementPointer": ["00181063"],
            "WindowCenter": "40\\80",
            "00090010": "ACME",
            "00091001": "12.5 ",
            "(0009,1002)": "x",
            "0009,1003": "not base64!",
            "NoSuchKeywordAtAll": "Doe^John",
            "TransferSyntaxUID": "1.2.840.10008.1.2.1",
            "PixelData": "AAAA",
        },
        "DICOMVRs": {"00091001": "DS", "(0009,1002)": "SH", "00091002": "SH", "0009,1003": "OB"},
        "StoredTransferSyntaxUID": null,
        "ChecksumType": "CRC32",
        "ImageFrames": [{
            "ID": "67890678906789012345123451234512",
            "PixelDataChecksumFromBaseToFullResolution": [
                {"Width": 256, "Height": 188, "Checksum": 2598394845u32},
                {"Width": 512, "Height": 375, "Checksum": 1227709180u32},
            ],
            "MinPixelValue": 451, "MaxPixelValue": 1466, "FrameSizeInBytes": 384000,
        }],
    });
    json!({
        "SchemaVersion": "1.1",
        "DatastoreID": "12345678901234567890123456789012",
        "ImageSetID": "abcdefabcdefabcdefabcdefabcdefab",
        "Patient": {"DICOM": {"PatientName": "Doe^John", "PatientBirthDate": ""}},
        "Study": {
            "DICOM": {"StudyInstanceUID": "1.2.3", "StudyDate": "20200101"},
            "Series": {SERIES: {
                "DICOM": {"Modality": "CT ", "SeriesNumber": "4 ", "SeriesInstanceUID": SERIES},
                "Instances": {INSTANCE: instance},
            }},
        },
    })
}

fn parse_value(document: &Value) -> Result<ImageSetMetadata> {
    parse(&serde_json::to_vec(document).unwrap())
}

#[test]
fn the_levels_become_one_data_set() {
    let metadata = parse_value(&document()).unwrap();
    assert_eq!(metadata.image_set_id, "abcdefabcdefabcdefabcdefabcdefab");
    assert_eq!(metadata.series.study_instance_uid, "1.2.3");
    assert_eq!(metadata.series.series_instance_uid, SERIES);
    assert!(!format!("{metadata:?}").contains("Doe"));
    let instance = &metadata.series.instances[0];
    let ds = &instance.dataset;
    assert_eq!(ds.text(tags::PATIENT_NAME).as_deref(), Some("Doe^John"));
    assert_eq!(ds.text(tags::STUDY_DATE).as_deref(), Some("20200101"));
    assert_eq!(ds.text(tags::MODALITY).as_deref(), Some("CT"));
    assert_eq!(ds.integer(tags::SERIES_NUMBER), Some(4));
    assert_eq!(
        ds.numbers(tags::IMAGE_POSITION_PATIENT),
        Some([-158.135803, -179.035797, -75.699997])
    );
    assert_eq!(ds.text(tags::SLICE_LOCATION), None);
    assert_eq!(ds.numbers(tags::WINDOW_CENTER), Some([40.0, 80.0]));
    assert_eq!(instance.sop_class_uid, "1.2.840.10008.5.1.4.1.1.2");
    assert_eq!(instance.transfer_syntax, DEFAULT_TRANSFER_SYNTAX);
    assert!(ds.get(tags::PIXEL_DATA).is_none() && ds.get(tags::TRANSFER_SYNTAX_UID).is_none());
}

#[test]
fn values_keep_their_text_and_vr() {
    let metadata = parse_value(&document()).unwrap();
    let ds = &metadata.series.instances[0].dataset;
    let position = ds.element(tags::IMAGE_POSITION_PATIENT).unwrap();
    assert_eq!(position.strings().unwrap()[0], "-158.135803 ", "padding is kept");
    assert_eq!(position.vr(), VR::DS);
    let smallest = ds.element(tags::SMALLEST_IMAGE_PIXEL_VALUE).unwrap();
    assert_eq!((smallest.vr(), smallest.to_int::<i32>().unwrap()), (VR::SS, -2000));
    assert_eq!(ds.element(tags::ROWS).unwrap().vr(), VR::US);
    let pointer = ds.element(tags::FRAME_INCREMENT_POINTER).unwrap();
    assert_eq!(pointer.value().to_tag().unwrap(), Tag(0x0018, 0x1063));
    let lut = ds.element(tags::RED_PALETTE_COLOR_LOOKUP_TABLE_DATA).unwrap();
    assert_eq!(lut.to_bytes().unwrap().as_ref(), [1, 2, 3]);
    let private = |e| ds.get(Tag(0x0009, e)).map(|e| (e.vr(), e.to_str().unwrap().into_owned()));
    assert_eq!(private(0x0010), Some((VR::LO, "ACME".into())));
    assert_eq!(private(0x1001), Some((VR::DS, "12.5".into())));
    assert_eq!(private(0x1002), Some((VR::SH, "x".into())));
    assert_eq!(private(0x1003), None, "a private value that does not fit is left out");
    let items = ds.element(tags::REFERENCED_IMAGE_SEQUENCE).unwrap().items().unwrap();
    assert_eq!(items[0].text(tags::REFERENCED_SOP_INSTANCE_UID).as_deref(), Some("1.2.9"));
    assert_eq!(items[0].text(Tag(0x0009, 0x1002)).as_deref(), Some("inner"));
    let inner = items[0].element(tags::PURPOSE_OF_REFERENCE_CODE_SEQUENCE).unwrap();
    assert_eq!(inner.items().unwrap()[0].text(tags::CODE_VALUE).as_deref(), Some("121311"));
}

#[test]
fn frames_describe_their_full_resolution() {
    let mut doc = document();
    let frame = FrameDescriptor {
        id: "67890678906789012345123451234512".into(),
        dimensions: Some((512, 375)),
        crc32: Some(1_227_709_180),
        pixel_range: Some((451.0, 1466.0)),
        encoded_bytes: Some(384_000),
    };
    let read = parse_value(&doc).unwrap().series.instances.remove(0);
    assert_eq!(read.frames, std::slice::from_ref(&frame));
    let instance = &mut doc["Study"]["Series"][SERIES]["Instances"][INSTANCE];
    instance["StoredTransferSyntaxUID"] = "1.2.840.10008.1.2.4.203".into();
    instance["ChecksumType"] = "SHA1".into();
    let read = parse_value(&doc).unwrap().series.instances.remove(0);
    assert_eq!(read.transfer_syntax, "1.2.840.10008.1.2.4.203");
    assert_eq!(read.frames, [FrameDescriptor { crc32: None, ..frame }]);
}

#[test]
fn us_or_ss_follows_pixel_representation_and_range() {
    for (representation, value, expected) in [
        (0, 40_000, VR::US),
        (0, 100, VR::US),
        (1, 100, VR::SS),
        (1, 40_000, VR::US),
        (0, -5, VR::SS),
    ] {
        let mut doc = document();
        let dicom = &mut doc["Study"]["Series"][SERIES]["Instances"][INSTANCE]["DICOM"];
        dicom["PixelRepresentation"] = representation.into();
        dicom["SmallestImagePixelValue"] = value.into();
        let ds = parse_value(&doc).unwrap().series.instances.remove(0).dataset;
        let element = ds.element(tags::SMALLEST_IMAGE_PIXEL_VALUE).unwrap();
        assert_eq!(element.vr(), expected, "{representation} {value}");
        assert_eq!(element.to_int::<i32>().unwrap(), value);
    }
}

#[test]
fn faults_are_errors_that_quote_no_value() {
    let instance = "/Study/Series/1.2.3.4/Instances/1.2.3.4.5";
    let dicom = format!("{instance}/DICOM");
    for (path, value, kind, names) in [
        (format!("{dicom}/Rows"), json!("Doe^John"), ErrorKind::InvalidImage, "Rows"),
        (format!("{dicom}/Rows"), json!(70_000), ErrorKind::InvalidImage, "Rows"),
        (
            format!("{dicom}/SOPInstanceUID"),
            json!("1.2.999"),
            ErrorKind::InvalidImage,
            "SOPInstanceUID",
        ),
        (format!("{dicom}/SOPClassUID"), json!("../Doe"), ErrorKind::InvalidImage, "SOPClassUID"),
        (
            format!("{dicom}/ReferencedImageSequence"),
            json!("Doe"),
            ErrorKind::InvalidImage,
            "Referenced",
        ),
        (format!("{instance}/ImageFrames"), json!("Doe^John"), ErrorKind::Upstream, INSTANCE),
        (format!("{instance}/ImageFrames/0/ID"), json!(""), ErrorKind::InvalidImage, "ID"),
        ("/Study/Series".into(), json!({}), ErrorKind::InvalidImage, "one series"),
        (
            "/Study/Series".into(),
            json!({"1.2": {}, "1.3": {}}),
            ErrorKind::InvalidImage,
            "one series",
        ),
        ("/Study/Series".into(), json!({"../etc": {}}), ErrorKind::InvalidImage, "UID"),
        ("/Study/Series/1.2.3.4/Instances".into(), json!(null), ErrorKind::Upstream, "Instances"),
        (instance.into(), json!("Doe^John"), ErrorKind::Upstream, "instance"),
        ("/Study/DICOM".into(), json!("Doe^John"), ErrorKind::Upstream, "structure"),
        ("/SchemaVersion".into(), json!("2.0"), ErrorKind::InvalidImage, "SchemaVersion"),
    ] {
        let mut doc = document();
        *doc.pointer_mut(&path).unwrap() = value;
        let e = parse_value(&doc).unwrap_err();
        assert_eq!(e.kind(), kind, "{path}: {e}");
        assert!(e.message().contains(names), "{path}: {e}");
        assert!(!format!("{e:?}").contains("Doe"), "{path}: {e:?}");
    }
}

#[test]
fn of_an_instance_listed_twice_the_last_counts() {
    let text = document().to_string();
    let twice = format!("\"Instances\":{{\"{INSTANCE}\":{{}},");
    let text = text.replacen("\"Instances\":{", &twice, 1);
    let metadata = parse(text.as_bytes()).unwrap();
    assert_eq!(metadata.series.instances.len(), 1);
    assert_eq!(metadata.series.instances[0].frames.len(), 1);
}

#[test]
fn deep_nesting_and_truncation_are_errors() {
    let deep = "[".repeat(100_000);
    assert_eq!(parse(deep.as_bytes()).unwrap_err().kind(), ErrorKind::InvalidImage);
    let whole = serde_json::to_vec(&document()).unwrap();
    let e = parse(&whole[..whole.len() / 2]).unwrap_err();
    assert!(e.message().contains("ends too early"), "{e}");
}

#[test]
fn decompression_is_bounded() {
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gz.write_all(&vec![b' '; 1 << 20]).unwrap();
    let body = gz.finish().unwrap();
    assert_eq!(decompress(&body, 1 << 20).unwrap().len(), 1 << 20);
    assert_eq!(decompress(&body, (1 << 20) - 1).unwrap_err().kind(), ErrorKind::PayloadTooLarge);
    assert_eq!(
        decompress(&body[..body.len() - 9], 1 << 20).unwrap_err().kind(),
        ErrorKind::Upstream
    );
    assert_eq!(decompress(b"{}", 2).unwrap(), b"{}");
}

/// Every position in the document, as JSON pointers.
fn pointers(value: &Value, at: String, all: &mut Vec<String>) {
    all.push(at.clone());
    match value {
        Value::Object(map) => map.iter().for_each(|(k, v)| pointers(v, format!("{at}/{k}"), all)),
        Value::Array(list) => {
            list.iter().enumerate().for_each(|(i, v)| pointers(v, format!("{at}/{i}"), all));
        }
        _ => {}
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec(("[A-Za-z0-9(),]{0,11}", inner), 0..4)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

#[test]
fn keys_of_several_byte_characters_are_no_tags() {
    let mut document = document();
    document["Patient"]["DICOM"]["123\u{80}456"] = json!("x");
    assert!(parse(&serde_json::to_vec(&document).unwrap()).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..Default::default() })]

    #[test]
    fn any_value_anywhere_never_panics(at in any::<prop::sample::Index>(), value in any_json()) {
        let mut doc = document();
        let mut all = Vec::new();
        pointers(&doc, String::new(), &mut all);
        if let Some(place) = doc.pointer_mut(&all[at.index(all.len())]) {
            *place = value;
        }
        if let Ok(metadata) = parse_value(&doc) {
            prop_assert!(metadata.series.instances.len() <= 1);
        }
    }

    #[test]
    fn any_bytes_anywhere_never_panic(at in any::<prop::sample::Index>(), bytes in any::<[u8; 3]>()) {
        let mut doc = serde_json::to_vec(&document()).unwrap();
        let at = at.index(doc.len() - bytes.len());
        doc[at..at + bytes.len()].copy_from_slice(&bytes);
        let _ = parse(&doc);
    }
}

/// A document of one series with `count` instances and these attributes.
fn flooded(series: &str, count: usize, instance: &str) -> Vec<u8> {
    let instances: Vec<String> = (0..count)
        .map(|n| format!(r#""1.2.3.{n}":{{"DICOM":{{"SOPClassUID":"1.2"{instance}}}}}"#))
        .collect();
    format!(
        r#"{{"SchemaVersion":"1.1","DatastoreID":"d","ImageSetID":"i","Study":{{"DICOM":{{"StudyInstanceUID":
        "1.2"}},"Series":{{"1.2.3":{{"DICOM":{{{series}}},"Instances":{{{}}}}}}}}}}}"#,
        instances.join(",")
    )
    .into_bytes()
}

#[test]
fn what_is_common_to_all_is_not_multiplied_beyond_reason() {
    assert!(parse(&flooded(r#""Modality":"CT""#, 3, "")).is_ok());
    // 1 MiB for each of 2000 instances.
    let common = format!(r#""ImageComments":"{}""#, "x".repeat(1 << 20));
    let error = parse(&flooded(&common, 2000, "")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PayloadTooLarge, "{error}");
    let flood = format!(r#""ImageType":[{}""]"#, r#""","#.repeat(9 << 20));
    let error = parse(&flooded(&flood, 1, "")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PayloadTooLarge, "{error}");
}

#[test]
fn nesting_is_bounded() {
    let nested = |depth: usize| {
        let open = r#","ReferencedImageSequence":[{"a":1"#.repeat(depth);
        parse(&flooded(r#""Modality":"CT""#, 1, &format!("{open}{}", "}]".repeat(depth))))
    };
    assert!(nested(20).is_ok());
    for depth in [40, 60, 1000, 100_000] {
        assert!(nested(depth).is_err(), "{depth}");
    }
}
