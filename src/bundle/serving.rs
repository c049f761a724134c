//! `serving.json`: what a model package may specify beyond MONAI's bundle, about the objects created
//! from its results. The file and all of its fields are optional:
//!
//! ```json
//! {
//!   "seriesDescription": "Spleen segmentation, not for clinical use",
//!   "segments": [
//!     {
//!       "label": "spleen",
//!       "segmentLabel": "Spleen",
//!       "category": {"value": "91723000", "scheme": "SCT", "meaning": "Anatomical Structure"},
//!       "type": {"value": "78961009", "scheme": "SCT", "meaning": "Spleen"},
//!       "color": [157, 108, 162]
//!     }
//!   ],
//!   "algorithm": {"name": "spleen_ct_segmentation", "version": "0.5.9"},
//!   "outputs": ["dicom-seg-labelmap"],
//!   "segmentation": {"transferSyntax": "htj2k"},
//!   "images": [{"name": "T1c", "conditions": {"SeriesDescription": "t1.*(ce|\\+c)"}}],
//!   "execution": {
//!     "gpuModel": "model_fp16.onnx", "tf32": true, "convolutionSearch": "exhaustive", "tensorrtFp16": true,
//!     "sessionsPerGpu": 2
//!   },
//!   "policy": {"gaps": "interpolate", "volumes": "largest"},
//!   "volume": {"DiffusionBValue": 0}
//! }
//! ```
//!
//! A segment identifies its class by `label`, the name in the bundle's `channel_def`, or by `channel`,
//! its number. Missing fields and unlisted classes get defaults: the name in `channel_def` as Segment
//! Label, and the codes known for that name. Unknown fields are an error, because a misspelt one would
//! be silently ignored.

use std::path::Path;

use serde::Deserialize;

use super::execution::Execution;
use crate::dicom::segment::{Algorithm, Code, check_text};
use crate::error::{Error, ErrorKind, Result};
use crate::policy::{PolicyChoice, VolumeChoice};
use crate::request::{OutputKind, SegmentationChoice};

/// The contents of `serving.json`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Serving {
    /// Series Description of the objects written, at most 64 characters.
    pub series_description: Option<String>,
    /// Classes that differ from their defaults.
    #[serde(default)]
    pub segments: Vec<ServingSegment>,
    /// Name and version of the algorithm, if they differ from the bundle's.
    pub algorithm: Option<Algorithm>,
    /// The outputs to create from a result, if the request does not say.
    #[serde(default)]
    pub outputs: Vec<OutputKind>,
    /// How DICOM SEG is written, if the request does not say.
    #[serde(default)]
    pub segmentation: SegmentationChoice,
    /// How to tell apart the images of a model with several inputs, if the request does not name them.
    #[serde(default)]
    pub images: Vec<ServingImage>,
    /// How the network runs.
    #[serde(default)]
    pub execution: Execution,
    /// How to treat series that are not a single regular stack, if the request does not say.
    #[serde(default)]
    pub policy: PolicyChoice,
    /// Which volume of a series with several to use, if the request does not say.
    pub volume: Option<VolumeChoice>,
}

/// One image of a model with several inputs.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ServingImage {
    /// Its name in the `channel_def` of the network's input, or its key.
    pub name: String,
    /// Conditions on attributes ([`crate::dicom::selection`]).
    pub conditions: serde_json::Map<String, serde_json::Value>,
}

/// One class.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ServingSegment {
    /// The class's name in `channel_def`, compared case-insensitively. Either this or `channel`.
    pub label: Option<String>,
    /// The class's number in `channel_def`.
    pub channel: Option<usize>,
    /// Segment Label, at most 64 characters.
    pub segment_label: Option<String>,
    /// Segmented Property Category.
    pub category: Option<Code>,
    /// Segmented Property Type.
    #[serde(rename = "type")]
    pub property_type: Option<Code>,
    /// Segmented Property Type Modifier, such as left or right.
    pub type_modifier: Option<Code>,
    /// Anatomic Region of an abnormality.
    pub anatomic_region: Option<Code>,
    /// Display colour, sRGB.
    pub color: Option<[u8; 3]>,
}

