//! NIfTI-1 files (<https://nifti.nimh.nih.gov/nifti-1>), gzip compressed: a label map or masks, and
//! their source image, for research tools.

mod geometry;

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use ndarray::{Array3, ArrayView3, ArrayView4, CowArray, Ix3};
use rayon::prelude::*;

use crate::error::{Error, ErrorKind, Result};
use crate::memory::reserve;
use crate::volume::Physical;
use crate::writers::Label;
use crate::writers::layout::slice_order;
use geometry::{Geometry, Upright};

/// Bytes before the voxels: the header of 348 bytes, and four that say that no extension follows.
const VOXEL_OFFSET: usize = 352;
/// `NIFTI_XFORM_SCANNER_ANAT`: coordinates are those of the scanner.
const SCANNER_ANATOMICAL: i16 = 1;

/// A finished file.
#[derive(Debug, Clone)]
pub struct Nifti {
    /// The gzip-compressed bytes.
    pub bytes: Vec<u8>,
    /// Extents along X and Y if they differ from the volume's: the slices of a tilted stack are shifted
    /// against each other.
    pub widened: Option<[usize; 2]>,
}

/// Writes a label map as `.nii.gz`.
///
/// `labels` has the axes (X, Y, Z); the file keeps them, X fastest. `affine` maps the homogeneous index
/// (x, y, z, 1) to millimetres in RAS (x to the right, y to the front, z to the head); its last row is
/// (0, 0, 0, 1). It becomes the sform and the qform. Labels of one byte are written as `DT_UINT8`,
/// others as `DT_UINT16`.
///
/// The axes of NIfTI's qform are orthogonal, and ITK rejects other files. The slices of a tilted gantry
/// are therefore shifted by whole pixels, each to its position within half a pixel. No voxel changes
/// and none is lost; the file is wider. Axes that are oblique only because of rounding are made
/// orthogonal.
///
/// # Errors
///
/// [`ErrorKind::InvalidImage`] if an extent is zero or exceeds NIfTI-1's 32767, or if the affine is not
/// finite or not invertible.
pub fn write<L: Label>(labels: ArrayView3<L>, affine: &[[f64; 4]; 4]) -> Result<Nifti> {
    let (x, y, z) = labels.dim();
    file([x, y, z], None, [Ok(labels.into())].into_iter(), affine, &of_labels::<L>())
}

/// Writes masks of 0 and 1, axes (channel, X, Y, Z), as `.nii.gz` with four dimensions, the channel
/// last, like `monai.transforms.SaveImage`. Otherwise like [`write`].
///
/// # Errors
///
/// Propagates the errors of [`write`], which also apply to the number of channels.
pub fn write_masks(masks: ArrayView4<u8>, affine: &[[f64; 4]; 4]) -> Result<Nifti> {
    let (channels, x, y, z) = masks.dim();
    let volumes = masks.outer_iter().map(|mask| Ok(mask.into()));
    file([x, y, z], Some(channels), volumes, affine, &of_labels::<u8>())
}

/// Writes masks that are created one by one, each of size `dims`, like [`write_masks`].
///
/// # Errors
///
/// Propagates the errors of [`write_masks`] and of creating the masks.
pub fn write_each(
    dims: [usize; 3],
    masks: impl ExactSizeIterator<Item = Result<Array3<u8>>>,
    affine: &[[f64; 4]; 4],
) -> Result<Nifti> {
    let channels = masks.len();
    let masks = masks.map(|mask| mask.map(Into::into));
    file(dims, Some(channels), masks, affine, &of_labels::<u8>())
}

