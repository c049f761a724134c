//! NIfTI-1 files (<https://nifti.nimh.nih.gov/nifti-1>), gzip compressed: a label map for tools of
//! research. Only what a label map or masks need is here: unsigned integers, one affine.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use ndarray::{Array3, ArrayView3, ArrayView4, CowArray, Ix3};

use crate::error::{Error, ErrorKind, Result};
use crate::memory::reserve;
use crate::writers::Label;
use crate::writers::layout::slice_order;

/// Bytes before the voxels: the header of 348 bytes and four that say that no extension follows.
const VOXEL_OFFSET: usize = 352;
/// `NIFTI_XFORM_SCANNER_ANAT`: coordinates are those of the scanner.
const SCANNER_ANATOMICAL: i16 = 1;
/// How far from orthogonal the axes may be, as a cosine, for a quaternion to stand for them.
const ORTHOGONAL: f64 = 1e-5;

/// A finished file.
#[derive(Debug, Clone)]
pub struct Nifti {
    /// Its bytes, gzip compressed.
    pub bytes: Vec<u8>,
    /// Extents along X and Y where they are not those of the volume: slices of a tilted stack lie beside
    /// each other.
    pub widened: Option<[usize; 2]>,
}

/// Writes a label map as `.nii.gz`.
///
/// `labels` has the axes (X, Y, Z); the file keeps them, X fastest. `affine` maps the index
/// (x, y, z, 1) to millimetres in RAS (x to the right, y to the front, z to the head), its last row
/// is (0, 0, 0, 1); it becomes the sform and the qform. Labels of one byte are written as `DT_UINT8`,
/// others as `DT_UINT16`.
///
/// The axes of NIfTI's qform are orthogonal, and ITK reads no other files. The slices of a tilted gantry
/// are therefore moved by whole pixels, each to where it lies, at most half a pixel off; no voxel
/// changes and none is lost, the file is wider. Axes that are oblique to each other by rounding alone are made orthogonal.
///
/// # Errors
///
/// [`ErrorKind::InvalidImage`] where an extent is zero or exceeds NIfTI-1's 32767 or the affine is
/// not finite or not invertible.
pub fn write<L: Label>(labels: ArrayView3<L>, affine: &[[f64; 4]; 4]) -> Result<Nifti> {
    let (x, y, z) = labels.dim();
    file([x, y, z], None, [Ok(labels.into())].into_iter(), affine)
}

/// Writes masks of 0 and 1, axes (channel, X, Y, Z), as `.nii.gz` of four dimensions, the channel
/// last, as `monai.transforms.SaveImage` does. Otherwise like [`write`].
///
/// # Errors
///
/// Those of [`write`], for the number of channels too.
pub fn write_masks(masks: ArrayView4<u8>, affine: &[[f64; 4]; 4]) -> Result<Nifti> {
    let (channels, x, y, z) = masks.dim();
    let volumes = masks.outer_iter().map(|mask| Ok(mask.into()));
    file([x, y, z], Some(channels), volumes, affine)
}

/// Writes masks that are made one after the other, each of size `dims`, as [`write_masks`] does.
///
/// # Errors
///
/// Those of [`write_masks`], and those of making them.
pub fn write_each(
    dims: [usize; 3],
    masks: impl ExactSizeIterator<Item = Result<Array3<u8>>>,
    affine: &[[f64; 4]; 4],
) -> Result<Nifti> {
    let channels = masks.len();
    file(dims, Some(channels), masks.map(|mask| mask.map(Into::into)), affine)
}

/// Whether a volume of `dims` voxels can be written.
///
/// # Errors
///
/// Those of [`write`].
pub fn check(dims: [usize; 3], affine: &[[f64; 4]; 4]) -> Result<()> {
    let upright = Upright::of(dims, affine)?;
    extents(&upright, dims[2], 1).map(|_| ())
}

/// Extents along X, Y, Z and of channels, which NIfTI-1 has as numbers of 16 bits.
fn extents(upright: &Upright, slices: usize, channels: usize) -> Result<[i16; 4]> {
    let [x, y] = upright.dims;
    let extents = [x, y, slices, channels];
    let fitting = extents.map(|n| i16::try_from(n).ok().filter(|&n| n > 0).unwrap_or(0));
    if fitting.contains(&0) {
        return Err(Error::new(
            ErrorKind::InvalidImage,
            format!(
                "a volume of {x} × {y} × {slices} with {channels} channels does not fit into NIfTI-1, \
                 which allows 1 to 32767 along an axis"
            ),
        ));
    }
    Ok(fitting)
}

