use std::io::Read;

use flate2::read::GzDecoder;
use ndarray::Array3;

use super::geometry::{Geometry, Upright};
use super::*;

const LPS_AXIAL: [[f64; 4]; 4] =
    [[-0.5, 0.0, 0.0, 10.0], [0.0, -0.5, 0.0, 20.0], [0.0, 0.0, 2.0, -30.0], [0.0, 0.0, 0.0, 1.0]];

#[test]
fn voxels_follow_the_header_x_fastest() {
    let labels = Array3::from_shape_fn((3, 2, 2), |(x, y, z)| (x + 3 * y + 6 * z) as u8);
    let file = write(labels.view(), &LPS_AXIAL).unwrap().bytes;
    let mut bytes = Vec::new();
    GzDecoder::new(file.as_slice()).read_to_end(&mut bytes).unwrap();
    assert_eq!(&bytes[344..348], b"n+1\0");
    assert_eq!(&bytes[VOXEL_OFFSET..], (0..12).collect::<Vec<u8>>());
}

#[test]
fn masks_are_a_fourth_dimension() {
    let masks = ndarray::Array4::from_shape_fn((2, 2, 1, 1), |(c, x, _, _)| (c + x) as u8);
    let file = write_masks(masks.view(), &LPS_AXIAL).unwrap().bytes;
    let mut bytes = Vec::new();
    GzDecoder::new(file.as_slice()).read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes[40..50], [4, 0, 2, 0, 1, 0, 1, 0, 2, 0]);
    assert_eq!(bytes[VOXEL_OFFSET..], [0, 1, 1, 2]);
}

#[test]
fn wider_labels_keep_their_values() {
    let labels = Array3::from_elem((1, 1, 1), 300_u16);
    let file = write(labels.view(), &LPS_AXIAL).unwrap().bytes;
    let mut bytes = Vec::new();
    GzDecoder::new(file.as_slice()).read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes[70..72], 512_i16.to_le_bytes());
    assert_eq!(bytes[VOXEL_OFFSET..], 300_u16.to_le_bytes());
}

#[test]
fn rotation_becomes_a_quaternion() {
    // Half a turn about z, voxels 0.5 × 0.5 × 2.
    let geometry = Geometry::of(&LPS_AXIAL).unwrap();
    assert_eq!(geometry.spacing, [0.5, 0.5, 2.0]);
    assert_eq!(geometry.handedness, 1.0);
    assert_eq!(geometry.quaternion, Some([0.0, 0.0, 1.0]));
}

#[test]
fn tilted_slices_are_moved_to_where_they_lie() {
    let mut affine = LPS_AXIAL;
    // Each slice is shifted 0.3 mm to the front and 0.6 mm to the left: 0.6 and 1.2 pixels.
    (affine[1][2], affine[0][2]) = (0.3, -0.6);
    let labels = Array3::from_shape_fn((3, 2, 4), |(x, y, z)| (1 + x + 3 * y + 6 * z) as u8);
    let file = write(labels.view(), &affine).unwrap();
    // Along y, whose index runs to the back, the last slice begins 1.8 pixels before the first.
    assert_eq!(file.widened, Some([3 + 4, 2 + 2]));
    let mut bytes = Vec::new();
    GzDecoder::new(file.bytes.as_slice()).read_to_end(&mut bytes).unwrap();
    let number = |at: usize| f32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    assert_eq!(bytes[252..254], SCANNER_ANATOMICAL.to_le_bytes(), "qform_code");
    let srow = |r: usize| std::array::from_fn(|c| f64::from(number(280 + 16 * r + 4 * c)));
    let sform: [[f64; 4]; 3] = [srow(0), srow(1), srow(2)];
    let voxel = |x: usize, y: usize, z: usize| bytes[VOXEL_OFFSET + x + 7 * (y + 4 * z)];
    let mut found = 0;
    for (z, y, x) in (0..4).flat_map(|z| (0..4).flat_map(move |y| (0..7).map(move |x| (z, y, x)))) {
        let label = usize::from(voxel(x, y, z));
        if label == 0 {
            continue;
        }
        found += 1;
        let was = [(label - 1) % 3, (label - 1) / 3 % 2, (label - 1) / 6];
        let place = |m: &[[f64; 4]], p: [usize; 3]| -> [f64; 3] {
            std::array::from_fn(|r| (0..3).map(|c| m[r][c] * p[c] as f64).sum::<f64>() + m[r][3])
        };
        let (there, here) = (place(&affine, was), place(&sform, [x, y, z]));
        let off: Vec<f64> = (0..3).map(|r| (there[r] - here[r]).abs()).collect();
        assert!(off[0] <= 0.2501 && off[1] <= 0.2501 && off[2] < 1e-4, "{off:?}");
    }
    assert_eq!(found, 3 * 2 * 4);
}

