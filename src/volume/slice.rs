//! Geometry and rescale of one frame, from the top level of a classic single-frame instance or from
//! the functional groups of an enhanced one (PS3.3 C.7.6.16).

use dicom_dictionary_std::tags;

use super::places::Places;
use super::values;
use crate::codec::{self, FrameFormat};
use crate::dicom::{Attributes, FrameKey, Instance, Series};
use crate::error::{Error, ErrorKind, Result};

/// What the header states about one frame.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct FrameGeometry {
    pub key: FrameKey,
    /// ImagePositionPatient, LPS+ millimetres.
    pub position: [f64; 3],
    /// ImageOrientationPatient: direction of increasing column index, then of increasing row index.
    pub row_direction: [f64; 3],
    pub column_direction: [f64; 3],
    /// PixelSpacing: distance between rows, distance between columns.
    pub pixel_spacing: [f64; 2],
    pub slice_thickness: Option<f64>,
    pub rescale: (f64, f64),
    pub format: FrameFormat,
    pub instance_number: i64,
    pub frame_of_reference: Option<String>,
}

/// Returns the UID of the instance that holds a frame.
pub(super) fn uid<'a>(series: &'a Series, frame: &FrameGeometry) -> &'a str {
    &series.instances[frame.key.instance].sop_instance_uid
}

/// Names the instance (and, for a multi-frame instance, the frame) in a message.
pub(super) fn name(series: &Series, frame: &FrameGeometry) -> String {
    let uid = uid(series, frame);
    if series.instances[frame.key.instance].frames.len() > 1 {
        format!("{uid} (frame {})", frame.key.frame + 1)
    } else {
        uid.to_owned()
    }
}

/// Reads all frames of an instance; errors name the instance.
pub(super) fn frames_of(index: usize, instance: &Instance) -> Result<Vec<FrameGeometry>> {
    if instance.frames.is_empty() {
        let error = Error::new(ErrorKind::InvalidImage, "the instance has no pixel data");
        return Err(at_instance(error, instance, 0));
    }
    (0..instance.frames.len())
        .map(|frame| {
            read_frame(FrameKey { instance: index, frame }, instance)
                .map_err(|e| at_instance(e, instance, frame))
        })
        .collect()
}

/// Adds the instance (and, if there are several, the frame) to an error.
fn at_instance(error: Error, instance: &Instance, frame: usize) -> Error {
    let uid = &instance.sop_instance_uid;
    let error = if instance.frames.len() > 1 {
        error.context(format!("instance {uid}, frame {}", frame + 1)).with("frame", frame + 1)
    } else {
        error.context(format!("instance {uid}"))
    };
    error.with("sopInstanceUID", uid.as_str())
}

fn read_frame(key: FrameKey, instance: &Instance) -> Result<FrameGeometry> {
    let dataset = &*instance.dataset;
    let position = Places::new(dataset, key.frame, tags::PLANE_POSITION_SEQUENCE)
        .numbers(tags::IMAGE_POSITION_PATIENT)?;
    let orientation: [f64; 6] = Places::new(dataset, key.frame, tags::PLANE_ORIENTATION_SEQUENCE)
        .numbers(tags::IMAGE_ORIENTATION_PATIENT)?;
    let measures = Places::new(dataset, key.frame, tags::PIXEL_MEASURES_SEQUENCE);
    let pixel_spacing: [f64; 2] = measures.numbers(tags::PIXEL_SPACING)?;
    if pixel_spacing.iter().any(|&s| s <= 0.0) {
        return Err(Error::new(
            ErrorKind::InvalidImage,
            format!("PixelSpacing {pixel_spacing:?} is not positive"),
        ));
    }
    let [rx, ry, rz, cx, cy, cz] = orientation;
    let (row_direction, column_direction) = ([rx, ry, rz], [cx, cy, cz]);
    check_orientation(row_direction, column_direction)?;
    values::refuse_mosaic(dataset)?;
    let format = FrameFormat::from_dataset(dataset)?;
    codec::check_format(&instance.transfer_syntax, &format)?;
    Ok(FrameGeometry {
        key,
        position,
        row_direction,
        column_direction,
        pixel_spacing,
        slice_thickness: measures.number(tags::SLICE_THICKNESS),
        rescale: values::rescale(dataset, key.frame, &format)?,
        format,
        instance_number: dataset.integer(tags::INSTANCE_NUMBER).unwrap_or(i64::MAX),
        frame_of_reference: dataset.text(tags::FRAME_OF_REFERENCE_UID),
    })
}

/// Checks that the two directions are perpendicular unit vectors (PS3.3 C.7.6.2.1.1).
fn check_orientation(row: [f64; 3], column: [f64; 3]) -> Result<()> {
    use super::affine::{dot, norm};
    let unit = |v| (norm(v) - 1.0).abs() < 1e-2;
    if unit(row) && unit(column) && dot(row, column).abs() < 1e-2 {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::InvalidImage,
        "ImageOrientationPatient is not a pair of unit vectors at a right angle",
    ))
}