impl Serving {
    /// Reads the file; `None` if it does not exist.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`] if it cannot be read; otherwise propagates the errors of
    /// [`parse`](Self::parse).
    pub fn read(path: &Path) -> Result<Option<Self>> {
        match std::fs::read(path) {
            Ok(bytes) => Self::parse(&bytes).map(Some),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::new(ErrorKind::Io, "serving.json cannot be read").caused_by(e)),
        }
    }

    /// Parses the file's contents.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidModel`] with the JSON path at fault.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let mut json = serde_json::Deserializer::from_slice(bytes);
        let serving: Self = serde_path_to_error::deserialize(&mut json)
            .map_err(|e| fault(&e.path().to_string(), &e.inner().to_string()))?;
        json.end().map_err(|e| fault(".", &e.to_string()))?;
        if let Some(text) = &serving.series_description {
            check_text(text, 64, "seriesDescription").map_err(|e| e.context("serving.json"))?;
        }
        if let Some(algorithm) = &serving.algorithm {
            algorithm.check().map_err(|e| e.context("serving.json"))?;
        }
        for (index, segment) in serving.segments.iter().enumerate() {
            if segment.label.is_some() == segment.channel.is_some() {
                return Err(fault(
                    &format!("segments[{index}]"),
                    "one of label and channel says which class is meant; give exactly one",
                ));
            }
        }
        Ok(serving)
    }
}

pub(super) fn fault(path: &str, why: &str) -> Error {
    Error::new(ErrorKind::InvalidModel, format!("serving.json: {path}: {why}")).with("path", path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dicom::encoding::FrameEncoding;

    fn parse(json: &str) -> Serving {
        Serving::parse(json.as_bytes()).unwrap()
    }

    fn refusal(json: &str) -> Error {
        Serving::parse(json.as_bytes()).unwrap_err()
    }

    #[test]
    fn everything_in_the_file_is_read() {
        let serving = parse(
            r#"{"seriesDescription": "S", "algorithm": {"name": "a", "version": "2"},
                "outputs": ["dicom-seg", "nifti", "dicom-seg-labelmap"],
                "segmentation": {"transferSyntax": "native"}}"#,
        );
        assert_eq!(serving.segmentation.transfer_syntax, Some(FrameEncoding::Native));
        assert_eq!(serving.series_description.as_deref(), Some("S"));
        assert_eq!(serving.algorithm, Some(Algorithm::new("a", "2")));
        let kinds = [OutputKind::DicomSeg, OutputKind::Nifti, OutputKind::DicomSegLabelmap];
        assert_eq!(serving.outputs, kinds);
        assert_eq!(parse("{}"), Serving::default());
    }

    #[test]
    fn errors_name_the_path() {
        for (json, path) in [
            (r#"{"seriesdescription": "x"}"#, "seriesdescription"),
            (
                r#"{"segments": [{"label": "a"}, {"label": "b", "colour": 1}]}"#,
                "segments[1].colour",
            ),
            (r#"{"segments": [{"label": "a", "type": {"value": 7}}]}"#, "segments[0].type.value"),
            (r#"{"segments": [{"label": "a", "color": [1, 2, 300]}]}"#, "segments[0].color[2]"),
            (r#"{"segments": [{"segmentLabel": "a"}]}"#, "segments[0]"),
            (r#"{"segments": [{"label": "a", "channel": 1}]}"#, "segments[0]"),
            (r#"{"outputs": ["mesh"]}"#, "outputs[0]"),
            (r#"{"segmentation": {"transferSyntax": "jpeg"}}"#, "segmentation.transferSyntax"),
            (r#"{"segmentation": {"type": "LABELMAP"}}"#, "segmentation.type"),
            (r#"{"seriesDescription": ""}"#, "seriesDescription"),
            (r#"{"algorithm": {"name": "a", "version": " "}}"#, "algorithm.version"),
            (r#"{} {}"#, "trailing"),
        ] {
            let e = refusal(json);
            assert_eq!(e.kind(), ErrorKind::InvalidModel);
            assert!(e.message().contains(path), "{json}: {e}");
        }
    }

    #[test]
    fn an_absent_file_is_none() {
        assert_eq!(Serving::read(Path::new("no such folder/serving.json")).unwrap(), None);
    }
}
