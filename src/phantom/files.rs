//! Writes a phantom as files: CT images (PS3.3 A.3) in Part 10 format, and the true labels.

use std::fs;
use std::io::{BufWriter, Write};
use std::path::Path;

use dicom_core::{DataElement, PrimitiveValue, Tag, VR, dicom_value};
use dicom_dictionary_std::{tags, uids};
use dicom_object::{FileMetaTableBuilder, InMemDicomObject};
use rayon::prelude::*;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::anatomy::LABELS;
use super::random::Random;
use super::volume::Phantom;
use crate::error::{Error, ErrorKind, Result};

const RESCALE_INTERCEPT: i16 = -1024;

/// Unique identifiers derived from the content of the files, so that the same phantom generated
/// twice is the same study.
struct Identity {
    seed: u64,
    content: [u8; 32],
}

impl Identity {
    fn new(seed: u64, phantom: &Phantom) -> Self {
        let mut hash = Sha256::new();
        hash.update(seed.to_le_bytes());
        let grid = phantom.grid;
        for number in [grid.spacing, grid.slice_spacing].into_iter().chain(phantom.origin) {
            hash.update(number.to_le_bytes());
        }
        for number in [grid.size, grid.slices] {
            hash.update((number as u64).to_le_bytes());
        }
        for value in &phantom.hu {
            hash.update(value.to_le_bytes());
        }
        Self { seed, content: hash.finalize().into() }
    }

    /// Returns a UID below `2.25` (PS3.5 B.2), made from a name-based UUID (version 8 of RFC 9562).
    fn uid(&self, role: &str) -> String {
        let hash = Sha256::new().chain_update(self.content).chain_update(role).finalize();
        let bytes: [u8; 16] = std::array::from_fn(|i| hash[i]);
        format!("2.25.{}", uuid::Builder::from_custom_bytes(bytes).into_uuid().as_u128())
    }
}

/// Writes one file per slice into `folder`. File names do not follow the order of the slices, as in
/// a real archive.
pub(super) fn write_images(folder: &Path, seed: u64, phantom: &Phantom) -> Result<()> {
    let identity = Identity::new(seed, phantom);
    let names = Random::new(seed, 3).permutation(phantom.grid.slices);
    names.par_iter().enumerate().try_for_each(|(slice, name)| {
        let path = folder.join(format!("IM{name:04}.dcm"));
        write_image(&path, &identity, phantom, slice)
    })
}

fn write_image(path: &Path, identity: &Identity, phantom: &Phantom, slice: usize) -> Result<()> {
    let instance = identity.uid(&format!("instance {slice}"));
    let meta = FileMetaTableBuilder::new()
        .transfer_syntax(uids::EXPLICIT_VR_LITTLE_ENDIAN)
        .media_storage_sop_class_uid(uids::CT_IMAGE_STORAGE)
        .media_storage_sop_instance_uid(&instance);
    let mut image = InMemDicomObject::new_empty();
    put_patient_and_study(&mut image, identity);
    put_series(&mut image, identity);
    put_image(&mut image, phantom, slice, &instance);
    image
        .with_meta(meta)
        .map_err(|e| {
            Error::internal("the phantom's file meta information is incomplete").caused_by(e)
        })?
        .write_to_file(path)
        .map_err(|e| cannot_write(path).caused_by(e))
}

/// Sets the Patient and General Study modules (PS3.3 C.7.1.1, C.7.2.1).
fn put_patient_and_study(image: &mut InMemDicomObject, identity: &Identity) {
    text(image, tags::PATIENT_NAME, VR::PN, "PHANTOM^SYNTHETIC");
    text(image, tags::PATIENT_ID, VR::LO, &format!("PHANTOM-{}", identity.seed));
    text(image, tags::PATIENT_BIRTH_DATE, VR::DA, "");
    text(image, tags::PATIENT_SEX, VR::CS, "");
    text(image, tags::STUDY_INSTANCE_UID, VR::UI, &identity.uid("study"));
    text(image, tags::STUDY_DATE, VR::DA, "20000101");
    text(image, tags::STUDY_TIME, VR::TM, "120000");
    text(image, tags::REFERRING_PHYSICIAN_NAME, VR::PN, "");
    text(image, tags::STUDY_ID, VR::SH, "1");
    text(image, tags::STUDY_DESCRIPTION, VR::LO, "Synthetic phantom");
    text(image, tags::ACCESSION_NUMBER, VR::SH, "");
}

