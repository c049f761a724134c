//! Tests of series that are regular stacks, and of series that are not.

mod filling;
mod physical;
mod pixels;
mod several;
mod stacks;

use std::sync::Arc;

use dicom_core::{DataElement, PrimitiveValue, VR};
use dicom_dictionary_std::tags;
use ndarray::Array3;
use proptest::prelude::*;

use super::*;
use crate::dicom::{Dataset, FrameDescriptor, Instance, Series};
use crate::error::{ErrorKind, Result};
use crate::policy::{Duplicates, Gaps, Policy, Wanted};

const AXIAL: [f64; 6] = [1., 0., 0., 0., 1., 0.];

fn texts(values: &[f64]) -> PrimitiveValue {
    PrimitiveValue::Strs(values.iter().map(f64::to_string).collect())
}

/// A slice with 4 columns and 3 rows.
fn slice(number: usize, position: [f64; 3], orientation: [f64; 6]) -> Dataset {
    Dataset::from_element_iter([
        DataElement::new(tags::INSTANCE_NUMBER, VR::IS, number.to_string()),
        DataElement::new(tags::IMAGE_POSITION_PATIENT, VR::DS, texts(&position)),
        DataElement::new(tags::IMAGE_ORIENTATION_PATIENT, VR::DS, texts(&orientation)),
        DataElement::new(tags::PIXEL_SPACING, VR::DS, texts(&[0.5, 0.25])),
        DataElement::new(tags::SLICE_THICKNESS, VR::DS, "2.5"),
        DataElement::new(tags::ROWS, VR::US, PrimitiveValue::from(3_u16)),
        DataElement::new(tags::COLUMNS, VR::US, PrimitiveValue::from(4_u16)),
        DataElement::new(tags::BITS_ALLOCATED, VR::US, PrimitiveValue::from(16_u16)),
        DataElement::new(tags::BITS_STORED, VR::US, PrimitiveValue::from(16_u16)),
        DataElement::new(tags::PIXEL_REPRESENTATION, VR::US, PrimitiveValue::from(1_u16)),
        DataElement::new(tags::RESCALE_SLOPE, VR::DS, "2"),
        DataElement::new(tags::RESCALE_INTERCEPT, VR::DS, format!("{}", number * 10)),
    ])
}

fn series(datasets: Vec<Dataset>) -> Series {
    let instance = |(i, dataset): (usize, Dataset)| Instance {
        dataset: Arc::new(dataset),
        sop_instance_uid: format!("1.2.{i}"),
        sop_class_uid: "1.2.840.10008.5.1.4.1.1.2".to_owned(),
        transfer_syntax: "1.2.840.10008.1.2.1".to_owned(),
        frames: vec![FrameDescriptor::default()],
    };
    Series {
        study_instance_uid: "1.1".to_owned(),
        series_instance_uid: "1.2".to_owned(),
        instances: datasets.into_iter().enumerate().map(instance).collect(),
    }
}

/// A stack along z with slices at these heights, in this order.
fn stack(heights: &[f64]) -> Series {
    let at = |(i, &z): (usize, &f64)| slice(i, [10., 20., z], AXIAL);
    series(heights.iter().enumerate().map(at).collect())
}

/// Plans the only volume of a series.
fn planned(series: &Series, policy: &Policy) -> Result<Plan> {
    super::plan(series, policy, Wanted::Any).map(|mut plans| {
        assert_eq!(plans.len(), 1);
        plans.remove(0)
    })
}

/// Like [`planned`], with the strict default policies.
fn plan(series: &Series) -> Result<Plan> {
    planned(series, &Policy::default())
}

#[test]
fn implausible_sides_are_refused_by_their_attribute() {
    let wide = |spacing: f64| {
        let mut one = slice(1, [0.; 3], AXIAL);
        one.put(DataElement::new(tags::PIXEL_SPACING, VR::DS, texts(&[spacing, spacing])));
        plan(&series(vec![one]))
    };
    assert!(wide(500.0).is_ok());
    for spacing in [800.0, 2000.0, 1e300] {
        let error = wide(spacing).unwrap_err();
        assert_eq!(error.details()["attribute"], "PixelSpacing", "{error}");
    }
    let heights: Vec<f64> = (0..8).map(|i| f64::from(i) * 1000.0).collect();
    let error = plan(&stack(&heights)).unwrap_err();
    assert_eq!(error.details()["attribute"], "ImagePositionPatient", "{error}");
}

fn order(plan: &Plan) -> Vec<usize> {
    plan.slices.iter().map(|s| s.key.instance).collect()
}

