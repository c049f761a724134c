//! Predicts the memory that one input needs, from headers and the model, before anything is fetched or
//! allocated.
//!
//! The stages run one after the other, so the largest counts: the volume during decoding, and any grid
//! interpolated from its slices; each step of the preprocessing; the network's image, the windows' sums
//! and what postprocessing holds meanwhile; mapping back; the result and its outputs. Sizes that depend
//! on voxels count as the largest possible ones.

use crate::bundle::ResultForm;
use crate::codec;
use crate::dicom::Series;
use crate::error::{Error, ErrorKind, Result};
use crate::inference::Network;
use crate::registry::Model;
use crate::request::OutputKind;
use crate::source::{BYTES_IN_FLIGHT, FRAMES_IN_FLIGHT};
use crate::transforms::{Extent, voxels};
use crate::volume::{Physical, Plan};
use crate::writers::{mesh, nifti, preview, rtstruct, seg, statistics};

/// Bytes per voxel.
const F32: u64 = size_of::<f32>() as u64;

/// Limit on the segments whose SEG frames are counted: they do not overlap, and most are small.
const SEGMENTS: u64 = 16;

/// Bytes per segment of a structured report, as items and in the file.
const REPORTED_SEGMENT: u64 = 128 << 10;

/// Bytes per image that a structured report refers to, as items and in the file.
const REPORTED_IMAGE: u64 = 8 << 10;

/// Bytes of everything small: headers, lists, JSON, row buffers.
const BESIDE: u64 = 16 << 20;

/// The needs of an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    /// Peak bytes held at the same time.
    pub bytes: u64,
    /// Bytes held once the segmentation and its outputs exist.
    pub result: u64,
    /// Voxels of the source images.
    pub source: u64,
    /// Voxels of the network's grid.
    pub network: u64,
}

/// Returns the memory needed for images with these plans, in the order of [`Model::images`], and for
/// `outputs`.
///
/// # Errors
/// Fails for sizes that no memory could hold; the error names the attribute at fault.
pub fn need(model: &Model, plans: &[(&Series, &Plan)], outputs: &[OutputKind]) -> Result<Need> {
    let (_, first) = plans.first().ok_or_else(|| Error::internal("an input of no image"))?;
    let grids = plans.iter().map(|(_, plan)| &plan.geometry);
    let extents: Vec<Extent> = grids.map(|grid| Extent::new(grid.dims, grid.affine)).collect();
    let source = total(extents.iter().map(Extent::voxels));
    let filled = total(plans.iter().map(|(_, plan)| filled_bytes(plan)));
    let decoding = filled.saturating_add(decoders(plans));
    // Interpolated grids exist besides their source slices.
    let interpolated = plans.iter().filter(|(_, plan)| plan.resampling.is_some());
    let interpolated = total(interpolated.map(|(_, plan)| voxels(plan.geometry.dims)));
    let physical = filled.saturating_add(interpolated.saturating_mul(F32));
    let images = match (&model.preprocessing.keys[..], extents.len()) {
        ([_], 2..) => vec![Extent { channels: extents.len(), ..extents[0] }],
        _ => extents,
    };
    let preprocessing = model.preprocessing.forecast(images)?;
    let image = preprocessing.result;
    check_growth(source, image.voxels())?;
    let shape = model.network.shape();
    let classes = shape.output_channels.unwrap_or(model.segments.len() + 1);
    let window = model.inferer.window(shape)[0].unwrap_or(image.dims[0]);
    let after = model.postprocessing.forecast(&image, window, first.geometry.dims, classes);
    // The image is copied if its memory has another order.
    let laid_out = image.bytes().saturating_mul(2);
    let windows = model.inferer.forecast(image.channels, image.dims, classes, &model.network);
    let running = total([image.bytes(), windows, after.running]);
    // Segments are measured before anything is written.
    let measuring = statistics::working_bytes(first.geometry.dims);
    let written = written(model, first, outputs).max(measuring).saturating_add(after.result);
    // The first image's values are kept from decoding to the end.
    let kept = voxels(first.geometry.dims).saturating_mul(Physical::voxel_bytes(first));
    let beside = [physical, preprocessing.peak, laid_out, running, after.finishing, written];
    let beside = beside.into_iter().max().unwrap_or(0).saturating_add(kept);
    let peak = decoding.saturating_add(kept).max(beside);
    let written = written.saturating_add(kept);
    Ok(Need {
        bytes: peak.saturating_add(BESIDE),
        result: written.saturating_add(BESIDE),
        source,
        network: image.voxels(),
    })
}

