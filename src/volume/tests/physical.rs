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

/// Extreme and other 16-bit stored values.
const STORED: [i16; 8] = [i16::MIN, -1024, -1, 0, 1, 40, 3071, i16::MAX];

/// Returns the physical value of a voxel of a volume of 4 columns.
fn value(plan: &Plan, [x, y, z]: [usize; 3]) -> f32 {
    plan.slices[z].physical(f64::from(STORED[(x + 4 * y + z) % STORED.len()]))
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
        let plan = Arc::new(rescaled(slope, intercept));
        let mut volume = Volume::new(plan.clone()).unwrap().measured().unwrap();
        let [columns, rows, slices] = plan.geometry.dims;
        assert_eq!(columns, 4);
        for z in (0..slices).rev() {
            let stored = (0..columns * rows).map(|n| STORED[(n + z) % STORED.len()]);
            volume.insert(z, Samples::I16(stored.collect())).unwrap();
        }
        let kept = volume.take_kept();
        let voxels = volume.into_physical().unwrap();
        // Whole numbers are kept as frames arrive, others later.
        assert_eq!(kept.is_some(), bytes == 2, "{slope} {intercept}");
        let kept = kept.unwrap_or_else(|| Physical::keep(voxels.view()).unwrap());
        assert_eq!(Physical::voxel_bytes(&plan), bytes, "{slope} {intercept}");
        assert_eq!(matches!(kept, Physical::Whole { .. }), bytes == 2);
        assert_eq!(kept.dim(), voxels.dim());
        for ((x, y, z), &voxel) in voxels.indexed_iter() {
            assert_eq!(voxel, value(&plan, [x, y, z]), "{slope} {intercept}");
            assert_eq!(kept.at([x, y, z]), Some(voxel), "{slope} {intercept}");
        }
        assert_eq!(kept.at([0, 0, 2]), None);
    }
}