#[test]
fn slices_are_ordered_by_position_and_placed_in_ras() {
    let plan = plan(&stack(&[5., 0., 7.5, 2.5])).unwrap();
    assert_eq!(order(&plan), [1, 3, 0, 2]);
    assert_eq!(plan.geometry.dims, [4, 3, 4]);
    let a = plan.geometry.affine;
    // Columns run to the patient's left, rows to the back: both negative in RAS.
    assert_eq!(a.column(0), [-0.25, 0.0, 0.0]);
    assert_eq!(a.column(1), [0.0, -0.5, 0.0]);
    assert_eq!(a.column(2), [0.0, 0.0, 2.5]);
    assert_eq!(a.origin(), [-10., -20., 0.]);
    assert!((plan.geometry.voxel_volume() - 0.3125).abs() < 1e-12);
    assert!(plan.warnings.is_empty());
}

#[test]
fn wide_samples_are_rescaled_and_rounded_once() {
    let physical = |samples: Samples| {
        let plan = Arc::new(plan(&stack(&[0.])).unwrap());
        let mut volume = Volume::new(plan).unwrap();
        volume.insert(0, samples).unwrap();
        volume.into_physical().unwrap()[[0, 0, 0]]
    };
    // Twice the stored value.
    assert_eq!(physical(Samples::I32(vec![i32::MIN; 12])), -4_294_967_296.0);
    assert_eq!(physical(Samples::U32(vec![u32::MAX; 12])), 8_589_934_590_f64 as f32);
    assert_eq!(physical(Samples::F32(vec![0.3; 12])), 0.6);
    // Just above the midpoint of two 32-bit floating-point numbers.
    assert_eq!(physical(Samples::F64(vec![16_777_217.000_1; 12])), 33_554_436.0);
    assert!(
        Volume::new(Arc::new(plan(&stack(&[0.])).unwrap()))
            .unwrap()
            .insert(0, Samples::F32(vec![0.0; 11]))
            .is_err()
    );
}

#[test]
fn rescale_is_each_slices_own() {
    let plan = Arc::new(plan(&stack(&[1., 0.])).unwrap());
    let mut volume = Volume::new(plan).unwrap();
    volume.insert(1, Samples::I16(vec![-3; 12])).unwrap();
    volume.insert(0, Samples::I16((0..12).collect())).unwrap();
    let voxels: Array3<f32> = volume.into_physical().unwrap();
    // The lower slice is instance 1 with intercept 10, the upper one instance 0 with intercept 0.
    assert_eq!(voxels[[1, 2, 0]], 9.0 * 2.0 + 10.0);
    assert_eq!(voxels[[3, 1, 1]], -6.0);
    assert_eq!(voxels.strides(), [1, 4, 12]);
}

#[test]
fn a_missing_slice_names_both_neighbours() {
    let broken = stack(&[0., 2.5, 7.5, 10., 12.5]);
    let e = plan(&broken).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::InvalidImage);
    assert!(e.message().contains("1.2.1") && e.message().contains("1.2.2"), "{e}");
    assert!(e.message().contains("\"interpolate\""), "{e}");
    let filled = Policy { gaps: Gaps::Interpolate, ..Policy::default() };
    let plan = planned(&broken, &filled).unwrap();
    assert_eq!((plan.geometry.affine.spacing()[2], plan.warnings.len()), (2.5, 1));
    assert_eq!((plan.geometry.dims[2], plan.slices.len()), (6, 5));
    let resampling = plan.resampling.unwrap();
    let mix = [(0, 0.0), (1, 0.0), (1, 0.5), (2, 0.0), (3, 0.0), (4, 0.0)];
    assert_eq!((resampling.mix, resampling.nearest), (mix.to_vec(), vec![0, 1, 3, 4, 5]));
}

#[test]
fn two_slices_at_one_position() {
    let broken = stack(&[0., 2.5, 2.5, 5.]);
    let e = plan(&broken).unwrap_err();
    assert!(e.message().contains("1.2.1") && e.message().contains("1.2.2"), "{e}");
    let first = Policy { duplicates: Duplicates::First, ..Policy::default() };
    let plan = planned(&broken, &first).unwrap();
    assert_eq!(order(&plan), [0, 1, 3]);
    assert_eq!(plan.warnings.len(), 1);
}

#[test]
fn the_instance_that_differs_is_named() {
    let normal = |i: usize| slice(i, [0., 0., i as f64], AXIAL);
    let mut other_size = normal(1);
    other_size.put(DataElement::new(tags::ROWS, VR::US, PrimitiveValue::from(5_u16)));
    let mut other_spacing = normal(1);
    other_spacing.put(DataElement::new(tags::PIXEL_SPACING, VR::DS, texts(&[0.5, 0.3])));
    let turned = slice(1, [0., 0., 1.], [0., 1., 0., -1., 0., 0.]);
    let mut no_position = normal(1);
    no_position.remove_element(tags::IMAGE_POSITION_PATIENT);
    let mut no_orientation = normal(1);
    no_orientation.remove_element(tags::IMAGE_ORIENTATION_PATIENT);
    let skewed = slice(1, [0., 0., 1.], [1., 0., 0., 0.7, 0.7, 0.]);
    for (odd, attribute) in [
        (other_size, "Rows"),
        (other_spacing, "PixelSpacing"),
        (turned, "ImageOrientationPatient"),
        (no_position, "ImagePositionPatient"),
        (no_orientation, "ImageOrientationPatient"),
        (skewed, "ImageOrientationPatient"),
    ] {
        let e = plan(&series(vec![normal(0), odd, normal(2)]));
        let e = e.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::InvalidImage, "{e}");
        assert!(e.message().contains("1.2.1") && e.message().contains(attribute), "{e}");
        assert_eq!(e.details()["sopInstanceUID"], "1.2.1");
    }
}