/// A file of `volumes`, all of size `dims`; where `channels` is given, they are a fourth dimension.
fn file<'v, L: Label + 'v>(
    dims: [usize; 3],
    channels: Option<usize>,
    volumes: impl Iterator<Item = Result<CowArray<'v, L, Ix3>>>,
    affine: &[[f64; 4]; 4],
) -> Result<Nifti> {
    let [x, y, z] = dims;
    let upright = Upright::of(dims, affine)?;
    let extents = extents(&upright, z, channels.unwrap_or(1))?;
    let invalid = || {
        Error::new(
            ErrorKind::InvalidImage,
            "the volume's affine is not finite or not invertible".to_owned(),
        )
    };
    let geometry = Geometry::of(&upright.affine).ok_or_else(invalid)?;
    let one_byte = size_of::<L>() == 1;
    let dimensions = if channels.is_some() { 4 } else { 3 };

    let defect = |e: std::io::Error| Error::internal("compressing failed").caused_by(e);
    // On the long runs of label maps this level is as fast as the lowest one and shrinks far more.
    let mut file = GzEncoder::new(Vec::new(), Compression::default());
    let header = header(dimensions, extents, one_byte, &upright.affine, &geometry);
    file.write_all(&header).map_err(defect)?;
    let [wide, high] = upright.dims;
    let mut bytes = Vec::new();
    reserve(&mut bytes, size_of::<L>() * wide * high, "a slice of the NIfTI file")?;
    for volume in volumes {
        let volume = volume?;
        let planes = slice_order(volume.view());
        for (plane, &[right, down]) in planes.chunks_exact(x * y).zip(&upright.offsets) {
            bytes.clear();
            bytes.resize(size_of::<L>() * wide * high, 0);
            let rows = bytes.chunks_exact_mut(size_of::<L>() * wide).skip(down);
            for (to, row) in rows.zip(plane.chunks_exact(x)) {
                let to = to[size_of::<L>() * right..].chunks_exact_mut(size_of::<L>());
                for (to, &label) in to.zip(row) {
                    let label: u16 = label.into();
                    to.copy_from_slice(&label.to_le_bytes()[..size_of::<L>()]);
                }
            }
            file.write_all(&bytes).map_err(defect)?;
        }
    }
    let bytes = file.finish().map_err(defect)?;
    Ok(Nifti { bytes, widened: (upright.dims != [x, y]).then_some(upright.dims) })
}

/// A stack whose slices lie above each other: the same slices, each moved within its plane.
struct Upright {
    /// To RAS, with orthogonal axes.
    affine: [[f64; 4]; 4],
    /// Extents along X and Y that hold all slices.
    dims: [usize; 2],
    /// Where each slice begins along X and Y.
    offsets: Vec<[usize; 2]>,
}

impl Upright {
    fn of([x, y, z]: [usize; 3], affine: &[[f64; 4]; 4]) -> Result<Self> {
        let as_it_is = Self { affine: *affine, dims: [x, y], offsets: vec![[0, 0]; z] };
        let Some(geometry) = Geometry::of(affine) else {
            return Err(Error::new(
                ErrorKind::InvalidImage,
                "the volume's affine is not finite or not invertible",
            ));
        };
        if geometry.quaternion.is_some() {
            return Ok(as_it_is);
        }
        let column = |c: usize| [affine[0][c], affine[1][c], affine[2][c]];
        let [sx, sy, _] = geometry.spacing;
        let (i, step) = (column(0).map(|v| v / sx), column(2));
        // Directions that are rounded to a few decimals are not quite at a right angle.
        let along = dot(column(1), i);
        let j: [f64; 3] = std::array::from_fn(|r| column(1)[r] - along * i[r]);
        let length = dot(j, j).sqrt();
        let j = j.map(|v| v / length);
        let k = cross(i, j);
        let height = dot(step, k);
        let shifts = [dot(step, i) / sx, dot(step, j) / sy];
        let pixels = |slice: usize| shifts.map(|shift| (shift * slice as f64).round());
        let last = pixels(z.saturating_sub(1));
        // A slice of a plausible stack is never that far from the first; `extents` refuses it by then.
        const FARTHEST: f64 = 1e6;
        if last.iter().any(|shift| shift.is_nan() || shift.abs() > FARTHEST) {
            return Err(Error::new(
                ErrorKind::InvalidImage,
                "the stack leans too much to be written as NIfTI",
            ));
        }
        let start = last.map(|shift| shift.min(0.0));
        let offset = |slice: usize| {
            let at = pixels(slice);
            [(at[0] - start[0]) as usize, (at[1] - start[1]) as usize]
        };
        let origin = column(3);
        let mut upright = [[0.0, 0.0, 0.0, 0.0]; 4];
        upright[3][3] = 1.0;
        for r in 0..3 {
            upright[r] = [
                i[r] * sx,
                j[r] * sy,
                k[r] * height,
                origin[r] + i[r] * sx * start[0] + j[r] * sy * start[1],
            ];
        }
        Ok(Self {
            affine: upright,
            dims: [x + last[0].abs() as usize, y + last[1].abs() as usize],
            offsets: (0..z).map(offset).collect(),
        })
    }
}

