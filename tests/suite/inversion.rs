//! Inverting the preprocessing with nearest-neighbour interpolation restores the original labels, up to one voxel
//! at their boundaries, even if orientations are oblique and rounded to a few decimals.

use ahi_inference::bundle::Component;
use ahi_inference::inference::PlaneSink;
use ahi_inference::postprocess::{
    Discretise, Inverse, InvertSpec, PostPlan, Segmentation, Segmenter,
};
use ahi_inference::transforms::{Image, build};
use ahi_inference::volume::Affine;
use ndarray::{Array3, Array4, Axis, ShapeBuilder};
use proptest::prelude::*;
use serde_json::{Value, json};

/// A random image and the transforms applied to it.
#[derive(Debug, Clone)]
struct Case {
    dims: [usize; 3],
    affine: Affine,
    seed: u32,
    transforms: Vec<Value>,
    cropped: bool,
}

/// Axes in any order and direction, slightly rotated. Direction cosines are exact, or rounded as scanners write
/// them.
fn affine() -> impl Strategy<Value = ([f64; 3], Affine)> {
    let order = Just([0usize, 1, 2]).prop_shuffle();
    let turn = prop_oneof![
        Just([0.0; 3]),
        (-0.3..0.3f64).prop_map(|turn| [turn, 0.0, 0.0]),
        prop::array::uniform3(-0.3..0.3f64),
    ];
    let decimals = prop_oneof![Just(None), (5i32..9).prop_map(Some)];
    let flips = prop::array::uniform3(any::<bool>());
    (order, flips, prop::array::uniform3(0.5..4.0f64), turn, decimals).prop_map(
        |(order, flips, spacing, turn, decimals)| {
            let columns = std::array::from_fn(|c| {
                let mut v = [0.0; 3];
                v[order[c]] = if flips[c] { -1.0 } else { 1.0 };
                // Rotates about the third axis, the second and the first.
                for (angle, [a, b]) in turn.into_iter().zip([[0, 1], [2, 0], [1, 2]]) {
                    let (sin, cos) = f64::sin_cos(angle);
                    (v[a], v[b]) = (cos * v[a] - sin * v[b], sin * v[a] + cos * v[b]);
                }
                v.map(|cosine| match decimals {
                    None => spacing[c] * cosine,
                    Some(decimals) => {
                        let unit = 10f64.powi(decimals);
                        spacing[c] * ((cosine * unit).round() / unit)
                    }
                })
            });
            // Spacing along R, A, S.
            let mut along = [0.0; 3];
            for c in 0..3 {
                along[order[c]] = spacing[c];
            }
            (along, Affine::from_columns(columns, [12.5, -80.0, 31.25]))
        },
    )
}

fn case() -> impl Strategy<Value = Case> {
    let sizes = prop::array::uniform3(6usize..20);
    // Below 3, a voxel comes back from its neighbour at most: half an input voxel plus half an output voxel.
    let ratios = prop::array::uniform3(0.4..2.9f64);
    let codes = prop::sample::select(vec!["RAS", "LPS", "PIR", "SAL"]);
    let windows = (0usize..4, 0usize..4, prop::array::uniform3(1i64..9));
    (sizes, affine(), any::<u32>(), ratios, codes, windows).prop_map(
        |(dims, (along, affine), seed, ratios, codes, (first, last, widths))| {
            let axis_of = |letter: char| match letter {
                'R' | 'L' => 0,
                'A' | 'P' => 1,
                _ => 2,
            };
            let pixdim: Vec<f64> =
                codes.chars().enumerate().map(|(i, l)| along[axis_of(l)] * ratios[i]).collect();
            let mut transforms = vec![json!({"_target_": "Orientationd", "axcodes": codes})];
            transforms.extend(window(first, widths, "edge"));
            transforms.push(json!({"_target_": "Spacingd", "pixdim": pixdim, "mode": "nearest"}));
            transforms.extend(window(last, widths, "constant"));
            Case { dims, affine, seed, transforms, cropped: first == 3 || last == 3 }
        },
    )
}

fn window(kind: usize, widths: [i64; 3], mode: &str) -> Option<Value> {
    let [a, b, c] = widths;
    match kind {
        1 => Some(json!({"_target_": "DivisiblePadd", "k": widths, "mode": mode})),
        2 => Some(
            json!({"_target_": "BorderPadd", "spatial_border": [a, b, c, 0, b, a], "mode": mode}),
        ),
        3 => Some(json!({"_target_": "CenterSpatialCropd", "roi_size": widths})),
        _ => None,
    }
}

/// Returns labels 0 to 4 in oblique slabs.
fn labels(dims: [usize; 3], seed: u32) -> Array4<f32> {
    let weights: [f32; 4] = std::array::from_fn(|i| ((seed >> (8 * i)) & 0xff) as f32 / 255.0);
    Array4::from_shape_fn((1, dims[0], dims[1], dims[2]).f(), |(_, x, y, z)| {
        let along = weights[0] * x as f32 + weights[1] * y as f32 + weights[2] * z as f32;
        ((along + 5.0 * weights[3]) / 3.0).floor() % 5.0
    })
}

fn processed(case: &Case, data: Array4<f32>) -> Image {
    let mut image = Image::new(data, case.affine);
    for (i, spec) in case.transforms.iter().enumerate() {
        let mut args = spec.as_object().unwrap().clone();
        let target = args.remove("_target_").unwrap().as_str().unwrap().to_owned();
        let path = format!("preprocessing#transforms#{i}");
        let transform = build(&Component { target, args, path }).unwrap().unwrap();
        image = transform.apply(image).unwrap();
    }
    image
}

