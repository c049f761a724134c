//! Tests of irregular stacks, and of those that only look irregular.

use super::*;

/// A stack with slices at these positions, in this order.
fn at(positions: &[[f64; 3]]) -> Series {
    series(positions.iter().enumerate().map(|(i, p)| slice(i, *p, AXIAL)).collect())
}

fn interpolating() -> Policy {
    Policy { gaps: Gaps::Interpolate, ..Policy::default() }
}

#[test]
fn slices_that_jump_sideways_are_refused() {
    // Regular along the normal; shifted by 5 mm to the left from the fourth slice on.
    let positions: Vec<[f64; 3]> =
        (0..8).map(|i| [if i < 3 { 0. } else { 5. }, 0., 2.5 * f64::from(i)]).collect();
    for policy in [Policy::default(), interpolating()] {
        let e = planned(&at(&positions), &policy).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::InvalidImage);
        assert_eq!(e.details()["sopInstanceUID"], "1.2.2", "{e}");
        assert_eq!(e.details()["nextSopInstanceUID"], "1.2.3", "{e}");
        assert!(e.message().contains("within their plane"), "{e}");
    }
    // A single shifted slice.
    let mut one: Vec<[f64; 3]> = (0..8).map(|i| [0., 0., 2.5 * f64::from(i)]).collect();
    one[5][1] = 0.4;
    assert!(plan(&at(&one)).unwrap_err().message().contains("1.2.5"));
    // A fraction of a pixel counts as rounding.
    one[5][1] = 0.04;
    assert!(plan(&at(&one)).is_ok());
}

#[test]
fn small_deviations_that_add_up_are_refused() {
    // Each step is within 5 % of the median, but the middle is 13 mm off its position in a regular
    // stack.
    let mut z = 0.0;
    let positions: Vec<[f64; 3]> = (0..201)
        .map(|i| {
            let here = [0., 0., z];
            z += if i < 100 { 2.6 } else { 2.5 };
            here
        })
        .collect();
    let e = plan(&at(&positions)).unwrap_err();
    assert!(e.message().contains("slice 101 of 201") && e.message().contains("5.000 mm"), "{e}");
    let plan = planned(&at(&positions), &interpolating()).unwrap();
    assert_eq!((plan.geometry.dims[2], plan.slices.len()), (205, 201));
    let spacing = plan.geometry.affine.spacing()[2];
    assert!((spacing - 2.5).abs() < 1e-9, "{spacing}");
    let nearest = plan.resampling.unwrap().nearest;
    assert!(nearest.windows(2).all(|pair| pair[1] > pair[0]));
    for (slice, grid) in nearest.into_iter().enumerate() {
        let off = (positions[slice][2] - spacing * grid as f64).abs();
        assert!(off <= spacing / 2.0 + 1e-9, "{off}");
    }
}

#[test]
fn positions_of_one_decimal_are_even() {
    let rounded = |i: u32| (f64::from(i) * 0.625 * 10.0).round() / 10.0;
    let positions: Vec<[f64; 3]> = (0..40).map(|i| [0.1, 0., rounded(i)]).collect();
    let plan = plan(&at(&positions)).unwrap();
    assert!((plan.geometry.affine.spacing()[2] - 0.625).abs() < 0.002);
    // A missing slice is not rounding.
    let mut missing = positions;
    missing.remove(20);
    assert!(super::plan(&at(&missing)).is_err());
}

#[test]
fn a_stack_that_leans_beyond_any_gantry_is_refused() {
    let lean = |degrees: f64| {
        let shift = degrees.to_radians().tan();
        let positions: Vec<[f64; 3]> =
            (0..6).map(|i| [0., 2.0 * shift * f64::from(i), 2.0 * f64::from(i)]).collect();
        plan(&at(&positions))
    };
    assert!(lean(30.0).is_ok());
    let e = lean(60.0).unwrap_err();
    assert!(e.message().contains("60.0 degrees"), "{e}");
    assert_eq!(e.details()["attribute"], "ImagePositionPatient");
}

#[test]
fn what_lies_between_is_interpolated_linearly() {
    // Slices at 0, 2, 3 and 7 mm: the smallest distance is 1.
    let heights = [0., 2., 3., 7.];
    let plan = planned(&stack(&heights), &interpolating()).unwrap();
    assert_eq!(plan.geometry.dims, [4, 3, 8]);
    assert!(plan.warnings[0].contains("4 slices were interpolated onto 8"), "{:?}", plan.warnings);
    let plan = Arc::new(plan);
    let mut volume = Volume::new(plan.clone()).unwrap();
    for index in 0..4 {
        // Stored values that each slice's own rescale converts to ten times its height.
        let intercept = 10 * index as i16;
        let stored = (10 * heights[index] as i16 - intercept) / 2;
        volume.insert(index, Samples::I16(vec![stored; 12])).unwrap();
    }
    let voxels = volume.into_physical().unwrap();
    for z in 0..8 {
        assert_eq!(voxels[[1, 1, z]], 10.0 * z as f32, "{z}");
    }
    assert_eq!(plan.resampling.as_ref().unwrap().nearest, [0, 2, 3, 7]);
}

#[test]
fn no_grid_is_as_fine_as_a_mistake() {
    let e = planned(&stack(&[0., 0.02, 5., 10.]), &interpolating()).unwrap_err();
    assert!(e.message().contains("0.020 mm apart"), "{e}");
    assert_eq!(e.details()["nextSopInstanceUID"], "1.2.1");
}

#[test]
fn an_instance_that_is_there_twice_is_taken_once() {
    let mut twice = stack(&[0., 2.5, 5.]);
    twice.instances.push(twice.instances[1].clone());
    let plan = plan(&twice).unwrap();
    assert_eq!(order(&plan), [0, 1, 2]);
    assert!(plan.warnings[0].contains("there twice"), "{:?}", plan.warnings);
    // A different instance with the same UID is not a duplicate.
    let mut other = slice(1, [10., 20., 7.5], AXIAL);
    other.put(DataElement::new(tags::RESCALE_SLOPE, VR::DS, "3"));
    twice.instances[3].dataset = Arc::new(other);
    let e = super::plan(&twice).unwrap_err();
    assert_eq!(e.details()["attribute"], "SOPInstanceUID", "{e}");
}
