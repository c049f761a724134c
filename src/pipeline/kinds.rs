//! Determines which outputs can be created together, for a model, and for a source.

use super::on_slices::source_slices;
use crate::dicom::Series;
use crate::error::{Error, ErrorKind, Result};
use crate::registry::Model;
use crate::request::OutputKind;
use crate::volume::Plan;
use crate::writers::{mesh, nifti, rtstruct, secondary_capture, seg};

/// Returns the outputs to create for a request that wants `outputs`, with a package that lists
/// `listed`. If the response only has room for one result, that is a segmentation, of the type that the
/// package lists first.
pub(super) fn of(outputs: &[OutputKind], single: bool, listed: &[OutputKind]) -> Vec<OutputKind> {
    match (outputs.is_empty(), single) {
        (false, _) => outputs.to_vec(),
        (true, false) => listed.to_vec(),
        (true, true) => {
            let segmentation = listed.iter().copied().find(|kind| kind.is_segmentation());
            vec![segmentation.unwrap_or(OutputKind::DicomSeg)]
        }
    }
}

/// Refuses kinds that cannot be created from the results of a model, given the number of wanted
/// segments, before anything is fetched.
///
/// # Errors
/// [`ErrorKind::InvalidRequest`], with the alternative to request.
pub(super) fn check(model: &Model, segments: usize, kinds: &[OutputKind]) -> Result<()> {
    OutputKind::check_together(kinds)?;
    if kinds.contains(&OutputKind::DicomSegLabelmap) && model.form.overlaps(segments) {
        return Err(Error::new(
            ErrorKind::InvalidRequest,
            "the segments of this model may overlap, and a DICOM SEG of type LABELMAP has one segment for each \
             pixel; ask for dicom-seg, or for one segment by \"segments\"",
        )
        .with("field", "outputs"));
    }
    Ok(())
}

/// Refuses outputs that could not be written for a source, before anything is fetched.
///
/// # Errors
/// [`ErrorKind::InvalidImage`] with the instance or size at fault.
pub(super) fn check_writable(series: &Series, plan: &Plan, kinds: &[OutputKind]) -> Result<()> {
    let [columns, rows, _] = plan.geometry.dims;
    for kind in kinds {
        match kind {
            // A report refers to the images like a segmentation does.
            OutputKind::DicomSeg | OutputKind::DicomSegLabelmap | OutputKind::DicomSr => {
                seg::check_slices(&source_slices(series, plan), columns, rows)?;
            }
            OutputKind::Nifti | OutputKind::NiftiImage => {
                nifti::check(plan.geometry.dims, &plan.geometry.affine.0)?
            }
            OutputKind::SecondaryCapture => {
                secondary_capture::check(&source_slices(series, plan), columns, rows)?;
            }
            OutputKind::Stl | OutputKind::Glb => mesh::check(&plan.geometry)?,
            OutputKind::Preview => {}
            OutputKind::RtStruct => {
                rtstruct::check_slices(&source_slices(series, plan), columns, rows)?;
            }
        }
    }
    Ok(())
}