/// Returns whether `at` or a voxel next to it has the value. The size of the network's grid is rounded
/// (`Spacing`), so up to half of one of its voxels may be missing at an end. A voxel there comes back from one
/// voxel further in.
fn neighbours_have(labels: &Array3<f32>, at: [usize; 3], value: f32) -> bool {
    let near: [_; 3] = std::array::from_fn(|a| {
        let size = labels.len_of(Axis(a));
        let reach = if at[a] < 2 || at[a] + 2 >= size { 2 } else { 1 };
        at[a].saturating_sub(reach)..(at[a] + reach + 1).min(size)
    });
    let [x, y, z] = near;
    labels.slice(ndarray::s![x, y, z]).iter().any(|v| *v == value)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..Default::default() })]

    #[test]
    fn labels_come_back_but_for_one_voxel_at_their_boundary(case in case()) {
        let original = labels(case.dims, case.seed);
        let image = processed(&case, original.clone());
        let original = original.index_axis_move(Axis(0), 0);
        let inverse = Inverse::new(&image.applied, image.dims(), true).unwrap();
        prop_assert_eq!(inverse.outputs(), case.dims);
        let back = inverse.apply(image.data.index_axis(Axis(0), 0)).unwrap();
        // The region that the network's grid covers.
        let [x, y, z] = image.dims();
        let covered = inverse.apply(Array3::ones((x, y, z)).view()).unwrap();
        prop_assert!(covered.iter().all(|c| *c == 0.0 || *c == 1.0));
        prop_assert!(case.cropped || covered.iter().all(|c| *c == 1.0));
        for ((x, y, z), &value) in back.indexed_iter() {
            if covered[[x, y, z]] == 0.0 {
                prop_assert_eq!(value, 0.0);
            } else {
                prop_assert!(
                    neighbours_have(&original, [x, y, z], value),
                    "{} at {:?}", value, [x, y, z]
                );
            }
        }
    }

    #[test]
    fn voxels_keep_their_place_in_the_world(case in case()) {
        let [x, y, z] = case.dims;
        // Three channels hold the world coordinates of their voxels; the last tells the image from padding.
        let data = Array4::from_shape_fn((4, x, y, z), |(c, x, y, z)| {
            let place = case.affine.apply([x as f64, y as f64, z as f64]);
            place.get(c).map_or(1.0, |v| *v as f32)
        });
        let image = processed(&case, data);
        let largest = |affine: &Affine| affine.spacing().into_iter().fold(0.0, f64::max);
        // Half an original voxel along each axis, plus half a new one where the grids end.
        let bound = 0.5 * (largest(&case.affine) + largest(&image.affine)) * 3f64.sqrt() + 1e-3;
        let to_index = case.affine.inverse().unwrap();
        let inside = |p: [f64; 3]| {
            let index = to_index.apply(p);
            (0..3).all(|a| index[a] >= 0.0 && index[a] <= case.dims[a] as f64 - 1.0)
        };
        for x in 0..image.dims()[0] {
            for y in 0..image.dims()[1] {
                for z in 0..image.dims()[2] {
                    let place = image.affine.apply([x as f64, y as f64, z as f64]);
                    if inside(place) && image.data[[3, x, y, z]] == 1.0 {
                        for c in 0..3 {
                            let off = f64::from(image.data[[c, x, y, z]]) - place[c];
                            prop_assert!(off.abs() <= bound, "{} off at {:?}", off, [x, y, z]);
                        }
                    }
                }
            }
        }
    }

    /// Processing planes as they arrive gives the same labels as inverting whole classes first.
    #[test]
    fn a_stream_of_planes_gives_the_labels_of_whole_classes(
        case in case(),
        classes in 2usize..5,
        group in 1usize..6,
        band in 1usize..6,
    ) {
        let mut case = case;
        for transform in case.transforms.iter_mut().filter(|t| t["_target_"] == "Spacingd") {
            transform["mode"] = json!("bilinear");
        }
        let image = processed(&case, labels(case.dims, case.seed));
        let [nx, ny, nz] = image.dims();
        let mut state = case.seed | 1;
        let values = Array4::from_shape_simple_fn((classes, nx, ny, nz), || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 16) as f32 / 65536.0
        });
        let plan = PostPlan {
            invert: Some(InvertSpec { nearest: false }),
            after: Some(Discretise::Argmax),
            ..PostPlan::default()
        };
        let mut segmenter = Segmenter::new(plan, &image.applied, image.dims()).unwrap();
        segmenter.begin(classes, image.dims()).unwrap();
        for x in (0..nx).step_by(group) {
            for y in (0..ny).step_by(band) {
                let (to_x, to_y) = ((x + group).min(nx), (y + band).min(ny));
                let part = values.slice(ndarray::s![.., x..to_x, y..to_y, ..]);
                segmenter.planes(x, y, &part.axis_iter(Axis(1)).collect::<Vec<_>>()).unwrap();
            }
        }
        let Segmentation::Labels(found) = segmenter.finish().unwrap() else { panic!("masks") };
        let inverse = Inverse::new(&image.applied, image.dims(), false).unwrap();
        let back: Vec<Array3<f32>> =
            values.outer_iter().map(|class| inverse.apply(class).unwrap()).collect();
        for (at, &label) in found.indexed_iter() {
            let best = back.iter().map(|class| class[at]).fold(f32::MIN, f32::max);
            prop_assert!(back[usize::from(label)][at] >= best - 1e-6, "{} at {:?}", label, at);
        }
    }
}
