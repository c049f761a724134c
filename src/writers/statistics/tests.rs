use std::collections::HashMap;

use ndarray::{Array3, Array4, ArrayView3, ShapeBuilder};

use super::*;
use crate::volume::Affine;

/// A generator of pseudo-random numbers.
struct Random(u32);

impl Random {
    fn below(&mut self, n: u32) -> u32 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (self.0 >> 8) % n
    }
}

fn segment(value: u16) -> SegmentDescription {
    SegmentDescription::tissue(value, &format!("class {value}"))
}

fn geometry((x, y, z): (usize, usize, usize)) -> Geometry {
    // Sheared, and with no axis along one of the patient's.
    let columns = [[0.7, 0.1, 0.0], [-0.1, 0.9, 0.2], [0.3, 0.0, 2.5]];
    Geometry { dims: [x, y, z], affine: Affine::from_columns(columns, [-100.0, 20.0, 7.0]) }
}

/// Organs of some size, with noise of single voxels in between.
fn labels(dims: (usize, usize, usize), random: &mut Random) -> Array3<u8> {
    Array3::from_shape_fn(dims.f(), |(x, y, z)| match (x / 5, y / 4, z / 6) {
        (0, 1, _) => 1,
        (1, 1 | 2, 0 | 1) => 2,
        (2, 0 | 1, _) if random.below(3) == 0 => 3,
        (_, 4, _) => random.below(4) as u8,
        _ => 0,
    })
}

/// Returns the sizes of the components of a mask, by flood fill.
fn flooded(mask: ArrayView3<u8>) -> Vec<u64> {
    let mut seen = Array3::from_elem(mask.dim(), false);
    let mut sizes = Vec::new();
    for (start, &value) in mask.indexed_iter() {
        if value == 0 || seen[start] {
            continue;
        }
        let (mut stack, mut size) = (vec![start], 0);
        seen[start] = true;
        while let Some((x, y, z)) = stack.pop() {
            size += 1;
            for dx in 0..3 {
                for dy in 0..3 {
                    for dz in 0..3 {
                        let to = (x + dx, y + dy, z + dz);
                        let Some(to) =
                            to.0.checked_sub(1).zip(to.1.checked_sub(1)).zip(to.2.checked_sub(1))
                        else {
                            continue;
                        };
                        let ((x, y), z) = to;
                        if mask.get((x, y, z)) == Some(&1) && !seen[[x, y, z]] {
                            seen[[x, y, z]] = true;
                            stack.push((x, y, z));
                        }
                    }
                }
            }
        }
        sizes.push(size);
    }
    sizes
}

/// Measures a mask in the most straightforward way.
fn plain(mask: ArrayView3<u8>, physical: &Physical, geometry: &Geometry) -> Statistics {
    let inside: Vec<[usize; 3]> =
        mask.indexed_iter().filter(|(_, v)| **v != 0).map(|((x, y, z), _)| [x, y, z]).collect();
    let n = inside.len() as f64;
    let bounds = (!inside.is_empty()).then(|| {
        std::array::from_fn(|axis| {
            let along = || inside.iter().map(|at| at[axis]);
            along().min().unwrap()..along().max().unwrap() + 1
        })
    });
    let touches = std::array::from_fn(|axis| {
        let at = |index| inside.iter().any(|voxel| voxel[axis] == index);
        [at(0), at(geometry.dims[axis] - 1)]
    });
    let lps = lps_ras(&geometry.affine);
    let places: Vec<[f64; 3]> =
        inside.iter().map(|at| lps.apply(at.map(|index| index as f64))).collect();
    let centroid = (!inside.is_empty()).then(|| {
        std::array::from_fn(|axis| places.iter().map(|place| place[axis]).sum::<f64>() / n)
    });
    let mut values: Vec<f64> = inside
        .iter()
        .map(|&at| f64::from(physical.at(at).unwrap()))
        .filter(|v| v.is_finite())
        .collect();
    values.sort_by(f64::total_cmp);
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let percentile = |p: u8| {
        let place = (count - 1.0) * f64::from(p) / 100.0;
        let (low, high) = (values[place.floor() as usize], values[place.ceil() as usize]);
        low + (high - low) * place.fract()
    };
    let spread = (!values.is_empty()).then(|| ValueStatistics {
        mean,
        standard_deviation: (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / count).sqrt(),
        minimum: values[0],
        maximum: *values.last().unwrap(),
        percentiles: PERCENTILES.map(percentile),
        excluded: (inside.len() - values.len()) as u64,
    });
    let components = flooded(mask);
    Statistics {
        voxels: inside.len() as u64,
        bounds,
        centroid,
        components: components.len() as u64,
        largest_component: components.into_iter().max().unwrap_or(0),
        touches,
        values: spread,
    }
}

