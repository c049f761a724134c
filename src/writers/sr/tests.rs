use std::sync::Arc;

use dicom_core::{Tag, VR};
use dicom_dictionary_std::{tags, uids};
use dicom_object::OpenFileOptions;

use super::*;
use crate::dicom::segment::Code;
use crate::writers::statistics::ValueStatistics;

fn slice(number: usize, modality: &str) -> Instance {
    let mut dataset = Dataset::new_empty();
    let uid = format!("2.25.10{number}");
    for (tag, vr, value) in [
        (tags::SPECIFIC_CHARACTER_SET, VR::CS, "ISO_IR 100"),
        (tags::SOP_CLASS_UID, VR::UI, uids::CT_IMAGE_STORAGE),
        (tags::SOP_INSTANCE_UID, VR::UI, &uid),
        (tags::STUDY_INSTANCE_UID, VR::UI, "2.25.1"),
        (tags::SERIES_INSTANCE_UID, VR::UI, "2.25.2"),
        (tags::FRAME_OF_REFERENCE_UID, VR::UI, "2.25.3"),
        (tags::PATIENT_ID, VR::LO, "ID 7"),
        (tags::BODY_PART_EXAMINED, VR::CS, "ABDOMEN"),
        (tags::SERIES_NUMBER, VR::IS, "4"),
        (tags::MODALITY, VR::CS, modality),
    ] {
        dataset.put_text(tag, vr, value);
    }
    Instance {
        dataset: Arc::new(dataset),
        sop_instance_uid: uid,
        sop_class_uid: uids::CT_IMAGE_STORAGE.to_owned(),
        transfer_syntax: uids::EXPLICIT_VR_LITTLE_ENDIAN.to_owned(),
        frames: vec![Default::default()],
    }
}

fn segment(label: &str, category: Code, code: &str) -> SegmentDescription {
    SegmentDescription {
        value: 1,
        label: label.to_owned(),
        category,
        property_type: Code::sct(code, label),
        type_modifier: None,
        anatomic_region: None,
        color: None,
    }
}

/// A kidney, a lesion of the left lung, and a tissue without voxels.
fn segments() -> Vec<SegmentDescription> {
    let anatomy = Code::sct("91723000", "Anatomical Structure");
    let abnormal = Code::sct("49755003", "Morphologically Abnormal Structure");
    let mut kidney = segment("Kidney", anatomy, "64033007");
    kidney.type_modifier = Some(Code::sct("24028007", "Right"));
    let mut lesion = segment("Lesion", abnormal, "52988006");
    lesion.anatomic_region = Some(Code::sct("39607008", "Lung"));
    lesion.type_modifier = Some(Code::sct("7771000", "Left"));
    let fat = segment("Fat", Code::sct("85756007", "Tissue"), "55603005");
    vec![kidney, lesion, fat]
}

fn measured(voxels: u64) -> Statistics {
    let values = ValueStatistics {
        mean: 31.25,
        standard_deviation: 1.0 / 3.0,
        minimum: -5.0,
        maximum: 70.0,
        percentiles: [0.0, 20.0, 30.0, 40.0, 60.0],
        excluded: 0,
    };
    Statistics {
        voxels,
        bounds: (voxels > 0).then_some([0..1, 0..1, 0..1]),
        centroid: (voxels > 0).then_some([0.0; 3]),
        components: u64::from(voxels > 0),
        largest_component: voxels,
        touches: [[false; 2]; 3],
        values: (voxels > 0).then_some(values),
    }
}

/// A segmentation in two objects: the second begins with the segment that the first ends with.
fn segmentation() -> Segmentation {
    let object =
        |uid: &str, segments| SegmentationObject { sop_instance_uid: uid.to_owned(), segments };
    Segmentation {
        sop_class_uid: uids::SEGMENTATION_STORAGE,
        series_instance_uid: "2.25.50".to_owned(),
        objects: vec![object("2.25.51", 0..1), object("2.25.52", 0..2)],
    }
}

fn written(modality: &str, units: Option<&str>) -> (Dataset, Vec<String>) {
    let instances = [slice(1, modality), slice(2, modality)];
    let slices: Vec<SourceSlice> =
        instances.iter().map(|instance| SourceSlice { instance, frame: 0 }).collect();
    let mut algorithm = Algorithm::new("model", "1.2");
    algorithm.parameters = Some("network SHA-256=ab,threads=2".to_owned());
    let report = write(&SrRequest {
        slices: &slices,
        segments: &segments(),
        statistics: &[measured(40), measured(10), measured(0)],
        voxel_volume: 2.5,
        units,
        segmentation: &segmentation(),
        algorithm: &algorithm,
        identity: &Identity::derived(["test"]),
    });
    let report = report.unwrap();
    let file = OpenFileOptions::new().from_reader(report.bytes.as_slice()).unwrap();
    assert_eq!(
        file.meta().media_storage_sop_instance_uid.trim_end_matches('\0'),
        report.sop_instance_uid
    );
    (file.into_inner(), report.warnings)
}

fn items(dataset: &Dataset, tag: Tag) -> &[Dataset] {
    dataset.get(tag).and_then(|element| element.value().items()).unwrap_or_default()
}

/// Returns the Code Value of a code sequence.
fn code(dataset: &Dataset, tag: Tag) -> String {
    items(dataset, tag)[0].text(tags::CODE_VALUE).unwrap()
}

/// Returns the items below `item` with this concept name.
fn named<'d>(item: &'d Dataset, name: &str) -> Vec<&'d Dataset> {
    let content = items(item, tags::CONTENT_SEQUENCE).iter();
    content.filter(|item| code(item, tags::CONCEPT_NAME_CODE_SEQUENCE) == name).collect()
}

