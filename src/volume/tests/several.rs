//! Tests of series with several volumes.

use super::*;
use crate::policy::{Value, VolumeChoice, Volumes};

fn number(tag: dicom_core::Tag, value: f64) -> DataElement<dicom_object::InMemDicomObject> {
    DataElement::new(tag, VR::DS, value.to_string())
}

/// Slices at three heights for each of the given values of an attribute.
fn by(tag: dicom_core::Tag, values: &[f64]) -> Series {
    let slices = values.iter().enumerate().flat_map(|(v, value)| {
        (0..3).map(move |z| {
            let mut one = slice(v * 3 + z, [0., 0., 2.0 * z as f64], AXIAL);
            one.put(number(tag, *value));
            one
        })
    });
    series(slices.collect())
}

fn choose(series: &Series, choice: VolumeChoice) -> Result<Plan> {
    super::super::plan(series, &Policy::default(), Wanted::Asked(&choice))
        .map(|mut plans| plans.remove(0))
}

fn of(volumes: Volumes) -> Policy {
    Policy { volumes, ..Policy::default() }
}

#[test]
fn volumes_are_listed_with_what_tells_them_apart() {
    for (tag, keyword) in [
        (tags::TEMPORAL_POSITION_IDENTIFIER, "TemporalPositionIdentifier"),
        (tags::TRIGGER_TIME, "TriggerTime"),
        (tags::ECHO_TIME, "EchoTime"),
        (tags::DIFFUSION_B_VALUE, "DiffusionBValue"),
        (tags::ACQUISITION_NUMBER, "AcquisitionNumber"),
        (tags::CONTENT_TIME, "ContentTime"),
    ] {
        let two = by(tag, &[20., 5.]);
        let e = plan(&two).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::InvalidImage);
        let first = format!("1: {keyword}=5 (3 slices of 4 × 3); 2: {keyword}=20 (3 slices");
        assert!(e.message().contains(&first), "{e}");
        assert_eq!(e.details()["volumes"][1]["attributes"][keyword], 20.0, "{e}");
        let name = format!("{}=20", keyword.to_uppercase());
        for choice in [
            VolumeChoice::Number(2),
            VolumeChoice::Name(name),
            VolumeChoice::Attributes(vec![(keyword.to_owned(), Value::Text("20.0".to_owned()))]),
        ] {
            let plan = choose(&two, choice).unwrap();
            assert_eq!(order(&plan), [0, 1, 2]);
            let volume = plan.volume.unwrap();
            assert_eq!((volume.number, volume.of), (2, 2));
        }
        let e = choose(&two, VolumeChoice::Number(3)).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::InvalidRequest);
        assert!(e.message().contains(&first), "{e}");
    }
}

#[test]
fn a_series_of_one_volume_is_taken_by_its_attributes_or_as_it_is() {
    let one = by(tags::ECHO_TIME, &[5.]);
    let attribute =
        |value| VolumeChoice::Attributes(vec![("EchoTime".to_owned(), Value::Number(value))]);
    let by_name = VolumeChoice::Name("EchoTime=5".to_owned());
    for choice in [attribute(5.), by_name, VolumeChoice::Number(1)] {
        assert!(choose(&one, choice).unwrap().volume.is_none());
    }
    for choice in [attribute(20.), VolumeChoice::Number(2), VolumeChoice::Name("x".to_owned())] {
        let e = choose(&one, choice).unwrap_err();
        assert!(e.message().contains("1: the only one (3 slices"), "{e}");
    }
    // A model package states its choice among several volumes; here there is only one.
    let usual = attribute(20.);
    let plans = super::super::plan(&one, &Policy::default(), Wanted::Usual(&usual)).unwrap();
    assert_eq!(plans.len(), 1);
    let two = by(tags::ECHO_TIME, &[5., 20.]);
    let plans = super::super::plan(&two, &Policy::default(), Wanted::Usual(&usual)).unwrap();
    assert_eq!(order(&plans[0]), [3, 4, 5]);
}

#[test]
fn policies_choose_without_a_request() {
    let mut two = by(tags::ECHO_TIME, &[5., 20.]);
    // The second volume has one more slice.
    let mut more = slice(9, [0., 0., 6.], AXIAL);
    more.put(number(tags::ECHO_TIME, 20.));
    two.instances.extend(series(vec![more]).instances);
    two.instances[6].sop_instance_uid = "1.2.6".to_owned();
    let planned = |volumes| super::super::plan(&two, &of(volumes), Wanted::Any).unwrap();
    assert_eq!(order(&planned(Volumes::First)[0]), [0, 1, 2]);
    assert_eq!(order(&planned(Volumes::Largest)[0]), [3, 4, 5, 6]);
    let each = planned(Volumes::Each);
    assert_eq!(each.iter().map(|plan| plan.slices.len()).collect::<Vec<_>>(), [3, 4]);
    assert!(each[1].warnings[0].contains("volume 2 of the 2"), "{:?}", each[1].warnings);
}

