//! Compares whole pre- and postprocessing chains with MONAI's results (`tests/goldens`, created by `make.py`).

use std::path::Path;

use ahi_inference::bundle::Component;
use ahi_inference::inference::PlaneSink;
use ahi_inference::postprocess::{PostPlan, Segmentation, Segmenter};
use ahi_inference::transforms::{Extent, Image, Preprocessing};
use ndarray::{Array4, ArrayView3, Axis, s};
use serde_json::Value;

use super::goldens::{Golden, slices_first};

fn components(spec: &Value, name: &str) -> Vec<Component> {
    let list = spec[name].as_array().unwrap().iter().enumerate();
    list.map(|(index, spec)| {
        let mut args = spec.as_object().unwrap().clone();
        let target = args.remove("_target_").unwrap().as_str().unwrap().to_owned();
        Component { target, args, path: format!("{name}#transforms#{index}") }
    })
    .collect()
}

/// Feeds a result to the segmenter in groups of planes, each in bands of rows.
fn segment(
    mut segmenter: Segmenter,
    logits: &Array4<f32>,
    group: usize,
    band: usize,
) -> Segmentation {
    let (classes, nx, ny, nz) = logits.dim();
    segmenter.begin(classes, [nx, ny, nz]).unwrap();
    for x in (0..nx).step_by(group) {
        for y in (0..ny).step_by(band) {
            let part = logits.slice(s![.., x..(x + group).min(nx), y..(y + band).min(ny), ..]);
            let planes: Vec<ArrayView3<f32>> = part.axis_iter(Axis(1)).collect();
            segmenter.planes(x, y, &planes).unwrap();
        }
    }
    segmenter.finish().unwrap()
}

/// Returns a mask for each class.
fn masks(found: Segmentation, channels: usize) -> Vec<Array4<u8>> {
    let of = |class: u16| match &found {
        Segmentation::Labels(labels) => labels.mapv(|l| u8::from(u16::from(l) == class)),
        Segmentation::Masks(masks) => masks.index_axis(Axis(0), usize::from(class)).to_owned(),
        Segmentation::Sets(sets) => sets.class_mask(class).unwrap(),
    };
    (0..channels as u16).map(|class| of(class).insert_axis(Axis(0))).collect()
}

/// Counts the voxels that differ from MONAI's result.
fn differing(found: Segmentation, expected: &Array4<f32>) -> usize {
    // Interpolated values between labels or masks are rounded, ties to even.
    let expected = expected.mapv(|v| v.round_ties_even() as u8);
    let channels = expected.dim().0;
    if channels == 1 {
        let Segmentation::Labels(labels) = found else { panic!("{found:?}") };
        assert_eq!(labels.shape(), &expected.shape()[1..]);
        return labels.iter().zip(&expected).filter(|(a, b)| a != b).count();
    }
    // The first of one-hot channels is background; the first of a network's masks is a class.
    let first = usize::from(!matches!(found, Segmentation::Masks(_)));
    let masks = masks(found, channels);
    (first..channels)
        .map(|class| {
            let expected = expected.slice(s![class..class + 1, .., .., ..]);
            masks[class].iter().zip(&expected).filter(|(a, b)| a != b).count()
        })
        .sum()
}

#[test]
fn chains_end_as_in_monai() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|e| e == "npz"));
    files.sort();
    assert!(files.len() > 100);
    let mut wrong = Vec::new();
    for file in files {
        let golden = Golden::open(&file);
        let (spec, affine) = (golden.spec(), golden.affine("affine"));
        let logits: Array4<f32> = golden.array("logits");
        let image = Image::new(slices_first(&golden.array("image")), affine);
        let extent = Extent::new(image.dims(), affine);
        let chain = Preprocessing::new(&components(&spec, "preprocessing"), &["image".to_owned()]);
        let chain = chain.unwrap();
        let forecast = chain.forecast(vec![extent]).unwrap();
        let image = chain.run(vec![image], |_| Ok(())).unwrap();
        assert_eq!(image.dims(), forecast.result.dims);
        assert_eq!(image.data.shape()[1..], logits.shape()[1..], "{}", golden.name());
        let plan = PostPlan::new(&components(&spec, "postprocessing")).unwrap();
        plan.form(logits.dim().0).unwrap();
        let volume = |affine: &ahi_inference::volume::Affine| affine.spacing().iter().product();
        for (group, band) in [(100, 100), (3, 100), (5, 4), (1, 1)] {
            let segmenter = Segmenter::new(plan.clone(), &image.applied, image.dims()).unwrap();
            let segmenter = segmenter.with_voxels(volume(&image.affine), volume(&affine));
            let found = segment(segmenter, &logits, group, band);
            let differing = differing(found, &golden.array("output"));
            if differing > 0 {
                wrong.push(format!("{} in groups of {group}: {differing}", golden.name()));
            }
        }
    }
    assert!(wrong.is_empty(), "voxels differ: {wrong:#?}");
}
