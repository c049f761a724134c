//! A segmentation to the outputs asked for, and the report of it.

use serde_json::{Map, Value, json};

use crate::dicom::Series;
use crate::error::{Error, ErrorKind, Result};
use crate::postprocess::Segmentation;
use crate::registry::Model;
use crate::request::{Artifact, OutputKind};
use crate::volume::Plan;
use crate::writers::nifti;
use crate::writers::seg::{self, SegOptions, SegRequest, SourceSlice};

/// Finished outputs and what the report says of them.
pub struct Written {
    /// One for each output asked for.
    pub artifacts: Vec<Artifact>,
    /// `segments` of the report.
    pub segments: Value,
    /// Warnings of the writers.
    pub warnings: Vec<String>,
}

/// What outputs are made from.
pub struct Finished<'a> {
    /// The model that ran.
    pub model: &'a Model,
    /// The source.
    pub series: &'a Series,
    /// The source's slices in volume order.
    pub plan: &'a Plan,
    /// The result.
    pub segmentation: &'a Segmentation,
    /// For names of files.
    pub request_id: &'a str,
}

impl Finished<'_> {
    /// Makes every output of `kinds`.
    pub fn write(&self, kinds: &[OutputKind]) -> Result<Written> {
        let Segmentation::Labels(labels) = self.segmentation else {
            return Err(Error::new(
                ErrorKind::InvalidModel,
                "the model gives masks that may overlap; writing them is not supported yet",
            ));
        };
        let voxels = self.count(labels)?;
        let mut warnings = Vec::new();
        let mut artifacts = Vec::with_capacity(kinds.len());
        for kind in kinds {
            artifacts.push(match kind {
                OutputKind::DicomSeg => self.seg(labels, &mut warnings)?,
                OutputKind::Nifti => self.nifti(labels)?,
            });
        }
        if voxels.iter().all(|v| *v == 0) && !kinds.contains(&OutputKind::DicomSeg) {
            warnings.push("no voxel of any segment was found".to_owned());
        }
        Ok(Written { artifacts, segments: self.segments(&voxels), warnings })
    }

    /// Voxels of each segment; a label that no segment describes is the model's fault.
    fn count(&self, labels: &ndarray::Array3<u8>) -> Result<Vec<u64>> {
        let mut by_value = [0u64; 256];
        for &label in labels {
            by_value[usize::from(label)] += 1;
        }
        let described =
            |value: usize| self.model.segments.iter().any(|s| usize::from(s.value) == value);
        if let Some(value) = (1..256).find(|&v| by_value[v] > 0 && !described(v)) {
            return Err(Error::new(
                ErrorKind::InvalidModel,
                format!("the network gave label {value}, which channel_def does not describe"),
            ));
        }
        Ok(self.model.segments.iter().map(|s| by_value[usize::from(s.value) & 255]).collect())
    }

    fn segments(&self, voxels: &[u64]) -> Value {
        let millilitres = self.plan.geometry.voxel_volume() / 1000.0;
        let code = |c: &crate::dicom::segment::Code| json!({"value": c.value, "scheme": c.scheme, "meaning": c.meaning});
        let segments = self.model.segments.iter().zip(voxels).enumerate();
        segments
            .map(|(index, (segment, &voxels))| {
                let volume = voxels as f64 * millilitres;
                json!({
                    "number": index + 1,
                    "label": segment.label,
                    "category": code(&segment.category),
                    "type": code(&segment.property_type),
                    "voxels": voxels,
                    "millilitres": (volume * 1000.0).round() / 1000.0,
                })
            })
            .collect()
    }

    fn seg(&self, labels: &ndarray::Array3<u8>, warnings: &mut Vec<String>) -> Result<Artifact> {
        let slices: Vec<SourceSlice> = self
            .plan
            .slices
            .iter()
            .map(|slice| SourceSlice {
                instance: &self.series.instances[slice.key.instance],
                frame: slice.key.frame,
            })
            .collect();
        let mut options = SegOptions::default();
        if let Some(description) = &self.model.series_description {
            options.series_description.clone_from(description);
        }
        if self.plan.slices.len() > 1 {
            options.spacing_between_slices = Some(self.plan.geometry.affine.spacing()[2]);
        }
        let seg = seg::write(&SegRequest {
            labels: labels.view(),
            slices: &slices,
            segments: &self.model.segments,
            algorithm: &self.model.algorithm,
            options: &options,
        })?;
        warnings.extend(seg.summary.warnings);
        Ok(self.artifact(
            OutputKind::DicomSeg,
            "application/dicom",
            format!("{}.dcm", seg.summary.sop_instance_uid),
            seg.bytes,
        ))
    }

    fn nifti(&self, labels: &ndarray::Array3<u8>) -> Result<Artifact> {
        let bytes = nifti::write(labels.view(), &self.plan.geometry.affine.0)?;
        Ok(self.artifact(
            OutputKind::Nifti,
            "application/gzip",
            format!("{}.nii.gz", self.series.series_instance_uid),
            bytes,
        ))
    }

    fn artifact(
        &self,
        kind: OutputKind,
        media_type: &'static str,
        name: String,
        bytes: Vec<u8>,
    ) -> Artifact {
        let file_name = format!("{}-{name}", self.request_id);
        Artifact { kind, media_type, file_name, bytes: bytes.into(), uri: None }
    }
}

/// `geometry` of the report.
pub fn geometry_report(plan: &Plan, network_dims: [usize; 3]) -> Value {
    let geometry = &plan.geometry;
    let mut map = Map::new();
    map.insert("dimensions".to_owned(), json!(geometry.dims));
    map.insert("spacing".to_owned(), json!(geometry.affine.spacing()));
    map.insert("affineRAS".to_owned(), json!(geometry.affine.0));
    map.insert("networkDimensions".to_owned(), json!(network_dims));
    Value::Object(map)
}