/// Sets the General Series, Frame of Reference and General Equipment modules (PS3.3 C.7.3.1,
/// C.7.4.1, C.7.5.1).
fn put_series(image: &mut InMemDicomObject, identity: &Identity) {
    text(image, tags::MODALITY, VR::CS, "CT");
    text(image, tags::SERIES_INSTANCE_UID, VR::UI, &identity.uid("series"));
    text(image, tags::SERIES_NUMBER, VR::IS, "1");
    text(image, tags::SERIES_DESCRIPTION, VR::LO, "Abdomen CT phantom");
    text(image, tags::BODY_PART_EXAMINED, VR::CS, "ABDOMEN");
    text(image, tags::PATIENT_POSITION, VR::CS, "HFS");
    text(image, tags::FRAME_OF_REFERENCE_UID, VR::UI, &identity.uid("frame of reference"));
    text(image, tags::POSITION_REFERENCE_INDICATOR, VR::LO, "");
    text(image, tags::MANUFACTURER, VR::LO, "ahi-inference");
    text(image, tags::MANUFACTURER_MODEL_NAME, VR::LO, "phantom");
    text(image, tags::SOFTWARE_VERSIONS, VR::LO, env!("CARGO_PKG_VERSION"));
}

/// Sets the General Image, Image Plane, Image Pixel, CT Image and SOP Common modules (PS3.3
/// C.7.6.1, C.7.6.2, C.7.6.3, C.8.2.1, C.12.1).
fn put_image(image: &mut InMemDicomObject, phantom: &Phantom, slice: usize, instance: &str) {
    let grid = phantom.grid;
    text(image, tags::SOP_CLASS_UID, VR::UI, uids::CT_IMAGE_STORAGE);
    text(image, tags::SOP_INSTANCE_UID, VR::UI, instance);
    // From head to feet, as most scanners count: opposite to the z axis.
    text(image, tags::INSTANCE_NUMBER, VR::IS, &(grid.slices - slice).to_string());
    put(image, tags::IMAGE_TYPE, VR::CS, dicom_value!(Strs, ["ORIGINAL", "PRIMARY", "AXIAL"]));
    text(image, tags::CONTENT_DATE, VR::DA, "20000101");
    text(image, tags::CONTENT_TIME, VR::TM, "120000");
    text(image, tags::ACQUISITION_NUMBER, VR::IS, "1");
    text(image, tags::KVP, VR::DS, "");

    let [x, y, z] = phantom.origin;
    let position = [x, y, z + slice as f64 * grid.slice_spacing].map(decimal);
    put(
        image,
        tags::IMAGE_POSITION_PATIENT,
        VR::DS,
        PrimitiveValue::Strs(position.into_iter().collect()),
    );
    let orientation = dicom_value!(Strs, ["1", "0", "0", "0", "1", "0"]);
    put(image, tags::IMAGE_ORIENTATION_PATIENT, VR::DS, orientation);
    let spacing = [grid.spacing, grid.spacing].map(decimal);
    put(image, tags::PIXEL_SPACING, VR::DS, PrimitiveValue::Strs(spacing.into_iter().collect()));
    text(image, tags::SLICE_THICKNESS, VR::DS, &decimal(grid.slice_spacing));

    let side = grid.size as u16;
    for (tag, value) in [
        (tags::SAMPLES_PER_PIXEL, 1),
        (tags::ROWS, side),
        (tags::COLUMNS, side),
        (tags::BITS_ALLOCATED, 16),
        (tags::BITS_STORED, 16),
        (tags::HIGH_BIT, 15),
        (tags::PIXEL_REPRESENTATION, 1),
    ] {
        put(image, tag, VR::US, PrimitiveValue::from(value));
    }
    text(image, tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "MONOCHROME2");
    text(image, tags::RESCALE_INTERCEPT, VR::DS, &RESCALE_INTERCEPT.to_string());
    text(image, tags::RESCALE_SLOPE, VR::DS, "1");
    text(image, tags::RESCALE_TYPE, VR::LO, "HU");
    text(image, tags::WINDOW_CENTER, VR::DS, "40");
    text(image, tags::WINDOW_WIDTH, VR::DS, "400");

    let per_slice = grid.size * grid.size;
    let stored: Vec<u16> = phantom.hu[slice * per_slice..(slice + 1) * per_slice]
        .iter()
        // OW holds 16-bit words, whether signed or not.
        .map(|&hu| (hu - RESCALE_INTERCEPT) as u16)
        .collect();
    put(image, tags::PIXEL_DATA, VR::OW, PrimitiveValue::U16(stored.into()));
}