/// Writes an image in physical units as `.nii.gz`, on the grid that [`write`] gives a label map of the
/// same size. Whole values are written as `DT_INT16`, or as `DT_UINT16` with `scl_inter` if they do not
/// fit; others as `DT_FLOAT32`. No value changes. Voxels outside the slices of a tilted stack have the
/// image's lowest value.
///
/// # Errors
///
/// Propagates the errors of [`write`]; [`ErrorKind::OutOfMemory`] if there is not enough memory.
pub fn write_image(image: &Physical, affine: &[[f64; 4]; 4]) -> Result<Nifti> {
    let (x, y, z) = image.dim();
    let dims = [x, y, z];
    match image {
        Physical::Whole { voxels, low } => {
            let (least, most) = range(&slice_order(voxels.view()));
            let volumes = [Ok(voxels.view().into())].into_iter();
            let ends = [least, most].map(|distance| i16::try_from(*low + i32::from(distance)));
            if let [Ok(least), Ok(_)] = ends {
                // Both ends fit, so everything in between does.
                let value = |distance: u16| (*low + i32::from(distance)) as i16;
                let put = |distance: u16, to: &mut [u8]| {
                    to.copy_from_slice(&value(distance).to_le_bytes())
                };
                let encoding = Encoding::of_image(INT16, &least.to_le_bytes(), 0.0, put);
                return file(dims, None, volumes, affine, &encoding);
            }
            let put = |distance: u16, to: &mut [u8]| to.copy_from_slice(&distance.to_le_bytes());
            // The magnitude is below 2^24, so f32 represents it exactly.
            let encoding = Encoding::of_image(UINT16, &least.to_le_bytes(), *low as f32, put);
            file(dims, None, volumes, affine, &encoding)
        }
        Physical::Real(voxels) => {
            let lowest =
                slice_order(voxels.view()).par_iter().copied().reduce(|| f32::NAN, f32::min);
            let put = |value: f32, to: &mut [u8]| to.copy_from_slice(&value.to_le_bytes());
            let encoding = Encoding::of_image(FLOAT32, &lowest.to_le_bytes(), 0.0, put);
            file(dims, None, [Ok(voxels.view().into())].into_iter(), affine, &encoding)
        }
    }
}

/// Returns the most bytes that [`write_image`] needs for a volume of `dims` voxels of `voxel_bytes`
/// each.
///
/// # Errors
///
/// Propagates the errors of [`write`].
pub fn image_bytes(dims: [usize; 3], affine: &[[f64; 4]; 4], voxel_bytes: u64) -> Result<u64> {
    let [x, y] = Upright::of(dims, affine)?.dims;
    Ok(compressed(raw([x, y, dims[2]], voxel_bytes)))
}

/// Returns the uncompressed bytes of the voxels of a volume.
fn raw(dims: [usize; 3], voxel_bytes: u64) -> u64 {
    dims.into_iter().fold(voxel_bytes, |bytes, extent| bytes.saturating_mul(extent as u64))
}

/// Returns an upper bound on the compressed size of `bytes`. Noise is not always recognised as such and
/// may be written with codes of up to nine bits per byte, as in zlib's own bound (`deflateBound`).
fn compressed(bytes: u64) -> u64 {
    bytes.saturating_add(bytes >> 3).saturating_add(bytes >> 6).saturating_add(4096)
}

/// Returns the lowest and the highest of `values`; 0 if there are none.
fn range(values: &[u16]) -> (u16, u16) {
    let ends = values.par_iter().fold(|| (u16::MAX, 0), |(a, b), &v| (a.min(v), b.max(v)));
    let (least, most) = ends.reduce(|| (u16::MAX, 0), |(a, b), (c, d)| (a.min(c), b.max(d)));
    (least.min(most), most)
}

/// NIfTI's codes for voxel types.
const UINT8: i16 = 2;
const INT16: i16 = 4;
const FLOAT32: i16 = 16;
const UINT16: i16 = 512;

/// How voxels are stored. `P` writes one in little endian.
struct Encoding<P> {
    datatype: i16,
    /// Bytes per voxel.
    bytes: usize,
    /// Offset added to stored values.
    intercept: f32,
    /// The value of voxels that belong to no slice, in the first `bytes` bytes.
    beside: [u8; 4],
    put: P,
    level: Compression,
    /// Whether the memory of the file is reserved in advance. A label map compresses to a hundredth.
    reserved: bool,
}

impl<P> Encoding<P> {
    /// Returns the encoding of an image, which compresses badly: the fastest level is almost the best.
    fn of_image(datatype: i16, lowest: &[u8], intercept: f32, put: P) -> Self {
        let mut beside = [0; 4];
        let bytes = lowest.len().min(beside.len());
        beside[..bytes].copy_from_slice(&lowest[..bytes]);
        let level = Compression::fast();
        Self { datatype, bytes, intercept, beside, put, level, reserved: true }
    }
}

/// Returns the encoding of labels.
fn of_labels<L: Label>() -> Encoding<impl Fn(L, &mut [u8])> {
    let bytes = size_of::<L>();
    Encoding {
        datatype: if bytes == 1 { UINT8 } else { UINT16 },
        bytes,
        intercept: 0.0,
        beside: [0; 4],
        put: |label: L, to: &mut [u8]| {
            let label: u16 = label.into();
            to.copy_from_slice(&label.to_le_bytes()[..to.len()]);
        },
        // On the long runs of label maps, this level is as fast as the lowest and compresses far
        // better.
        level: Compression::default(),
        reserved: false,
    }
}