/// Asserts that everything is equal, except for rounding in f64 sums.
fn assert_alike(found: &Statistics, expected: &Statistics, what: &str) {
    let near = |a: f64, b: f64| assert!((a - b).abs() <= 1e-9 * (1.0 + b.abs()), "{what}: {a} {b}");
    let exact =
        |s: &Statistics| (s.voxels, s.bounds.clone(), s.components, s.largest_component, s.touches);
    assert_eq!(exact(found), exact(expected), "{what}");
    let centroids = [found, expected].map(|s| s.centroid.unwrap_or_default());
    (0..3).for_each(|axis| near(centroids[0][axis], centroids[1][axis]));
    assert_eq!(found.centroid.is_some(), expected.centroid.is_some());
    let (found, expected) = match (&found.values, &expected.values) {
        (Some(found), Some(expected)) => (found, expected),
        (found, expected) => return assert_eq!(found, expected, "{what}"),
    };
    let exact = |v: &ValueStatistics| (v.minimum, v.maximum, v.excluded);
    assert_eq!(exact(found), exact(expected), "{what}");
    near(found.mean, expected.mean);
    near(found.standard_deviation, expected.standard_deviation);
    (0..5).for_each(|p| near(found.percentiles[p], expected.percentiles[p]));
    assert_eq!(found.median(), found.percentiles[2]);
}

/// Whole values, values of a real-valued image, and some that are not numbers.
fn images(dims: (usize, usize, usize), random: &mut Random) -> Vec<Physical> {
    let mut whole = |range| {
        let voxels = Array3::from_shape_simple_fn(dims.f(), || random.below(range) as u16);
        Physical::Whole { voxels, low: -1024 }
    };
    let mut all = vec![whole(65536), whole(2)];
    let mut real = |scale: f32, broken: bool| {
        Physical::Real(Array3::from_shape_simple_fn(dims.f(), || {
            let value = (random.below(1 << 24) as f32 - 8e6) * scale;
            if broken && random.below(9) == 0 { f32::NAN } else { value }
        }))
    };
    all.extend([real(1e-3, false), real(1e30, false), real(0.0, false), real(1.0, true)]);
    all
}

#[test]
fn statistics_are_those_of_the_plainest_way() {
    let mut random = Random(7);
    let dims = (17, 21, 19);
    let labels = labels(dims, &mut random);
    // Class 9 has no voxel, and the order differs from the labels'.
    let segments = [3, 1, 9, 2].map(segment);
    let geometry = geometry(dims);
    for (number, physical) in images(dims, &mut random).iter().enumerate() {
        let found =
            measure(&Voxels::Labels(labels.view()), &segments, physical, &geometry).unwrap();
        for (segment, found) in segments.iter().zip(&found) {
            let mask = labels.mapv(|label| u8::from(u16::from(label) == segment.value));
            let what = format!("{} of image {number}", segment.label);
            assert_alike(found, &plain(mask.view(), physical, &geometry), &what);
        }
        assert_eq!((found[2].voxels, &found[2].values, found[2].centroid), (0, &None, None));
    }
}

#[test]
fn every_form_and_memory_layout_is_measured_alike() {
    let mut random = Random(3);
    let dims = (17, 21, 19);
    let labels = labels(dims, &mut random);
    let segments = [1, 2, 3].map(segment);
    let geometry = geometry(dims);
    let physical = images(dims, &mut random).remove(0);
    let of = |voxels: &Voxels<u8>| measure(voxels, &segments, &physical, &geometry).unwrap();
    let expected = of(&Voxels::Labels(labels.view()));
    let masks = Array4::from_shape_fn((3, dims.0, dims.1, dims.2), |(segment, x, y, z)| {
        u8::from(usize::from(labels[[x, y, z]]) == segment + 1)
    });
    assert_eq!(of(&Voxels::Masks(masks.view())), expected);
    let row_major = Array3::from_shape_fn(dims, |at| labels[at]);
    assert_eq!(of(&Voxels::Labels(row_major.view())), expected);
    let wide = labels.mapv(u16::from);
    let wide = Voxels::Labels(wide.view());
    assert_eq!(measure(&wide, &segments, &physical, &geometry).unwrap(), expected);
    let Physical::Whole { voxels, low } = &physical else { unreachable!() };
    let voxels = Array3::from_shape_fn(dims, |at| voxels[at]);
    let other = Physical::Whole { voxels, low: *low };
    let labels = Voxels::Labels(labels.view());
    assert_eq!(measure(&labels, &segments, &other, &geometry).unwrap(), expected);
}