fn groups(report: &Dataset) -> Vec<&Dataset> {
    named(named(report, "126010")[0], "125007")
}

/// Returns name, derivation, value and units of a group's numbers.
fn numbers(group: &Dataset) -> Vec<(String, Option<String>, f64, String)> {
    let content = items(group, tags::CONTENT_SEQUENCE).iter();
    let numbers = content.filter(|item| item.text(tags::VALUE_TYPE).as_deref() == Some("NUM"));
    let told = numbers.map(|item| {
        let derivation = named(item, "121401");
        let derivation = derivation.first().map(|d| code(d, tags::CONCEPT_CODE_SEQUENCE));
        let measured = &items(item, tags::MEASURED_VALUE_SEQUENCE)[0];
        let units = code(measured, tags::MEASUREMENT_UNITS_CODE_SEQUENCE);
        let value = measured.number(tags::NUMERIC_VALUE).unwrap();
        (code(item, tags::CONCEPT_NAME_CODE_SEQUENCE), derivation, value, units)
    });
    told.collect()
}

#[test]
fn a_group_tells_of_its_segment() {
    let (report, warnings) = written("CT", Some("HU"));
    assert!(warnings.is_empty(), "{warnings:?}");
    let [kidney, lesion, fat] = groups(&report)[..] else { panic!("three groups") };
    let hounsfield = |derivation: &str, value| {
        ("112031".to_owned(), Some(derivation.to_owned()), value, "[hnsf'U]".to_owned())
    };
    let expected = [
        ("118565006".to_owned(), None, 0.1, "cm3".to_owned()),
        hounsfield("373098007", 31.25),
        hounsfield("386136009", 0.333_333_333_333_33),
        hounsfield("255605001", -5.0),
        hounsfield("56851009", 70.0),
        hounsfield("373099004", 30.0),
    ];
    assert_eq!(numbers(kidney), expected);
    // A segment that was not found has no values.
    assert_eq!(numbers(fat), [("118565006".to_owned(), None, 0.0, "cm3".to_owned())]);
    let site = |group| {
        let sites = named(group, "363698007");
        let side =
            |site| named(site, "272741003").first().map(|s| code(s, tags::CONCEPT_CODE_SEQUENCE));
        sites.first().map(|site| (code(site, tags::CONCEPT_CODE_SEQUENCE), side(site)))
    };
    assert_eq!(site(kidney), Some(("64033007".to_owned(), Some("24028007".to_owned()))));
    assert_eq!(site(lesion), Some(("39607008".to_owned(), Some("7771000".to_owned()))));
    assert_eq!(site(fat), None, "fat may be anywhere");
    let parameters = named(kidney, "111002");
    let parameters: Vec<_> = parameters.iter().map(|p| p.text(tags::TEXT_VALUE).unwrap()).collect();
    assert_eq!(parameters, ["network SHA-256=ab", "threads=2"]);
    let identity = Identity::derived(["test"]);
    let tracking = named(lesion, "112040")[0].text(tags::UID);
    assert_eq!(tracking, Some(identity.tracking(1)));
}

#[test]
fn segments_are_referred_to_where_they_are() {
    let (report, _) = written("CT", Some("HU"));
    let references: Vec<(String, i64)> = groups(&report)
        .into_iter()
        .map(|group| {
            let image = named(group, "121191")[0];
            let to = &items(image, tags::REFERENCED_SOP_SEQUENCE)[0];
            let number = to.integer(tags::REFERENCED_SEGMENT_NUMBER).unwrap();
            (to.text(tags::REFERENCED_SOP_INSTANCE_UID).unwrap(), number)
        })
        .collect();
    // The third segment has no frame and is described in the first object.
    let expected = [("2.25.51", 1), ("2.25.52", 2), ("2.25.51", 3)];
    assert_eq!(references, expected.map(|(uid, number)| (uid.to_owned(), number)));
    let evidence = items(&report, tags::CURRENT_REQUESTED_PROCEDURE_EVIDENCE_SEQUENCE);
    let [images, segmentation] = items(&evidence[0], tags::REFERENCED_SERIES_SEQUENCE) else {
        panic!("two series")
    };
    let instances = |series| -> Vec<String> {
        let references = items(series, tags::REFERENCED_SOP_SEQUENCE).iter();
        references.map(|one| one.text(tags::REFERENCED_SOP_INSTANCE_UID).unwrap()).collect()
    };
    assert_eq!(instances(images), ["2.25.101", "2.25.102"]);
    assert_eq!(instances(segmentation), ["2.25.51", "2.25.52"]);
    assert_eq!(report.text(tags::BODY_PART_EXAMINED), None, "an attribute of images");
    assert_eq!(report.text(tags::PATIENT_ID).as_deref(), Some("ID 7"));
    assert_eq!(report.text(tags::SERIES_NUMBER).as_deref(), Some("1014"));
}

#[test]
fn values_of_unknown_units_are_not_told() {
    let (report, warnings) = written("PT", Some("CM2ML"));
    assert!(warnings[0].contains("volumes alone"), "{warnings:?}");
    for group in groups(&report) {
        assert_eq!(numbers(group).len(), 1);
    }
    let (report, warnings) = written("MR", None);
    assert!(warnings.is_empty());
    let [(name, _, _, units), ..] = &numbers(groups(&report)[0])[1..] else { panic!("numbers") };
    assert_eq!((name.as_str(), units.as_str()), ("110852", "1"));
}
