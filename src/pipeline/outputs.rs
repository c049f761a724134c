//! Converts a segmentation to the requested outputs and reports on it.

use dicom_dictionary_std::uids;
use ndarray::{Array4, ArrayView3, Axis, CowArray, Ix3, Ix4, s};
use serde_json::{Value, json};

use super::names::Names;
use super::on_slices::{Described, OnSlices, RtStructWriter, SegWriter, source_slices};
use super::pictures::{Pictured, Pictures, Wanted};
use super::segments;
use crate::dicom::Series;
use crate::dicom::encoding::FrameEncoding;
use crate::dicom::segment::SegmentDescription;
use crate::error::{Error, ErrorKind, Result};
use crate::postprocess::Segmentation;
use crate::registry::Model;
use crate::request::{Artifact, OutputKind};
use crate::volume::{Physical, Plan};
use crate::writers::dicom::Identity;
use crate::writers::preview::Picture;
use crate::writers::rtstruct::RtStructOptions;
use crate::writers::secondary_capture::{self, CaptureRequest};
use crate::writers::seg::{Seg, SegOptions, SegmentationType};
use crate::writers::sr::{self, SegmentationObject, Sr, SrRequest};
use crate::writers::statistics::{self, Statistics};
use crate::writers::{Label, Voxels, nifti};

/// Finished outputs and their part of the report.
pub struct Written {
    /// One or more for each requested output.
    pub artifacts: Vec<Artifact>,
    /// The `segments` of the report.
    pub segments: Value,
    /// Warnings of the writers.
    pub warnings: Vec<String>,
}

/// The objects of each segmentation that is written.
type Segmentations = Vec<(OutputKind, Vec<Seg>)>;

/// The input of the writers.
pub struct Finished<'a> {
    /// The model that ran.
    pub model: &'a Model,
    /// The source.
    pub series: &'a Series,
    /// The source's slices in volume order.
    pub plan: &'a Plan,
    /// The result.
    pub segmentation: &'a Segmentation,
    /// The wanted segments; the result contains no others.
    pub segments: &'a [SegmentDescription],
    /// The source's values.
    pub physical: &'a Physical,
    /// The seed of the UIDs.
    pub identity: &'a Identity,
    /// How frames of type LABELMAP are encoded.
    pub encoding: FrameEncoding,
    /// The names of the files.
    pub names: &'a Names,
}

