//! Tests of slices that arrive in any order, from several threads, twice or never.

use super::*;

fn three(policy: &Policy) -> Arc<Plan> {
    // With a gap between the second and the third slice if gaps are to be interpolated.
    let heights = if policy.gaps == Gaps::Interpolate { [0., 1., 3.] } else { [0., 1., 2.] };
    Arc::new(planned(&stack(&heights), policy).unwrap())
}

fn policies() -> [Policy; 2] {
    [Policy::default(), Policy { gaps: Gaps::Interpolate, ..Policy::default() }]
}

#[test]
fn a_slice_comes_once() {
    for policy in policies() {
        let mut volume = Volume::new(three(&policy)).unwrap();
        volume.insert(1, Samples::I16(vec![3; 12])).unwrap();
        let again = volume.insert(1, Samples::I16(vec![4; 12])).unwrap_err();
        assert_eq!(again.kind(), ErrorKind::Internal);
        assert!(again.message().contains("slice 1 came twice"), "{again}");
        let places = volume.places();
        assert!(places.put(1, Samples::I16(vec![4; 12])).is_err());
        places.put(0, Samples::I16(vec![1; 12])).unwrap();
        assert!(places.put(0, Samples::I16(vec![1; 12])).is_err());
        // Samples that do not fit leave the slot free.
        for (index, length) in [(2, 11), (2, 13), (3, 12), (usize::MAX, 12)] {
            assert!(places.put(index, Samples::I16(vec![1; length])).is_err(), "{index}");
        }
        places.put(2, Samples::I16(vec![5; 12])).unwrap();
        drop(places);
        let voxels = volume.into_physical().unwrap();
        // Twice the stored value, plus ten for each slice.
        assert_eq!((voxels[[0, 0, 0]], voxels[[3, 2, 1]]), (2.0, 16.0));
        assert_eq!(voxels[[0, 0, voxels.dim().2 - 1]], 30.0);
    }
}

#[test]
fn a_slice_that_never_came_is_no_zeros() {
    for policy in policies() {
        for missing in 0..3 {
            let mut volume = Volume::new(three(&policy)).unwrap();
            for index in (0..3).filter(|&index| index != missing) {
                volume.insert(index, Samples::U16(vec![0; 12])).unwrap();
            }
            let error = volume.into_physical().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Internal);
            assert!(error.message().contains(&format!("slice {missing} is missing")), "{error}");
        }
    }
}

#[test]
fn threads_fill_it_together() {
    let heights: Vec<f64> = (0..64).map(f64::from).collect();
    let plan = Arc::new(plan(&stack(&heights)).unwrap());
    let stored = |index: usize| Samples::I16((0..12).map(|i| (index * 12 + i) as i16).collect());
    let mut volume = Volume::new(plan.clone()).unwrap();
    let places = volume.places();
    // Two threads try to put every slice; one of them succeeds.
    let put: usize = std::thread::scope(|scope| {
        let fill = || (0..64).filter(|&index| places.put(index, stored(index)).is_ok()).count();
        let threads = [scope.spawn(fill), scope.spawn(fill)];
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(put, 64);
    drop(places);
    let mut alone = Volume::new(plan).unwrap();
    (0..64).rev().for_each(|index| alone.insert(index, stored(index)).unwrap());
    assert_eq!(volume.into_physical().unwrap(), alone.into_physical().unwrap());
}
