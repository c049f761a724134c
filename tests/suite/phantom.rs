//! The synthetic CT: reproducible from its seed, complete, and described correctly.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use ahi_inference::dicom::Attributes;
use ahi_inference::phantom::{LABELS, PhantomArgs};
use dicom_dictionary_std::{tags, uids};
use dicom_object::{DefaultDicomObject, open_file};
use ndarray::{Array3, ArrayView3, Axis};
use serde_json::Value;

/// A small phantom: the whole trunk at 8 mm.
fn small(out: &Path, seed: u64) -> PhantomArgs {
    PhantomArgs {
        out: out.to_owned(),
        seed,
        size: 40,
        slices: 30,
        spacing: 8.0,
        slice_spacing: 8.5,
    }
}

fn make(seed: u64) -> (tempfile::TempDir, Value) {
    let folder = tempfile::tempdir().unwrap();
    let description = small(folder.path(), seed).write().unwrap();
    (folder, description)
}

/// Returns every file of a phantom with its bytes.
fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let images = fs::read_dir(folder.join("dicom")).unwrap().map(|entry| entry.unwrap().path());
    images
        .chain([folder.join("truth.npy"), folder.join("phantom.json")])
        .map(|path| {
            (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(&path).unwrap())
        })
        .collect()
}

/// Returns the images in order of file name.
fn images(folder: &Path) -> Vec<DefaultDicomObject> {
    let mut paths: Vec<_> =
        fs::read_dir(folder.join("dicom")).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| open_file(path).unwrap()).collect()
}

fn truth(folder: &Path) -> Array3<u8> {
    ndarray_npy::read_npy(folder.join("truth.npy")).unwrap()
}

fn height(image: &DefaultDicomObject) -> f64 {
    image.numbers::<3>(tags::IMAGE_POSITION_PATIENT).unwrap()[2]
}

fn pixels(image: &DefaultDicomObject) -> Vec<i16> {
    let bytes = image.element(tags::PIXEL_DATA).unwrap().to_bytes().unwrap();
    bytes.chunks_exact(2).map(|b| i16::from_le_bytes([b[0], b[1]])).collect()
}

#[test]
fn a_seed_gives_the_same_files() {
    let ((a, _), (b, _)) = (make(5), make(5));
    let (a, b) = (contents(a.path()), contents(b.path()));
    assert_eq!(a.len(), 32);
    assert!(a == b, "the same seed gave different files");
}

#[test]
fn seeds_differ_in_images_truth_and_identity() {
    let ((a, _), (b, _)) = (make(5), make(6));
    assert!(truth(a.path()) != truth(b.path()));
    let (a, b) = (images(a.path()), images(b.path()));
    for tag in [
        tags::PATIENT_ID,
        tags::STUDY_INSTANCE_UID,
        tags::SERIES_INSTANCE_UID,
        tags::FRAME_OF_REFERENCE_UID,
        tags::SOP_INSTANCE_UID,
    ] {
        assert_ne!(a[0].text(tag), b[0].text(tag), "{tag}");
    }
}

#[test]
fn a_grid_of_its_own_is_a_study_of_its_own() {
    let (a, _) = make(5);
    let folder = tempfile::tempdir().unwrap();
    PhantomArgs { slice_spacing: 8.0, ..small(folder.path(), 5) }.write().unwrap();
    let (a, b) = (images(a.path()), images(folder.path()));
    assert_ne!(a[0].text(tags::STUDY_INSTANCE_UID), b[0].text(tags::STUDY_INSTANCE_UID));
}

#[test]
fn every_label_is_present_in_every_patient() {
    for seed in 0..12 {
        let (folder, description) = make(seed);
        let truth = truth(folder.path());
        assert!(truth.iter().all(|&l| usize::from(l) <= LABELS.len()));
        for (&(label, name), entry) in LABELS.iter().zip(description["labels"].as_array().unwrap())
        {
            let voxels = truth.iter().filter(|&&l| l == label).count();
            assert_eq!(
                (entry["name"].as_str(), entry["voxels"].as_u64()),
                (Some(name), Some(voxels as u64))
            );
            let millilitres = voxels as f64 * 8.0 * 8.0 * 8.5 / 1000.0;
            assert!((entry["millilitres"].as_f64().unwrap() - millilitres).abs() < 1e-3);
            assert!((30.0..3000.0).contains(&millilitres), "{name} of {seed}: {millilitres} ml");
        }
    }
}