impl Finished<'_> {
    /// Creates every output of `kinds`.
    pub fn write(&self, kinds: &[OutputKind]) -> Result<Written> {
        // At the same time: each has parts that one core works on.
        let (statistics, segmentations) =
            rayon::join(|| self.measure(), || self.segmentations(kinds));
        let statistics = statistics?;
        let mut warnings = Vec::new();
        let mut artifacts = Vec::with_capacity(kinds.len());
        let mut pictures = self.pictures(kinds, &statistics, &mut warnings)?;
        let (mut segmentations, of_segmentations) = segmentations?;
        tell(&mut warnings, of_segmentations);
        let segmentation = referred(&segmentations);
        for &kind in kinds {
            match kind {
                OutputKind::DicomSeg | OutputKind::DicomSegLabelmap => {
                    let own = segmentations.iter_mut().find(|(of, _)| *of == kind);
                    let objects = own.map(|(_, objects)| std::mem::take(objects));
                    artifacts.extend(self.parts(kind, made(objects)?));
                }
                OutputKind::DicomSr => {
                    let report = self.sr(made(segmentation.as_ref())?, &statistics)?;
                    warnings.extend(report.warnings);
                    artifacts.push(self.artifact(kind, report.bytes));
                }
                OutputKind::Nifti => artifacts.push(self.nifti(&mut warnings)?),
                OutputKind::NiftiImage => artifacts.push(self.nifti_image(&mut warnings)?),
                OutputKind::SecondaryCapture => {
                    artifacts.push(self.capture(pictures.picture.as_ref())?);
                }
                OutputKind::Preview => {
                    let picture = made(pictures.picture.as_ref())?;
                    artifacts.push(self.artifact(kind, picture.png()?));
                }
                OutputKind::Stl => {
                    let mesh = made(pictures.meshes.stl.take())?;
                    artifacts.push(self.artifact(kind, mesh));
                }
                OutputKind::Glb => {
                    let mesh = made(pictures.meshes.glb.take())?;
                    artifacts.push(self.artifact(kind, mesh));
                }
                OutputKind::RtStruct => artifacts.push(self.rtstruct(&mut warnings)?),
            }
        }
        if statistics.iter().all(|s| s.voxels == 0) && segmentation.is_none() {
            warnings.push("no voxel of any segment was found".to_owned());
        }
        Ok(Written { artifacts, segments: self.segments(&statistics, kinds), warnings })
    }

    /// Creates the segmentations among `kinds`, which reports refer to, and returns warnings about them.
    fn segmentations(&self, kinds: &[OutputKind]) -> Result<(Segmentations, Vec<String>)> {
        let mut warnings = Vec::new();
        let wanted = kinds.iter().filter(|kind| kind.is_segmentation());
        let made = wanted.map(|&kind| Ok((kind, self.seg(kind, &mut warnings)?)));
        let made = made.collect::<Result<_>>()?;
        Ok((made, warnings))
    }

    /// Returns the channels of the segments' masks: their values count from 1.
    fn channels(&self) -> impl Iterator<Item = usize> {
        self.segments.iter().map(|segment| usize::from(segment.value).saturating_sub(1))
    }

    /// Measures each segment.
    fn measure(&self) -> Result<Vec<Statistics>> {
        match self.segmentation {
            Segmentation::Labels(labels) => self.measured(&Voxels::Labels(labels.view())),
            Segmentation::Masks(masks) => {
                self.measured(&Voxels::<u8>::Masks(self.foreground(masks)?.view()))
            }
            Segmentation::Sets(sets) => {
                self.measured(&Voxels::Sets { codes: sets.codes(), members: sets.members() })
            }
        }
    }

    fn measured<L: Label>(&self, voxels: &Voxels<L>) -> Result<Vec<Statistics>> {
        statistics::measure(voxels, self.segments, self.physical, &self.plan.geometry)
    }

    /// Returns where a segment is found in an output: its Segment Number in DICOM SEG and in the extras
    /// of glTF's nodes, its ROI Number in an RT Structure Set, the Tracking UID of its group in a
    /// report; in NIfTI, the value of its voxels or, for masks, the index along the fourth axis,
    /// counted from 0.
    fn place_in(&self, kind: OutputKind, number: usize, value: u16) -> Option<Value> {
        match (kind, self.segmentation) {
            (OutputKind::DicomSeg | OutputKind::DicomSegLabelmap | OutputKind::Glb, _) => {
                Some(json!({"segmentNumber": number}))
            }
            (OutputKind::RtStruct, _) => Some(json!({"roiNumber": number})),
            (OutputKind::DicomSr, _) => {
                Some(json!({"trackingUID": self.identity.tracking(number - 1)}))
            }
            (OutputKind::Nifti, Segmentation::Labels(_)) => Some(json!({"value": value})),
            (OutputKind::Nifti, Segmentation::Masks(_)) => {
                Some(json!({"volume": value.saturating_sub(1), "value": 1}))
            }
            (OutputKind::Nifti, Segmentation::Sets(_)) => {
                Some(json!({"volume": number - 1, "value": 1}))
            }
            (
                OutputKind::NiftiImage
                | OutputKind::Preview
                | OutputKind::SecondaryCapture
                | OutputKind::Stl,
                _,
            ) => None,
        }
    }

    fn segments(&self, statistics: &[Statistics], kinds: &[OutputKind]) -> Value {
        let segments = self.segments.iter().zip(statistics).zip(1..);
        let told = segments.map(|((segment, statistics), number)| {
            let places = kinds.iter().filter_map(|&kind| {
                let place = self.place_in(kind, number, segment.value)?;
                Some((kind.name().to_owned(), place))
            });
            let geometry = &self.plan.geometry;
            segments::to_json(number, segment, statistics, geometry, places.collect())
        });
        told.collect()
    }

    /// Returns the objects of the segmentation, at least one, and adds their warnings.
    fn seg(&self, kind: OutputKind, warnings: &mut Vec<String>) -> Result<Vec<Seg>> {
        let segmentation_type = match kind {
            OutputKind::DicomSegLabelmap => SegmentationType::LabelMap(self.encoding),
            _ => SegmentationType::Binary,
        };
        let mut options = SegOptions { segmentation_type, ..SegOptions::default() };
        if let Some(description) = &self.model.series_description {
            options.series_description.clone_from(description);
        }
        if self.plan.slices.len() > 1 && self.plan.resampling.is_none() {
            options.spacing_between_slices = Some(self.plan.geometry.affine.spacing()[2]);
        }
        let mut objects = self.on_slices(SegWriter { of: self.described(), options: &options })?;
        if objects.len() > 1 {
            warnings.push(format!(
                "the segmentation is larger than one DICOM object may be; it was written as {} of one \
                 series",
                objects.len()
            ));
        }
        for object in &mut objects {
            // Warnings about the source are the same for all kinds.
            tell(warnings, std::mem::take(&mut object.summary.warnings));
        }
        Ok(objects)
    }

    fn sr(&self, segmentation: &sr::Segmentation, statistics: &[Statistics]) -> Result<Sr> {
        sr::write(&SrRequest {
            slices: &source_slices(self.series, self.plan),
            segments: self.segments,
            statistics,
            voxel_volume: self.plan.geometry.voxel_volume(),
            units: self.plan.units.as_deref(),
            segmentation,
            algorithm: &self.model.algorithm,
            identity: self.identity,
        })
    }

    fn rtstruct(&self, warnings: &mut Vec<String>) -> Result<Artifact> {
        let mut options = RtStructOptions::default();
        if let Some(description) = &self.model.series_description {
            options.series_description.clone_from(description);
        }
        // Slices selected from an interpolated grid are not evenly spaced.
        if self.plan.resampling.is_none() {
            options.voxel_volume = Some(self.plan.geometry.voxel_volume());
        }
        let object = self.on_slices(RtStructWriter { of: self.described(), options: &options })?;
        tell(warnings, object.summary.warnings);
        Ok(self.artifact(OutputKind::RtStruct, object.bytes))
    }

    /// Returns the description that all objects on slices share.
    fn described(&self) -> Described<'_> {
        Described {
            segments: self.segments,
            algorithm: &self.model.algorithm,
            identity: self.identity,
        }
    }

    /// Passes the voxels on the source's slices to a writer: without masks of channels that are not
    /// segments and, for an interpolated grid, with the slices closest to the source's.
    fn on_slices<W: OnSlices>(&self, writer: W) -> Result<W::Written> {
        let slices = source_slices(self.series, self.plan);
        let nearest = self.plan.resampling.as_ref().map(|resampling| &resampling.nearest[..]);
        match self.segmentation {
            Segmentation::Labels(labels) => {
                let labels = picked(labels.view(), nearest);
                writer.write(Voxels::Labels(labels.view()), &slices)
            }
            Segmentation::Masks(all) => {
                let segments = self.foreground(all)?;
                let masks = match nearest {
                    None => segments,
                    Some(nearest) => segments.select(Axis(3), nearest).into(),
                };
                writer.write(Voxels::<u8>::Masks(masks.view()), &slices)
            }
            Segmentation::Sets(sets) => {
                let codes = picked(sets.codes(), nearest);
                let voxels = Voxels::Sets { codes: codes.view(), members: sets.members() };
                writer.write(voxels, &slices)
            }
        }
    }

    /// Returns the masks of the segments, in order.
    fn foreground<'m>(&self, masks: &'m Array4<u8>) -> Result<CowArray<'m, u8, Ix4>> {
        let there = masks.dim().0;
        let channels: Vec<usize> = self.channels().collect();
        if let Some(channel) = channels.iter().find(|channel| **channel >= there) {
            return Err(Error::new(
                ErrorKind::InvalidModel,
                format!("channel_def describes channel {channel}, the network gave {there}"),
            ));
        }
        Ok(match channels[..] {
            // The channels are contiguous; only a background before them is left out.
            [first, .., last] if last + 1 - first == channels.len() => {
                masks.slice(s![first..=last, .., .., ..]).into()
            }
            _ => masks.select(Axis(0), &channels).into(),
        })
    }

    fn nifti(&self, warnings: &mut Vec<String>) -> Result<Artifact> {
        let affine = &self.plan.geometry.affine.0;
        let file = match self.segmentation {
            Segmentation::Labels(labels) => nifti::write(labels.view(), affine)?,
            Segmentation::Masks(masks) => nifti::write_masks(masks.view(), affine)?,
            Segmentation::Sets(sets) => {
                let segments = self.segments.iter();
                let masks = segments.map(|segment| sets.class_mask(segment.value));
                nifti::write_each(self.plan.geometry.dims, masks, affine)?
            }
        };
        tell(warnings, widened(&file));
        Ok(self.artifact(OutputKind::Nifti, file.bytes))
    }

    /// Writes the source's values on the grid of the label map.
    fn nifti_image(&self, warnings: &mut Vec<String>) -> Result<Artifact> {
        let file = nifti::write_image(self.physical, &self.plan.geometry.affine.0)?;
        tell(warnings, widened(&file));
        Ok(self.artifact(OutputKind::NiftiImage, file.bytes))
    }

    /// Creates the pictures and meshes that `kinds` need.
    fn pictures(
        &self,
        kinds: &[OutputKind],
        statistics: &[Statistics],
        warnings: &mut Vec<String>,
    ) -> Result<Pictures> {
        let wanted = Wanted::of(kinds);
        if wanted == Wanted::default() {
            return Ok(Pictures::default());
        }
        let pictured = Pictured {
            series: self.series,
            plan: self.plan,
            physical: self.physical,
            segments: self.segments,
            statistics,
            algorithm: &self.model.algorithm,
        };
        let pictures = match self.segmentation {
            Segmentation::Labels(labels) => pictured.make(&Voxels::Labels(labels.view()), wanted),
            Segmentation::Masks(all) => {
                pictured.make(&Voxels::<u8>::Masks(self.foreground(all)?.view()), wanted)
            }
            Segmentation::Sets(sets) => {
                let voxels = Voxels::Sets { codes: sets.codes(), members: sets.members() };
                pictured.make(&voxels, wanted)
            }
        }?;
        if let Some(factor) = pictures.meshes.coarsened {
            warnings.push(format!(
                "meshes of all details would be too large; they are of blocks of {factor} × {factor} × \
                 {factor} voxels, and what is thinner is not in them"
            ));
        }
        Ok(pictures)
    }

    fn capture(&self, picture: Option<&Picture>) -> Result<Artifact> {
        let capture = secondary_capture::write(&CaptureRequest {
            picture: made(picture)?,
            slices: &source_slices(self.series, self.plan),
            algorithm: &self.model.algorithm,
            identity: self.identity,
        })?;
        Ok(self.artifact(OutputKind::SecondaryCapture, capture.bytes))
    }

    /// Creates an output with a single file.
    fn artifact(&self, kind: OutputKind, bytes: Vec<u8>) -> Artifact {
        Artifact::new(kind, self.names.file(kind), bytes.into())
    }

    /// Returns the objects of a segmentation, each as a separate file.
    fn parts(&self, kind: OutputKind, objects: Vec<Seg>) -> impl Iterator<Item = Artifact> {
        let of = objects.len();
        objects.into_iter().zip(1..).map(move |(object, part)| {
            Artifact::new(kind, self.names.part(kind, part, of), object.bytes.into())
        })
    }
}