#[test]
fn axes_that_are_oblique_by_rounding_are_made_orthogonal() {
    let mut affine = LPS_AXIAL;
    // A cosine of 4e-4: directions with three decimals.
    affine[0][1] = -0.0002;
    let labels = Array3::from_elem((2, 2, 2), 1_u8);
    let file = write(labels.view(), &affine).unwrap();
    assert_eq!(file.widened, None);
    let upright = Upright::of([2, 2, 2], &affine).unwrap();
    assert!(Geometry::of(&upright.affine).unwrap().quaternion.is_some());
    let far = upright.affine.as_flattened().iter().zip(affine.as_flattened());
    assert!(far.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max) < 3e-4);
}

#[test]
fn what_nifti_cannot_hold_is_refused() {
    let mut affine = LPS_AXIAL;
    affine[0][0] = 0.0;
    let labels = Array3::<u8>::zeros((2, 2, 2));
    assert_eq!(write(labels.view(), &affine).unwrap_err().kind(), ErrorKind::InvalidImage);
    let empty = Array3::<u8>::zeros((2, 0, 2));
    assert_eq!(write(empty.view(), &LPS_AXIAL).unwrap_err().kind(), ErrorKind::InvalidImage);
}

/// Returns the file's header and its voxels.
fn read(file: &Nifti) -> (Vec<u8>, Vec<u8>) {
    let mut bytes = Vec::new();
    GzDecoder::new(file.bytes.as_slice()).read_to_end(&mut bytes).unwrap();
    let voxels = bytes.split_off(VOXEL_OFFSET);
    (bytes, voxels)
}

fn datatype(header: &[u8]) -> i16 {
    i16::from_le_bytes([header[70], header[71]])
}

fn whole(low: i32, distances: [u16; 3]) -> Physical {
    Physical::Whole { voxels: Array3::from_shape_vec((3, 1, 1), distances.to_vec()).unwrap(), low }
}

#[test]
fn images_have_the_type_that_holds_their_values() {
    let (header, voxels) = read(&write_image(&whole(-1024, [0, 1024, 4000]), &LPS_AXIAL).unwrap());
    assert_eq!(datatype(&header), INT16);
    assert_eq!(voxels, [-1024_i16, 0, 2976].map(i16::to_le_bytes).concat());

    // Beyond signed 16 bits: stored as given, with the lowest value as intercept.
    for (low, distances) in [(-40_000, [0, 1, 9]), (0, [0, 40_000, 65_535])] {
        let (header, voxels) = read(&write_image(&whole(low, distances), &LPS_AXIAL).unwrap());
        assert_eq!(datatype(&header), UINT16);
        assert_eq!(header[112..116], 1_f32.to_le_bytes());
        assert_eq!(header[116..120], (low as f32).to_le_bytes());
        assert_eq!(voxels, distances.map(u16::to_le_bytes).concat());
    }

    let real = Array3::from_shape_vec((3, 1, 1), vec![0.5_f32, -1e9, 3.25]).unwrap();
    let (header, voxels) = read(&write_image(&Physical::Real(real), &LPS_AXIAL).unwrap());
    assert_eq!((datatype(&header), header[72]), (FLOAT32, 32));
    assert_eq!(voxels, [0.5_f32, -1e9, 3.25].map(f32::to_le_bytes).concat());
}

#[test]
fn an_image_lies_as_its_labels_do_and_has_its_lowest_value_beside_tilted_slices() {
    let mut affine = LPS_AXIAL;
    (affine[1][2], affine[0][2]) = (0.3, -0.6);
    let distances = Array3::from_shape_fn((3, 2, 4), |(x, y, z)| (5 + x + 3 * y + 6 * z) as u16);
    let labels = write(distances.mapv(|d| d as u8).view(), &affine).unwrap();
    let image = write_image(&Physical::Whole { voxels: distances, low: -1000 }, &affine).unwrap();
    let ((of_labels, labels), (of_image, image)) = (read(&labels), read(&image));
    assert_eq!(of_labels[252..328], of_image[252..328], "the codes, qform and sform");
    assert_eq!(of_labels[40..56], of_image[40..56], "the extents");
    for (label, value) in labels.iter().zip(image.chunks_exact(2)) {
        let value = i16::from_le_bytes([value[0], value[1]]);
        let expected = if *label == 0 { -995 } else { i16::from(*label) - 1000 };
        assert_eq!(value, expected);
    }
}

#[test]
fn what_an_image_takes_is_bounded_even_if_it_does_not_shrink() {
    let mut state = 1_u32;
    let noise = Array3::from_shape_fn((64, 64, 40), |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 16) as u16
    });
    let most = image_bytes([64, 64, 40], &LPS_AXIAL, 2).unwrap();
    let file = write_image(&Physical::Whole { voxels: noise, low: 0 }, &LPS_AXIAL).unwrap();
    assert!(file.bytes.len() as u64 <= most, "{} of {most}", file.bytes.len());
    assert!(file.bytes.len() > 300_000);
}