#[test]
fn attributes_that_differ_from_slice_to_slice_tell_no_volumes_apart() {
    // A single volume in which every slice has its own time, number and echo.
    let one = series(
        (0..4)
            .map(|z| {
                let mut one = slice(z, [0., 0., 2.0 * z as f64], AXIAL);
                for tag in [tags::CONTENT_TIME, tags::ACQUISITION_NUMBER, tags::ECHO_TIME] {
                    one.put(number(tag, z as f64));
                }
                one
            })
            .collect(),
    );
    assert!(plan(&one).unwrap().volume.is_none());
}

#[test]
fn time_points_acquired_slice_by_slice_are_told_apart_by_their_order() {
    let slices = (0..2).flat_map(|t| {
        (0..4).map(move |z| {
            let mut one = slice(t * 4 + z, [0., 0., 2.0 * z as f64], AXIAL);
            one.put(number(tags::ACQUISITION_TIME, (100 * t + z) as f64));
            one
        })
    });
    let both = series(slices.collect());
    let e = plan(&both).unwrap_err();
    assert!(e.message().contains("1: AcquisitionTime order=1 (4 slices"), "{e}");
    assert_eq!(order(&choose(&both, VolumeChoice::Number(2)).unwrap()), [4, 5, 6, 7]);
}

#[test]
fn two_attributes_together_tell_apart_what_neither_does_alone() {
    let slices = [(5., 0.), (5., 1.), (20., 0.), (20., 1.)].into_iter().enumerate();
    let slices = slices.flat_map(|(v, (echo, b))| {
        (0..3).map(move |z| {
            let mut one = slice(v * 3 + z, [0., 0., 2.0 * z as f64], AXIAL);
            one.put(number(tags::ECHO_TIME, echo));
            one.put(number(tags::DIFFUSION_B_VALUE, b));
            one
        })
    });
    let four = series(slices.collect());
    let e = plan(&four).unwrap_err();
    assert!(e.message().contains("4: EchoTime=20,DiffusionBValue=1 (3"), "{e}");
    let both = vec![
        ("EchoTime".to_owned(), Value::Number(20.)),
        ("DiffusionBValue".to_owned(), Value::Number(0.)),
    ];
    assert_eq!(order(&choose(&four, VolumeChoice::Attributes(both)).unwrap()), [6, 7, 8]);
    let name = |name: &str| choose(&four, VolumeChoice::Name(name.to_owned()));
    assert_eq!(order(&name("EchoTime=20,DiffusionBValue=0").unwrap()), [6, 7, 8]);
    assert_eq!(order(&name("diffusionbvalue=0.0,echotime=20").unwrap()), [6, 7, 8]);
    assert!(name("EchoTime=20").unwrap_err().message().contains("may be several"));
    assert!(name("EchoTime").unwrap_err().message().contains("none of"));
    let half = vec![("EchoTime".to_owned(), Value::Number(20.))];
    let e = choose(&four, VolumeChoice::Attributes(half)).unwrap_err();
    assert!(e.message().contains("may be several"), "{e}");
}

#[test]
fn acquisitions_between_each_others_slices_are_no_stack() {
    let slices = (0..2).flat_map(|a| {
        (0..5).map(move |z| {
            let mut one = slice(a * 5 + z, [0., 0., 2.0 * z as f64 + 0.3 * a as f64], AXIAL);
            one.put(number(tags::ACQUISITION_NUMBER, a as f64));
            one
        })
    });
    let both = series(slices.collect());
    let e = plan(&both).unwrap_err();
    assert!(e.message().contains("2: AcquisitionNumber=1 (5 slices"), "{e}");
    assert_eq!(order(&choose(&both, VolumeChoice::Number(2)).unwrap()), [5, 6, 7, 8, 9]);
}

#[test]
fn private_b_values_count() {
    let slices = [0., 800.].into_iter().enumerate().flat_map(|(v, b)| {
        (0..3).map(move |z| {
            let mut one = slice(v * 3 + z, [0., 0., 2.0 * z as f64], AXIAL);
            let creator = "SIEMENS MR HEADER";
            one.put(DataElement::new(dicom_core::Tag(0x0019, 0x0010), VR::LO, creator));
            one.put(DataElement::new(dicom_core::Tag(0x0019, 0x100C), VR::IS, b.to_string()));
            one
        })
    });
    let e = plan(&series(slices.collect())).unwrap_err();
    assert!(e.message().contains("2: DiffusionBValue=800 (3"), "{e}");
}