/// What the header says of an affine besides the affine itself.
#[derive(Debug, PartialEq)]
struct Geometry {
    /// Size of a voxel along each axis in millimetres.
    spacing: [f64; 3],
    /// `qfac`: -1 where the axes are left-handed.
    handedness: f64,
    /// The rotation as a quaternion's b, c and d, where the axes are orthogonal.
    quaternion: Option<[f64; 3]>,
}

impl Geometry {
    /// `None` where the affine is not finite or not invertible.
    fn of(affine: &[[f64; 4]; 4]) -> Option<Self> {
        if !affine.as_flattened().iter().all(|x| x.is_finite()) {
            return None;
        }
        let [[a00, a01, a02, _], [a10, a11, a12, _], [a20, a21, a22, _], _] = *affine;
        let columns = [[a00, a10, a20], [a01, a11, a21], [a02, a12, a22]];
        let spacing = columns.map(|column| dot(column, column).sqrt());
        if spacing.iter().any(|&length| length <= 0.0) {
            return None;
        }
        let [i, j, k] = columns;
        let [si, sj, sk] = spacing;
        let (i, j, k) = (i.map(|c| c / si), j.map(|c| c / sj), k.map(|c| c / sk));
        let determinant = dot(cross(i, j), k);
        if determinant.abs() < 1e-6 {
            return None;
        }
        let orthogonal =
            [dot(i, j), dot(j, k), dot(k, i)].iter().all(|cosine| cosine.abs() < ORTHOGONAL);
        let handedness = determinant.signum();
        let quaternion = orthogonal.then(|| quaternion(i, j, k.map(|c| c * handedness)));
        Some(Self { spacing, handedness, quaternion })
    }
}

/// b, c and d of the unit quaternion, a not negative, of the rotation with these columns.
fn quaternion(i: [f64; 3], j: [f64; 3], k: [f64; 3]) -> [f64; 3] {
    let ([r11, r21, r31], [r12, r22, r32], [r13, r23, r33]) = (i, j, k);
    // Squares of twice a, b, c, d: the largest is the one to divide by.
    let squares = [
        1.0 + r11 + r22 + r33,
        1.0 + r11 - r22 - r33,
        1.0 - r11 + r22 - r33,
        1.0 - r11 - r22 + r33,
    ];
    let largest = squares.into_iter().fold(0.0, f64::max);
    let divisor = 2.0 * largest.sqrt();
    let [aa, bb, cc, _] = squares;
    let [a, b, c, d] = if aa == largest {
        [largest, r32 - r23, r13 - r31, r21 - r12]
    } else if bb == largest {
        [r32 - r23, largest, r12 + r21, r13 + r31]
    } else if cc == largest {
        [r13 - r31, r12 + r21, largest, r23 + r32]
    } else {
        [r21 - r12, r13 + r31, r23 + r32, largest]
    };
    let sign = if a < 0.0 { -1.0 } else { 1.0 };
    [b, c, d].map(|x| sign * x / divisor)
}

fn dot(a: [f64; 3], b: [f64; 3]) -> f64 {
    let ([a0, a1, a2], [b0, b1, b2]) = (a, b);
    a0 * b0 + a1 * b1 + a2 * b2
}

