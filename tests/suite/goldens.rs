//! Results of MONAI itself (`reference/goldens`, made by `make_goldens.py`) against ours.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use ahi_inference::bundle::Component;
use ahi_inference::transforms::{Image, build};
use ahi_inference::volume::Affine;
use ndarray::{Array, Array2, Array4, Dimension, ShapeBuilder};
use ndarray_npy::{NpzReader, ReadableElement};
use serde_json::Value;

use super::common::shared;

/// One `.npz` of the reference.
pub struct Golden {
    path: PathBuf,
}

impl Golden {
    pub fn open(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    pub fn name(&self) -> String {
        self.path.file_stem().unwrap().to_string_lossy().into_owned()
    }

    pub fn array<T: ReadableElement, D: Dimension>(&self, name: &str) -> Array<T, D> {
        let mut npz = NpzReader::new(File::open(&self.path).unwrap()).unwrap();
        npz.by_name(name).unwrap_or_else(|e| panic!("{} {name}: {e}", self.path.display()))
    }

    pub fn has(&self, name: &str) -> bool {
        let mut npz = NpzReader::new(File::open(&self.path).unwrap()).unwrap();
        npz.names().unwrap().iter().any(|n| n.trim_end_matches(".npy") == name)
    }

    /// The JSON that says what was applied: a NumPy scalar of UCS-4 text.
    pub fn spec(&self) -> Value {
        let mut zip = zip::ZipArchive::new(File::open(&self.path).unwrap()).unwrap();
        let mut bytes = Vec::new();
        zip.by_name("spec.npy").unwrap().read_to_end(&mut bytes).unwrap();
        let header = u16::from_le_bytes([bytes[8], bytes[9]]) as usize;
        let text: String = bytes[10 + header..]
            .chunks_exact(4)
            .map(|c| char::from_u32(u32::from_le_bytes(c.try_into().unwrap())).unwrap())
            .collect();
        serde_json::from_str(text.trim_end_matches('\0')).unwrap()
    }

    pub fn affine(&self, name: &str) -> Affine {
        let m: Array2<f64> = self.array(name);
        Affine(std::array::from_fn(|r| std::array::from_fn(|c| m[[r, c]])))
    }
}

/// All goldens whose name begins so; empty, with the reason printed, where there are none.
pub fn goldens(prefix: &str) -> Vec<Golden> {
    let Some(folder) = shared("reference/goldens") else { return Vec::new() };
    let mut found: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| {
            let name = p.file_name().unwrap().to_string_lossy();
            name.starts_with(prefix) && name.ends_with(".npz")
        })
        .collect();
    found.sort();
    assert!(!found.is_empty(), "no golden begins with {prefix}");
    found.iter().map(|p| Golden::open(p)).collect()
}

/// A component as the bundle reader would give it.
pub fn component(value: &Value, index: usize) -> Component {
    let mut args = value.as_object().unwrap().clone();
    let target = args.remove("_target_").unwrap().as_str().unwrap().to_owned();
    Component { target, args, path: format!("preprocessing#transforms#{index}") }
}

/// Largest absolute difference.
pub fn difference<D: Dimension>(a: &Array<f32, D>, b: &Array<f32, D>) -> f32 {
    assert_eq!(a.shape(), b.shape());
    ndarray::Zip::from(a).and(b).fold(0.0, |worst, x, y| worst.max((x - y).abs()))
}

/// The same array with its first spatial axis fastest in memory, as decoded slices have it.
fn slices_first(a: &Array4<f32>) -> Array4<f32> {
    let mut f = Array4::zeros(a.dim().f());
    f.assign(a);
    f
}

fn check_transforms(prefix: &str) {
    for golden in goldens(prefix) {
        let input: Array4<f32> = golden.array("input");
        let expected: Array4<f32> = golden.array("output");
        for data in [input.clone(), slices_first(&input)] {
            let mut image = Image::new(data, golden.affine("affine"));
            for (i, spec) in golden.spec().as_array().unwrap().iter().enumerate() {
                if let Some(transform) = build(&component(spec, i)).unwrap() {
                    image = transform.apply(image).unwrap();
                }
            }
            let worst = difference(&image.data, &expected);
            eprintln!("{}: largest difference {worst:e}", golden.name());
            assert!(worst <= 1e-4, "{}: {worst}", golden.name());
            let expected_affine = golden.affine("output_affine");
            for (a, b) in image.affine.0.iter().flatten().zip(expected_affine.0.iter().flatten()) {
                assert!((a - b).abs() <= 1e-6, "{}: affine {:?}", golden.name(), image.affine);
            }
        }
    }
}

#[test]
fn orientation() {
    check_transforms("orientation_");
}

#[test]
fn spacing() {
    check_transforms("spacing_");
}

#[test]
fn scale_intensity_range() {
    check_transforms("transform_scale_range_");
}