/// Checks whether a volume of `dims` voxels can be written.
///
/// # Errors
///
/// Propagates the errors of [`write`].
pub fn check(dims: [usize; 3], affine: &[[f64; 4]; 4]) -> Result<()> {
    let upright = Upright::of(dims, affine)?;
    extents(&upright, dims[2], 1).map(|_| ())
}

/// Returns the extents along X, Y, Z and of channels, which NIfTI-1 stores as 16-bit numbers.
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

/// Writes a file of `volumes`, all of size `dims`; if `channels` is given, they form a fourth
/// dimension.
fn file<'v, T, P>(
    dims: [usize; 3],
    channels: Option<usize>,
    volumes: impl Iterator<Item = Result<CowArray<'v, T, Ix3>>>,
    affine: &[[f64; 4]; 4],
    encoding: &Encoding<P>,
) -> Result<Nifti>
where
    T: Copy + Default + Send + Sync + 'v,
    P: Fn(T, &mut [u8]),
{
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
    let dimensions = if channels.is_some() { 4 } else { 3 };
    let [wide, high] = upright.dims;
    let size = encoding.bytes;

    let mut compressed_file = Vec::new();
    if encoding.reserved {
        let most = compressed(raw([wide, high, z], size as u64));
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        reserve(&mut compressed_file, most, "the NIfTI file")?;
    }
    let defect = |e: std::io::Error| Error::internal("compressing failed").caused_by(e);
    let mut file = GzEncoder::new(compressed_file, encoding.level);
    let header = header(dimensions, extents, encoding, &upright.affine, &geometry);
    file.write_all(&header).map_err(defect)?;
    let mut bytes = Vec::new();
    reserve(&mut bytes, size * wide * high, "a slice of the NIfTI file")?;
    let beside = &encoding.beside[..size];
    for volume in volumes {
        let volume = volume?;
        let planes = slice_order(volume.view());
        for (plane, &[right, down]) in planes.chunks_exact(x * y).zip(&upright.offsets) {
            bytes.clear();
            bytes.extend(beside.iter().cycle().take(size * wide * high));
            let rows = bytes.chunks_exact_mut(size * wide).skip(down);
            for (to, row) in rows.zip(plane.chunks_exact(x)) {
                let to = to[size * right..].chunks_exact_mut(size);
                for (to, &voxel) in to.zip(row) {
                    (encoding.put)(voxel, to);
                }
            }
            file.write_all(&bytes).map_err(defect)?;
        }
    }
    let mut bytes = file.finish().map_err(defect)?;
    bytes.shrink_to_fit();
    Ok(Nifti { bytes, widened: (upright.dims != [x, y]).then_some(upright.dims) })
}

/// Encodes `nifti_1_header`, field by field in file order, and the extension flag.
fn header<P>(
    dimensions: i16,
    [x, y, z, channels]: [i16; 4],
    encoding: &Encoding<P>,
    affine: &[[f64; 4]; 4],
    geometry: &Geometry,
) -> Vec<u8> {
    let mut header = Vec::with_capacity(VOXEL_OFFSET);
    let mut bytes = |bytes: &[u8]| header.extend_from_slice(bytes);
    let [sx, sy, sz] = geometry.spacing;
    let bits = 8 * encoding.bytes as i16;

    bytes(&348_i32.to_le_bytes()); // sizeof_hdr
    bytes(&[0; 35]); // data_type, db_name, extents, session_error, regular
    bytes(&[0]); // dim_info
    for extent in [dimensions, x, y, z, channels, 1, 1, 1] {
        bytes(&extent.to_le_bytes()); // dim
    }
    bytes(&[0; 14]); // intent_p1 to intent_p3, intent_code
    bytes(&encoding.datatype.to_le_bytes());
    bytes(&bits.to_le_bytes()); // bitpix
    bytes(&[0; 2]); // slice_start
    for size in [geometry.handedness, sx, sy, sz, 0.0, 0.0, 0.0, 0.0] {
        bytes(&(size as f32).to_le_bytes()); // pixdim
    }
    bytes(&(VOXEL_OFFSET as f32).to_le_bytes()); // vox_offset
    bytes(&1_f32.to_le_bytes()); // scl_slope
    bytes(&encoding.intercept.to_le_bytes()); // scl_inter
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
mod tests;