fn put(image: &mut InMemDicomObject, tag: Tag, vr: VR, value: PrimitiveValue) {
    image.put(DataElement::new(tag, vr, value));
}

fn text(image: &mut InMemDicomObject, tag: Tag, vr: VR, value: &str) {
    let value = if value.is_empty() { PrimitiveValue::Empty } else { PrimitiveValue::from(value) };
    put(image, tag, vr, value);
}

/// Formats a number of millimetres as a decimal string (VR DS, at most 16 characters): exact to a
/// nanometre, without trailing zeros.
fn decimal(mm: f64) -> String {
    let fixed = format!("{mm:.6}");
    let trimmed = fixed.trim_end_matches('0').trim_end_matches('.');
    if trimmed == "-0" { "0".to_owned() } else { trimmed.to_owned() }
}

/// Describes a phantom apart from its voxels. `affine` maps indices of `truth.npy` to millimetres
/// in RAS (x to the right, y to the front, z to the head), as in NIfTI and MONAI.
pub(super) fn description(seed: u64, phantom: &Phantom) -> Value {
    let grid = phantom.grid;
    let [x, y, z] = phantom.origin;
    let voxel_ml = grid.spacing * grid.spacing * grid.slice_spacing / 1000.0;
    let labels: Vec<Value> = LABELS
        .iter()
        .map(|&(label, name)| {
            let voxels = phantom.labels.iter().filter(|&&l| l == label).count();
            let millilitres = (voxels as f64 * voxel_ml * 1e3).round() / 1e3;
            json!({"label": label, "name": name, "voxels": voxels, "millilitres": millilitres})
        })
        .collect();
    json!({
        "seed": seed,
        "shape": [grid.size, grid.size, grid.slices],
        "spacing": [grid.spacing, grid.spacing, grid.slice_spacing],
        "affine": [
            [-grid.spacing, 0.0, 0.0, -x],
            [0.0, -grid.spacing, 0.0, -y],
            [0.0, 0.0, grid.slice_spacing, z],
            [0.0, 0.0, 0.0, 1.0],
        ],
        "labels": labels,
    })
}

/// Writes the true labels as a NumPy array (format version 1.0) of bytes with the axes X, Y, Z:
/// the columns, rows and slices of the images, slices from feet to head.
pub(super) fn write_truth(path: &Path, phantom: &Phantom) -> Result<()> {
    let grid = phantom.grid;
    // Columns vary fastest in memory, so X comes first in Fortran order.
    let mut header = format!(
        "{{'descr': '|u1', 'fortran_order': True, 'shape': ({0}, {0}, {1}), }}",
        grid.size, grid.slices
    );
    // Magic, version and length take 10 bytes; the total is padded to a multiple of 64.
    let padding = 63 - (10 + header.len()) % 64;
    header.extend(std::iter::repeat_n(' ', padding));
    header.push('\n');
    let write = || -> std::io::Result<()> {
        let mut file = BufWriter::new(fs::File::create(path)?);
        file.write_all(b"\x93NUMPY\x01\x00")?;
        file.write_all(&(header.len() as u16).to_le_bytes())?;
        file.write_all(header.as_bytes())?;
        file.write_all(&phantom.labels)?;
        file.flush()
    };
    write().map_err(|e| cannot_write(path).caused_by(e))
}

pub(super) fn cannot_write(path: &Path) -> Error {
    Error::new(ErrorKind::Io, format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimal_strings_fit_their_value_representation() {
        assert_eq!(decimal(2.5), "2.5");
        assert_eq!(decimal(-0.000_000_1), "0");
        assert_eq!(decimal(100.0), "100");
        assert!(decimal(-12_345.678_901).len() <= 16);
    }
}