/// Limit on the growth from voxels of the source to voxels of the network's grid: five millimetres
/// resampled to half a millimetre.
const MOST_GROWTH: u64 = 1000;

/// Grids up to this size are accepted, whatever their source.
const SMALL: u64 = 16 << 20;

/// Refuses images that resampling would enlarge excessively, because the model's spacing is far from
/// theirs.
fn check_growth(source: u64, network: u64) -> Result<()> {
    if network <= SMALL.max(source.saturating_mul(MOST_GROWTH)) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::InvalidImage,
        format!(
            "the images have {source} voxels, {network} when they are resampled to the model's \
             spacing; their PixelSpacing or distance between slices is implausible for this model"
        ),
    )
    .with("attribute", "PixelSpacing")
    .with("voxels", source)
    .with("networkVoxels", network))
}

impl Need {
    /// Returns the error for an input that never fits, with the attribute that makes it so large.
    pub fn refused(&self, error: Error) -> Error {
        if error.kind() != ErrorKind::PayloadTooLarge {
            return error;
        }
        let (attribute, why) = if self.network > self.source.saturating_mul(8) {
            (
                "PixelSpacing",
                "resampled to the model's spacing; see PixelSpacing and the distance between slices",
            )
        } else {
            ("Rows", "see Rows, Columns and the number of slices")
        };
        error
            .context(format_args!(
                "the images have {} voxels, {} on the network's grid ({why})",
                self.source, self.network
            ))
            .with("attribute", attribute)
            .with("voxels", self.source)
            .with("networkVoxels", self.network)
    }
}

/// Returns the largest size of a decoded sample of a plan, in bytes.
fn sample_bytes(plan: &Plan) -> u64 {
    plan.slices.iter().map(|slice| slice.format.sample_bytes()).max().unwrap_or(0)
}

/// Returns the bytes of a volume with all its frames: physical values, or stored ones if the grid is
/// still to be interpolated.
fn filled_bytes(plan: &Plan) -> u64 {
    let each = if plan.resampling.is_some() { sample_bytes(plan) } else { F32 };
    voxels(plan.geometry.dims).saturating_mul(each)
}

/// Returns the bytes of frames in flight and of active decoders, for the plan that needs the most.
fn decoders(plans: &[(&Series, &Plan)]) -> u64 {
    let of = |(series, plan): &(&Series, &Plan)| {
        let work = plan.slices.iter().map(|slice| {
            let instance = series.instances.get(slice.key.instance);
            let syntax = instance.map_or("", |instance| &instance.transfer_syntax);
            codec::working_bytes(syntax, &slice.format)
        });
        let work = work.max().unwrap_or(0);
        let frames = plan.slices.len() as u64;
        let pixels = plan.slices.iter().map(|slice| slice.format.pixels() as u64).max();
        let encoded = pixels.unwrap_or(0).saturating_mul(sample_bytes(plan));
        let few = encoded.saturating_mul(2 * FRAMES_IN_FLIGHT as u64);
        let flying = frames.saturating_mul(encoded).min(few.max(BYTES_IN_FLIGHT));
        let threads = (rayon::current_num_threads() as u64).min(frames);
        flying.saturating_add(threads.saturating_mul(work))
    };
    plans.iter().map(of).max().unwrap_or(0)
}

