//! Tests of the values kept for measurements.

use super::*;
use crate::volume::Physical;

/// A stack of two slices with this slope and intercept.
fn rescaled(slope: &str, intercept: &str) -> Plan {
    let mut series = stack(&[0.0, 2.5]);
    for instance in &mut series.instances {
        let mut dataset = (*instance.dataset).clone();
        dataset.put(DataElement::new(tags::RESCALE_SLOPE, VR::DS, slope));
        dataset.put(DataElement::new(tags::RESCALE_INTERCEPT, VR::DS, intercept));
        instance.dataset = Arc::new(dataset);
    }
    plan(&series).unwrap()
}

/// Extreme and other 16-bit stored values, converted to physical values by `plan`.
fn voxels(plan: &Plan) -> Array3<f32> {
    let stored = [i16::MIN, -1024, -1, 0, 1, 40, 3071, i16::MAX];
    let value = |(x, y, z): (usize, usize, usize)| {
        plan.slices[z].physical(f64::from(stored[(x + 4 * y + z) % stored.len()]))
    };
    let [x, y, z] = plan.geometry.dims;
    Array3::from_shape_fn((x, y, z), value)
}

#[test]
fn whole_numbers_take_two_bytes_and_are_the_same() {
    for (slope, intercept, bytes) in [
        ("1", "-1024", 2),
        ("1", "0", 2),
        ("-1", "7", 2),
        ("2", "0", 4),
        ("0.5", "0", 4),
        ("1", "0.25", 4),
    ] {
        let plan = rescaled(slope, intercept);
        let voxels = voxels(&plan);
        let kept = Physical::keep(voxels.view(), &plan).unwrap();
        assert_eq!(Physical::voxel_bytes(&plan), bytes, "{slope} {intercept}");
        assert_eq!(matches!(kept, Physical::Whole { .. }), bytes == 2);
        assert_eq!(kept.dim(), voxels.dim());
        for ((x, y, z), &value) in voxels.indexed_iter() {
            assert_eq!(kept.at([x, y, z]), Some(value), "{slope} {intercept}");
        }
        assert_eq!(kept.at([0, 0, 2]), None);
    }
}

#[test]
fn what_is_kept_as_frames_arrive_is_what_is_kept_of_all() {
    for (slope, intercept) in [("1", "-1024"), ("-1", "7"), ("2", "0")] {
        let plan = Arc::new(rescaled(slope, intercept));
        let mut volume = Volume::new(plan.clone()).unwrap().measured().unwrap();
        let pixels: usize = plan.geometry.dims[..2].iter().product();
        for index in (0..plan.slices.len()).rev() {
            let stored = (0..pixels).map(|n| [i16::MIN, 40, -1, i16::MAX][(n + index) % 4]);
            volume.insert(index, Samples::I16(stored.collect())).unwrap();
        }
        let kept = volume.take_kept();
        let voxels = volume.into_physical().unwrap();
        // If not all are whole numbers within 16 bits, they are kept later.
        let later = Physical::keep(voxels.view(), &plan).unwrap();
        let whole = matches!(later, Physical::Whole { .. });
        assert_eq!(kept, whole.then_some(later), "{slope} {intercept}");
    }
}