#[test]
fn segments_that_overlap_are_measured_each_by_itself() {
    let mut random = Random(5);
    let dims = (23, 9, 17);
    let members: Vec<Vec<u16>> = vec![vec![], vec![0], vec![0, 1], vec![1, 2], vec![2], vec![1]];
    let codes = Array3::from_shape_fn(dims.f(), |(x, y, _)| {
        if x > 11 && y > 4 { random.below(6) as u16 } else { (x / 4) as u16 }
    });
    let segments = [1, 2].map(segment);
    let geometry = geometry(dims);
    let physical = images(dims, &mut random).remove(0);
    let sets = Voxels::Sets { codes: codes.view(), members: &members };
    let found = measure(&sets, &segments, &physical, &geometry).unwrap();
    for (segment, found) in segments.iter().zip(&found) {
        let mask = codes.mapv(|code| u8::from(members[usize::from(code)].contains(&segment.value)));
        assert_alike(found, &plain(mask.view(), &physical, &geometry), &segment.label);
    }
    let error = measure(&sets, &segments[..1], &physical, &geometry).unwrap_err();
    assert_eq!(error.details()["labelValue"], 2);
}

#[test]
fn the_number_of_threads_changes_no_digit() {
    let mut random = Random(11);
    let dims = (33, 20, 70);
    let labels = labels(dims, &mut random);
    let segments = [1, 2, 3].map(segment);
    let geometry = geometry(dims);
    for physical in images(dims, &mut random) {
        let with = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let labels = Voxels::Labels(labels.view());
            pool.install(|| measure(&labels, &segments, &physical, &geometry).unwrap())
        };
        let one = with(1);
        // NaN does not equal itself.
        assert_eq!(format!("{:?}", with(5)), format!("{one:?}"));
    }
}

/// Shapes that connect across the borders of slabs, like a spiral.
#[test]
fn components_go_on_from_slab_to_slab() {
    let dims = (16, 16, 40);
    let mut expected = HashMap::new();
    let mut labels = Array3::<u8>::zeros(dims.f());
    for z in 0..40 {
        // A column of voxels, one that skips every eighth slice, and two legs that meet at the end.
        labels[[1, 1, z]] = 1;
        if z % 8 != 7 {
            labels[[5, 5, z]] = 2;
        }
        labels[[9, 9, z]] = 3;
        labels[[13, 9, z]] = 3;
    }
    (9..14).for_each(|x| labels[[x, 9, 39]] = 3);
    // Corners touch.
    labels[[2, 2, 0]] = 1;
    expected.insert(1, (1, 41));
    expected.insert(2, (5, 7));
    expected.insert(3, (1, 83));
    let segments = [1, 2, 3].map(segment);
    let physical = Physical::Whole { voxels: Array3::zeros(dims.f()), low: 0 };
    let found =
        measure(&Voxels::Labels(labels.view()), &segments, &physical, &geometry(dims)).unwrap();
    for (segment, found) in segments.iter().zip(found) {
        let components = (found.components, found.largest_component);
        assert_eq!(components, expected[&segment.value], "{}", segment.label);
    }
}

#[test]
fn what_does_not_belong_together_is_refused() {
    let labels = Array3::from_elem((4, 4, 2), 1_u8);
    let physical = Physical::Real(Array3::zeros((4, 4, 3)));
    let geometry = geometry((4, 4, 2));
    let labels = Voxels::Labels(labels.view());
    assert!(measure(&labels, &[segment(1)], &physical, &geometry).is_err());
    let physical = Physical::Real(Array3::zeros((4, 4, 2)));
    assert!(measure(&labels, &[segment(1)], &physical, &geometry).is_ok());
    let error = measure(&labels, &[segment(2)], &physical, &geometry).unwrap_err();
    assert!(error.message().contains("label 1, which channel_def does not describe"), "{error}");
}