/// Returns the bytes of the requested outputs.
fn written(model: &Model, plan: &Plan, outputs: &[OutputKind]) -> u64 {
    let voxels = voxels(plan.geometry.dims);
    let segments = (model.segments.len() as u64).min(SEGMENTS);
    // A copy of the slices that are selected from an interpolated grid.
    let picked = match (&plan.resampling, &model.form) {
        (None, _) => 0,
        (Some(_), ResultForm::Masks) => voxels.saturating_mul(model.segments.len() as u64),
        // Labels of one byte, or two-byte codes of sets.
        (Some(_), _) => voxels.saturating_mul(2),
    };
    picked.saturating_add(total(outputs.iter().map(|kind| match kind {
        // One bit per pixel of a segment's frames.
        OutputKind::DicomSeg => (voxels / 8).saturating_mul(segments),
        // The request may want fewer segments, but never more.
        OutputKind::DicomSegLabelmap => {
            seg::most_label_map_bytes(plan.geometry.dims, model.segments.len())
        }
        // The items of each group with its measurements, and three references to each image.
        OutputKind::DicomSr => {
            let groups = (model.segments.len() as u64).saturating_mul(REPORTED_SEGMENT);
            groups.saturating_add((plan.slices.len() as u64).saturating_mul(REPORTED_IMAGE))
        }
        // Label maps compress to a hundredth.
        OutputKind::Nifti => voxels / 4,
        OutputKind::NiftiImage => nifti_image_bytes(plan),
        OutputKind::Preview => PREVIEW_PIXELS.saturating_mul(32 + model.segments.len() as u64),
        // The pixels, and the object that contains them.
        OutputKind::SecondaryCapture => {
            PREVIEW_PIXELS.saturating_mul(32 + model.segments.len() as u64 + 2 * 3)
        }
        OutputKind::Stl => mesh_bytes(plan, STL_BYTES),
        OutputKind::Glb => mesh_bytes(plan, GLB_BYTES),
        OutputKind::RtStruct => {
            rtstruct::working_bytes(plan.geometry.dims, rayon::current_num_threads())
        }
    })))
}

/// Returns the bytes of the NIfTI image. An image that cannot be written has been refused before.
fn nifti_image_bytes(plan: &Plan) -> u64 {
    let (geometry, voxel_bytes) = (&plan.geometry, Physical::voxel_bytes(plan));
    nifti::image_bytes(geometry.dims, &geometry.affine.0, voxel_bytes).unwrap_or(0)
}

/// Limit on the pixels of a preview.
const PREVIEW_PIXELS: u64 = preview::MOST_PIXELS as u64;

/// Bytes per vertex of a mesh, with its two triangles, in the files and during construction: the vertex
/// in the four forms that smoothing uses, in patient space, its normal, and its triangles twice.
const STL_BYTES: u64 = 2 * 50;
const GLB_BYTES: u64 = 2 * 12 + 2 * 12;
const MESH_BYTES: u64 = 6 * 12 + 2 * 24;

/// Returns the bytes of the meshes of all segments in a file.
fn mesh_bytes(plan: &Plan, in_file: u64) -> u64 {
    let [nx, ny, _] = plan.geometry.dims.map(|n| n as u64 + 128);
    let vertices = mesh::most_vertices(voxels(plan.geometry.dims));
    // Files grow by doubling.
    let made = vertices.saturating_mul(2 * in_file + MESH_BYTES);
    // The numbers of the vertices on a slab's edges, for each segment being processed.
    let threads = rayon::current_num_threads() as u64;
    let slabs = nx.saturating_mul(ny).saturating_mul(5 * size_of::<u32>() as u64);
    made.saturating_add(slabs.saturating_mul(threads))
}

fn total(parts: impl IntoIterator<Item = u64>) -> u64 {
    parts.into_iter().fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_that_resampling_would_blow_up_are_refused() {
        assert!(check_growth(96 * 96 * 16, 96 * 96 * 16 * 8).is_ok());
        assert!(check_growth(1, 1 << 20).is_ok(), "small whatever it was made of");
        let error = check_growth(96 * 96 * 16, 3840 * 3840 * 32).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidImage);
        assert_eq!(error.details()["attribute"], "PixelSpacing");
    }
}