#[test]
fn a_single_slice_and_a_localizer() {
    let plan = plan(&stack(&[4.])).unwrap();
    assert_eq!((plan.geometry.affine.column(2), plan.warnings.len()), ([0., 0., 2.5], 1));

    let mut localizer = slice(9, [0., 0., 99.], [0., 1., 0., 0., 0., -1.]);
    let kind = PrimitiveValue::Strs(
        ["ORIGINAL", "PRIMARY", "LOCALIZER"].map(String::from).to_vec().into(),
    );
    localizer.put(DataElement::new(tags::IMAGE_TYPE, VR::CS, kind));
    let mut mixed = stack(&[0., 1., 2.]);
    mixed.instances.extend(series(vec![localizer]).instances);
    let plan = self::plan(&mixed).unwrap();
    assert_eq!((order(&plan), plan.warnings.len()), (vec![0, 1, 2], 1));
}

#[test]
fn a_tilted_gantry_stays_in_the_affine() {
    let at = |i: usize| slice(i, [0., 0.5 * i as f64, 2.0 * i as f64], AXIAL);
    let plan = plan(&series((0..5).map(at).collect())).unwrap();
    assert_eq!(plan.geometry.affine.column(2), [0., -0.5, 2.]);
    assert!(plan.warnings[0].contains("14.0 degrees"), "{:?}", plan.warnings);
}

#[test]
fn frames_of_an_enhanced_instance() {
    let sequence = |tag, items: Vec<Dataset>| {
        DataElement::new(tag, VR::SQ, dicom_core::value::DataSetSequence::from(items))
    };
    let frame = |z: f64| {
        let position = DataElement::new(tags::IMAGE_POSITION_PATIENT, VR::DS, texts(&[1., 2., z]));
        let item = Dataset::from_element_iter([position]);
        Dataset::from_element_iter([sequence(tags::PLANE_POSITION_SEQUENCE, vec![item])])
    };
    let mut dataset = slice(1, [0., 0., 0.], AXIAL);
    dataset.remove_element(tags::IMAGE_POSITION_PATIENT);
    let heights = [3., 1., 2.];
    let groups = heights.map(frame).into();
    dataset.put(sequence(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE, groups));
    let mut enhanced = series(vec![dataset]);
    enhanced.instances[0].frames = vec![FrameDescriptor::default(); 3];
    let plan = plan(&enhanced).unwrap();
    let frames: Vec<usize> = plan.slices.iter().map(|s| s.key.frame).collect();
    assert_eq!(frames, [1, 2, 0]);
    assert_eq!(plan.geometry.affine.origin(), [-1., -2., 1.]);
}

proptest! {
    /// Every voxel lies where its slice's own header says, whatever the order of the files, the
    /// direction of the stack and the orientation of the slices.
    #[test]
    fn voxels_lie_where_the_headers_say(
        count in 2usize..12,
        step in prop_oneof![-6.0..-0.3f64, 0.3..6.0f64],
        angles in prop::array::uniform3(-3.0..3.0f64),
        origin in prop::array::uniform3(-300.0..300.0f64),
        seed in any::<u64>(),
    ) {
        let [a, b, c] = angles;
        let rotate = |[x, y, z]: [f64; 3]| {
            let (x, y) = (x * a.cos() - y * a.sin(), x * a.sin() + y * a.cos());
            let (y, z) = (y * b.cos() - z * b.sin(), y * b.sin() + z * b.cos());
            let (z, x) = (z * c.cos() - x * c.sin(), z * c.sin() + x * c.cos());
            [x, y, z]
        };
        let (row, column, normal) = (rotate([1., 0., 0.]), rotate([0., 1., 0.]), rotate([0., 0., 1.]));
        let orientation = [row[0], row[1], row[2], column[0], column[1], column[2]];
        let position = |k: usize| -> [f64; 3] {
            std::array::from_fn(|i| origin[i] + normal[i] * step * k as f64)
        };
        let mut names: Vec<usize> = (0..count).collect();
        names.sort_by_key(|&k| (k as u64 ^ seed).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let made = series(names.iter().map(|&k| slice(k, position(k), orientation)).collect());
        let plan = plan(&made).unwrap();
        for (z, planned) in plan.slices.iter().enumerate() {
            let [px, py, pz] = position(names[planned.key.instance]);
            let [x, y, w] = plan.geometry.affine.apply([0., 0., z as f64]);
            let far = (x + px).abs().max((y + py).abs()).max((w - pz).abs());
            prop_assert!(far < 1e-6, "{far}");
        }
    }
}