/// Returns the warning about a file whose slices were shifted.
fn widened(file: &nifti::Nifti) -> Vec<String> {
    let told = file.widened.map(|[x, y]| {
        format!(
            "NIfTI has no tilted slices: each was moved by whole pixels to where it lies, and the \
             file is {x} × {y} pixels wide"
        )
    });
    told.into_iter().collect()
}

/// Returns an intermediate result that an output needs.
fn made<T>(output: Option<T>) -> Result<T> {
    output.ok_or_else(|| Error::internal("an output that was asked for was not made"))
}

/// Adds warnings that are not present yet.
fn tell(warnings: &mut Vec<String>, more: Vec<String>) {
    for warning in more {
        if !warnings.contains(&warning) {
            warnings.push(warning);
        }
    }
}

/// Returns the segmentation that reports refer to: of several, the binary one, which every viewer
/// supports.
fn referred(segmentations: &[(OutputKind, Vec<Seg>)]) -> Option<sr::Segmentation> {
    let binary = segmentations.iter().find(|(kind, _)| *kind == OutputKind::DicomSeg);
    let (kind, objects) = binary.or(segmentations.first())?;
    let sop_class_uid = match kind {
        OutputKind::DicomSegLabelmap => uids::LABEL_MAP_SEGMENTATION_STORAGE,
        _ => uids::SEGMENTATION_STORAGE,
    };
    let object = |Seg { summary, .. }: &Seg| SegmentationObject {
        sop_instance_uid: summary.sop_instance_uid.clone(),
        segments: summary.segments.clone(),
    };
    Some(sr::Segmentation {
        sop_class_uid,
        series_instance_uid: objects.first()?.summary.series_instance_uid.clone(),
        objects: objects.iter().map(object).collect(),
    })
}

/// Returns the slices of `nearest`, or all if it is absent.
fn picked<'v, L: Clone>(
    volume: ArrayView3<'v, L>,
    nearest: Option<&[usize]>,
) -> CowArray<'v, L, Ix3> {
    match nearest {
        None => volume.into(),
        Some(nearest) => volume.select(Axis(2), nearest).into(),
    }
}