fn cross(a: [f64; 3], b: [f64; 3]) -> [f64; 3] {
    let ([a0, a1, a2], [b0, b1, b2]) = (a, b);
    [a1 * b2 - a2 * b1, a2 * b0 - a0 * b2, a0 * b1 - a1 * b0]
}

/// `nifti_1_header`, field by field in the order of the file, and the extension flag.
fn header(
    dimensions: i16,
    [x, y, z, channels]: [i16; 4],
    one_byte: bool,
    affine: &[[f64; 4]; 4],
    geometry: &Geometry,
) -> Vec<u8> {
    let mut header = Vec::with_capacity(VOXEL_OFFSET);
    let mut bytes = |bytes: &[u8]| header.extend_from_slice(bytes);
    let [sx, sy, sz] = geometry.spacing;
    let (datatype, bits): (i16, i16) = if one_byte { (2, 8) } else { (512, 16) };

    bytes(&348_i32.to_le_bytes()); // sizeof_hdr
    bytes(&[0; 35]); // data_type, db_name, extents, session_error, regular
    bytes(&[0]); // dim_info
    for extent in [dimensions, x, y, z, channels, 1, 1, 1] {
        bytes(&extent.to_le_bytes()); // dim
    }
    bytes(&[0; 14]); // intent_p1 to intent_p3, intent_code
    bytes(&datatype.to_le_bytes());
    bytes(&bits.to_le_bytes()); // bitpix
    bytes(&[0; 2]); // slice_start
    for size in [geometry.handedness, sx, sy, sz, 0.0, 0.0, 0.0, 0.0] {
        bytes(&(size as f32).to_le_bytes()); // pixdim
    }
    bytes(&(VOXEL_OFFSET as f32).to_le_bytes()); // vox_offset
    bytes(&1_f32.to_le_bytes()); // scl_slope
    bytes(&0_f32.to_le_bytes()); // scl_inter
    bytes(&[0; 3]); // slice_end, slice_code
    bytes(&[2]); // xyzt_units: millimetres
    bytes(&[0; 24]); // cal_max, cal_min, slice_duration, toffset, glmax, glmin
    bytes(&[0; 104]); // descrip, aux_file
    let qform_code = if geometry.quaternion.is_some() { SCANNER_ANATOMICAL } else { 0 };
    bytes(&qform_code.to_le_bytes());
    bytes(&SCANNER_ANATOMICAL.to_le_bytes()); // sform_code
    let [row_x, row_y, row_z, _] = affine;
    let offsets = [row_x, row_y, row_z].map(|row| row[3]);
    for value in geometry.quaternion.unwrap_or_default().into_iter().chain(offsets) {
        bytes(&(value as f32).to_le_bytes()); // quatern_b to quatern_d, qoffset_x to qoffset_z
    }
    for value in [row_x, row_y, row_z].into_iter().flatten() {
        bytes(&(*value as f32).to_le_bytes()); // srow_x, srow_y, srow_z
    }
    bytes(&[0; 16]); // intent_name
    bytes(b"n+1\0"); // magic: header and voxels in one file
    bytes(&[0; 4]); // no extension
    header
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;
    use ndarray::Array3;

    use super::*;

    const LPS_AXIAL: [[f64; 4]; 4] = [
        [-0.5, 0.0, 0.0, 10.0],
        [0.0, -0.5, 0.0, 20.0],
        [0.0, 0.0, 2.0, -30.0],
        [0.0, 0.0, 0.0, 1.0],
    ];

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
        // Each slice 0.3 mm to the front and 0.6 to the left: 0.6 and 1.2 pixels.
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
        for (z, y, x) in
            (0..4).flat_map(|z| (0..4).flat_map(move |y| (0..7).map(move |x| (z, y, x))))
        {
            let label = usize::from(voxel(x, y, z));
            if label == 0 {
                continue;
            }
            found += 1;
            let was = [(label - 1) % 3, (label - 1) / 3 % 2, (label - 1) / 6];
            let place = |m: &[[f64; 4]], p: [usize; 3]| -> [f64; 3] {
                std::array::from_fn(|r| {
                    (0..3).map(|c| m[r][c] * p[c] as f64).sum::<f64>() + m[r][3]
                })
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
        // A cosine of 4e-4: directions of three decimals.
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
}
