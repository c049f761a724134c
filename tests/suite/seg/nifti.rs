//! Writes NIfTI files for the Python tests.

use ahi_inference::writers::nifti;

use super::round_trip::fixture_folder;
use super::sources::blocks;

#[test]
fn nifti_for_nibabel() {
    // Oblique, left-handed and far from the origin.
    let affine = [
        [-0.7, 0.1, 0.4, 101.5],
        [0.096_596_5, 0.684_5, 0.2, -90.25],
        [-0.110_9, -0.215_9, 2.4, 12.125],
        [0.0, 0.0, 0.0, 1.0],
    ];
    let straight = [
        [0.0, 0.0, -2.0, 10.0],
        [-0.9, 0.0, 0.0, 20.0],
        [0.0, -0.7, 0.0, 30.0],
        [0.0, 0.0, 0.0, 1.0],
    ];
    let folder = fixture_folder("nifti");
    let labels = blocks(17, 13, 5);
    ndarray_npy::write_npy(folder.join("labels.npy"), &labels).unwrap();
    for (name, affine) in [("sheared", affine), ("straight", straight)] {
        let file = nifti::write(labels.view(), &affine).unwrap().bytes;
        assert_eq!(file[..2], [0x1f, 0x8b]);
        std::fs::write(folder.join(format!("{name}.nii.gz")), file).unwrap();
        let affine: Vec<f64> = affine.into_iter().flatten().collect();
        let affine = ndarray::Array2::from_shape_vec((4, 4), affine).unwrap();
        ndarray_npy::write_npy(folder.join(format!("{name}.affine.npy")), &affine).unwrap();
    }
}