#[test]
fn phase_and_magnitude_of_a_private_attribute_are_told_apart() {
    let slices = (0..2_i16).flat_map(|component| {
        (0..3).map(move |z| {
            let number = usize::try_from(component).unwrap() * 3 + z;
            let mut one = slice(number, [0., 0., 2.0 * z as f64], AXIAL);
            one.put(DataElement::new(dicom_core::Tag(0x0043, 0x0010), VR::LO, "GEMS_PARM_01"));
            let value = PrimitiveValue::from(component);
            one.put(DataElement::new(dicom_core::Tag(0x0043, 0x102F), VR::SS, value));
            one
        })
    });
    let e = plan(&series(slices.collect())).unwrap_err();
    assert!(e.message().contains("2: ComplexImageComponent=PHASE (3"), "{e}");
}

/// An enhanced instance with a frame for each of these heights and dimension indices.
fn enhanced(frames: &[(f64, [u32; 2])]) -> Series {
    let sequence = |tag, items: Vec<Dataset>| {
        DataElement::new(tag, VR::SQ, dicom_core::value::DataSetSequence::from(items))
    };
    let groups = frames.iter().map(|(z, indices)| {
        let position = DataElement::new(tags::IMAGE_POSITION_PATIENT, VR::DS, texts(&[1., 2., *z]));
        let indices = PrimitiveValue::U32(indices.iter().copied().collect());
        let content = DataElement::new(tags::DIMENSION_INDEX_VALUES, VR::UL, indices);
        Dataset::from_element_iter([
            sequence(tags::PLANE_POSITION_SEQUENCE, vec![Dataset::from_element_iter([position])]),
            sequence(tags::FRAME_CONTENT_SEQUENCE, vec![Dataset::from_element_iter([content])]),
        ])
    });
    let mut dataset = slice(1, [0., 0., 0.], AXIAL);
    dataset.remove_element(tags::IMAGE_POSITION_PATIENT);
    dataset.put(sequence(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE, groups.collect()));
    let mut enhanced = series(vec![dataset]);
    enhanced.instances[0].frames = vec![FrameDescriptor::default(); frames.len()];
    enhanced
}

#[test]
fn dimension_indices_tell_frames_of_one_instance_apart() {
    let frames: Vec<(f64, [u32; 2])> =
        (1..=2).flat_map(|echo| (1..=3).map(move |z| (2.0 * f64::from(z), [z, echo]))).collect();
    let both = enhanced(&frames);
    let e = plan(&both).unwrap_err();
    assert!(e.message().contains("2: DimensionIndexValues.2=2 (3 slices"), "{e}");
    let plan = choose(&both, VolumeChoice::Number(2)).unwrap();
    assert_eq!(plan.slices.iter().map(|s| s.key.frame).collect::<Vec<_>>(), [3, 4, 5]);
}

#[test]
fn instances_that_are_volumes_are_told_apart_by_their_uid_at_last() {
    let frames: Vec<(f64, [u32; 2])> = (1..=3).map(|z| (2.0 * f64::from(z), [z, 1])).collect();
    let mut two = enhanced(&frames);
    let mut other = two.instances[0].clone();
    other.sop_instance_uid = "1.2.9".to_owned();
    two.instances.push(other);
    let e = plan(&two).unwrap_err();
    assert!(e.message().contains("2: SOPInstanceUID=1.2.9 (3 slices"), "{e}");
    let plan = choose(&two, VolumeChoice::Number(2)).unwrap();
    assert!(plan.slices.iter().all(|slice| slice.key.instance == 1));
}

#[test]
fn stacks_of_other_directions_are_other_volumes() {
    let mut both = stack(&[0., 2., 4.]);
    let sagittal = |i: usize| slice(10 + i, [3.0 * i as f64, 0., 0.], [0., 1., 0., 0., 0., -1.]);
    let more = series((0..4).map(sagittal).collect()).instances;
    both.instances.extend(more.into_iter().enumerate().map(|(i, mut instance)| {
        instance.sop_instance_uid = format!("1.3.{i}");
        instance
    }));
    let e = plan(&both).unwrap_err();
    assert!(e.message().contains("1: ImageOrientationPatient=1\\0\\0\\0\\1\\0 (3 slices"), "{e}");
    let plan = super::super::plan(&both, &of(Volumes::Largest), Wanted::Any).unwrap().remove(0);
    assert_eq!(plan.slices.len(), 4);
}