#[test]
fn images_are_one_ct_series_with_shuffled_names() {
    let (folder, _) = make(7);
    let images = images(folder.path());
    assert_eq!(images.len(), 30);
    let mut instances = BTreeMap::new();
    for image in &images {
        assert_eq!(image.meta().transfer_syntax(), uids::EXPLICIT_VR_LITTLE_ENDIAN);
        assert_eq!(image.text(tags::SOP_CLASS_UID).as_deref(), Some(uids::CT_IMAGE_STORAGE));
        assert_eq!(image.text(tags::PATIENT_NAME).as_deref(), Some("PHANTOM^SYNTHETIC"));
        assert_eq!(image.numbers(tags::PIXEL_SPACING), Some([8.0, 8.0]));
        assert_eq!(
            image.numbers(tags::IMAGE_ORIENTATION_PATIENT),
            Some([1.0, 0.0, 0.0, 0.0, 1.0, 0.0])
        );
        for tag in
            [tags::STUDY_INSTANCE_UID, tags::SERIES_INSTANCE_UID, tags::FRAME_OF_REFERENCE_UID]
        {
            let uid = image.text(tag).unwrap();
            assert!(ahi_inference::dicom::uid::is_valid(&uid), "{uid}");
            assert_eq!(Some(uid), images[0].text(tag));
        }
        assert_eq!(pixels(image).len(), 40 * 40);
        instances.insert(image.text(tags::SOP_INSTANCE_UID).unwrap(), height(image));
    }
    assert_eq!(instances.len(), 30, "SOP instance UIDs repeat");
    let heights: Vec<f64> = images.iter().map(height).collect();
    assert!(
        !heights.is_sorted() && !heights.iter().rev().is_sorted(),
        "files are in order of slices"
    );
    let mut sorted = heights;
    sorted.sort_by(f64::total_cmp);
    assert!(sorted.windows(2).all(|w| (w[1] - w[0] - 8.5).abs() < 1e-9), "{sorted:?}");
}

/// Returns the mean density of the voxels that `truth` labels as organs.
fn density_of_organs(truth: ArrayView3<'_, u8>, hu: &Array3<f64>) -> f64 {
    let organs: Vec<f64> =
        truth.iter().zip(hu).filter(|(label, _)| **label != 0).map(|(_, &hu)| hu).collect();
    organs.iter().sum::<f64>() / organs.len() as f64
}

/// The images show an organ wherever the affine puts a labelled voxel of the truth. Mirrored along any axis, the
/// truth would lie on fat and lung.
#[test]
fn truth_lies_on_the_images() {
    let folder = tempfile::tempdir().unwrap();
    let fine = PhantomArgs {
        size: 80,
        slices: 60,
        spacing: 4.0,
        slice_spacing: 4.25,
        ..small(folder.path(), 8)
    };
    let description = fine.write().unwrap();
    let truth = truth(folder.path());
    assert_eq!(truth.dim(), (80, 80, 60));
    let affine = |row: usize, column: usize| description["affine"][row][column].as_f64().unwrap();
    assert_eq!((affine(0, 0), affine(1, 1), affine(2, 2)), (-4.0, -4.0, 4.25));

    let mut hu = Array3::from_elem(truth.dim(), f64::NAN);
    for image in images(folder.path()) {
        let [x, y, z] = image.numbers::<3>(tags::IMAGE_POSITION_PATIENT).unwrap();
        // The first voxel's RAS coordinates are its LPS coordinates with x and y negated.
        assert_eq!((affine(0, 3), affine(1, 3)), (-x, -y));
        let slice = (z - affine(2, 3)) / affine(2, 2);
        assert!((slice - slice.round()).abs() < 1e-6, "{slice}");
        let intercept = image.number(tags::RESCALE_INTERCEPT).unwrap();
        for (i, &value) in pixels(&image).iter().enumerate() {
            hu[[i % 80, i / 80, slice.round() as usize]] = f64::from(value) + intercept;
        }
    }
    assert!(hu.iter().all(|x| x.is_finite()), "a slice is missing");
    let right = density_of_organs(truth.view(), &hu);
    assert!(right > 20.0, "{right}");
    for axis in 0..3 {
        let mut mirrored = truth.view();
        mirrored.invert_axis(Axis(axis));
        let wrong = density_of_organs(mirrored, &hu);
        assert!(wrong < right - 40.0, "axis {axis}: {wrong} against {right}");
    }
    let corner = hu[[0, 0, 0]];
    assert!(corner < -950.0, "{corner}");
}

#[test]
fn a_folder_in_use_is_left_alone() {
    let (folder, _) = make(9);
    let before = contents(folder.path());
    let e = small(folder.path(), 10).write().unwrap_err();
    assert!(e.message().contains("exists already"), "{e}");
    assert!(contents(folder.path()) == before);
}
