//! Requests and their outcomes, independent of HTTP.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::archive::Store;
use crate::dicom::encoding::FrameEncoding;
use crate::error::{Error, ErrorKind, Result};
use crate::policy::{PolicyChoice, VolumeChoice};
use crate::traces::Trace;

/// An inference request: the inputs, the model and the outputs.
#[derive(Debug, Clone, PartialEq)]
pub struct InferenceRequest {
    /// Identifier of this request in logs, in the response and in output names.
    pub request_id: String,
    /// The caller's identifier (`X-Amzn-SageMaker-Inference-Id`), repeated in logs and the
    /// response.
    pub inference_id: Option<String>,
    /// The inputs to segment, at least one.
    pub inputs: Vec<Input>,
    /// The name of the model; `None` selects the only one.
    pub model: Option<String>,
    /// The requested outputs; empty means the list of the model package (DICOM SEG by default).
    pub outputs: Vec<OutputKind>,
    /// Labels of the requested segments; empty means all segments of the model.
    pub segments: Vec<String>,
    /// How DICOM SEG objects are encoded, as far as the request specifies it.
    pub segmentation: SegmentationChoice,
    /// Where outputs go instead of the response: `s3://bucket/prefix` or a `file://` folder.
    pub output_uri: Option<String>,
    /// Whether and where DICOM outputs are also stored in an archive.
    pub store: Store,
    /// How series that are not clean stacks are handled, as far as the request specifies it.
    pub policy: PolicyChoice,
    /// Whether the response can hold only one result.
    pub single: bool,
    /// The request's place in its trace.
    pub trace: Trace,
}

/// One image set or series to segment.
#[derive(Clone, PartialEq)]
pub enum Input {
    /// `{"datastoreId","imageSetId"[,"versionId"]}`.
    ImageSet {
        /// AHI data store, 32 characters of `[0-9a-z]`.
        datastore_id: String,
        /// AHI image set, 32 characters of `[0-9a-z]`.
        image_set_id: String,
        /// Version to read; `None` means the latest.
        version_id: Option<String>,
    },
    /// `{"datastoreId","studyInstanceUID"[,"seriesInstanceUID"]}`: the series of a study selected
    /// by the rules of the model package, or its only series.
    Study {
        /// AHI data store, 32 characters of `[0-9a-z]`.
        datastore_id: String,
        /// The study.
        study_instance_uid: String,
        /// The series, if given.
        series_instance_uid: Option<String>,
    },
    /// `{"s3Uri"[,"seriesInstanceUID"]}`: the DICOM objects below a prefix, a single DICOM object,
    /// or a zip, tar or tar.gz archive.
    S3 {
        /// `s3://BUCKET/KEY`.
        uri: String,
        /// The series, if given.
        series_instance_uid: Option<String>,
    },
    /// A DICOM file or an archive sent directly instead of a JSON request.
    Body(bytes::Bytes),
    /// `{"images": {NAME: {"datastoreId",…}, …}}`: the images of a model with several inputs, by
    /// name; or `{"images": [{…}, …]}` without names, assigned by the rules of the model package.
    Images(Vec<(Option<String>, Input)>),
    /// `{…, "volume": …}`: one volume of the series.
    Volume {
        /// The selected volume.
        choice: VolumeChoice,
        /// The location of the series.
        of: Box<Input>,
    },
}

/// Omits the bytes of a body and the key of an object, which may contain a patient name.
impl std::fmt::Debug for Input {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::ImageSet { datastore_id, image_set_id, version_id } => f
                .debug_struct("ImageSet")
                .field("datastore_id", datastore_id)
                .field("image_set_id", image_set_id)
                .field("version_id", version_id)
                .finish(),
            Self::Study { datastore_id, study_instance_uid, series_instance_uid } => f
                .debug_struct("Study")
                .field("datastore_id", datastore_id)
                .field("study_instance_uid", study_instance_uid)
                .field("series_instance_uid", series_instance_uid)
                .finish(),
            // Keys often contain patient names.
            Self::S3 { series_instance_uid, .. } => f
                .debug_struct("S3")
                .field("series_instance_uid", series_instance_uid)
                .finish_non_exhaustive(),
            Self::Body(bytes) => f.debug_tuple("Body").field(&bytes.len()).finish(),
            Self::Images(images) => f.debug_tuple("Images").field(images).finish(),
            Self::Volume { choice, of } => {
                f.debug_struct("Volume").field("choice", choice).field("of", of).finish()
            }
        }
    }
}

/// Something a request can produce.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum OutputKind {
    /// A DICOM Segmentation object of type BINARY (`dicom-seg`), which every viewer reads.
    DicomSeg,
    /// One of type LABELMAP (`dicom-seg-labelmap`), for segments that do not overlap.
    DicomSegLabelmap,
    /// A DICOM structured report of what was measured, with a DICOM SEG (`dicom-sr`).
    DicomSr,
    /// The label map as NIfTI, gzip compressed (`nifti`).
    Nifti,
    /// The image itself in physical units on the same grid, NIfTI, gzip compressed (`nifti-image`).
    NiftiImage,
    /// A picture of the segmentation, PNG (`preview`).
    Preview,
    /// The same as a DICOM Secondary Capture Image (`secondary-capture`).
    SecondaryCapture,
    /// Surface meshes of the segments, binary STL (`stl`).
    Stl,
    /// Surface meshes of the segments, binary glTF (`glb`).
    Glb,
    /// A DICOM RT Structure Set (`rtstruct`).
    #[serde(rename = "rtstruct")]
    #[value(name = "rtstruct")]
    RtStruct,
}

impl OutputKind {
    /// Returns its name in requests and responses.
    pub fn name(self) -> &'static str {
        match self {
            Self::DicomSeg => "dicom-seg",
            Self::DicomSegLabelmap => "dicom-seg-labelmap",
            Self::DicomSr => "dicom-sr",
            Self::Nifti => "nifti",
            Self::NiftiImage => "nifti-image",
            Self::Preview => "preview",
            Self::SecondaryCapture => "secondary-capture",
            Self::Stl => "stl",
            Self::Glb => "glb",
            Self::RtStruct => "rtstruct",
        }
    }

    /// Returns the media type of its files.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::DicomSeg
            | Self::DicomSegLabelmap
            | Self::DicomSr
            | Self::RtStruct
            | Self::SecondaryCapture => "application/dicom",
            Self::Nifti | Self::NiftiImage => "application/gzip",
            Self::Preview => "image/png",
            Self::Stl => "model/stl",
            Self::Glb => "model/gltf-binary",
        }
    }

    /// Returns the file name extension without the leading dot. No two kinds share one.
    pub fn extension(self) -> &'static str {
        match self {
            Self::DicomSeg => "seg.dcm",
            Self::DicomSegLabelmap => "labelmap.dcm",
            Self::DicomSr => "sr.dcm",
            Self::RtStruct => "rtstruct.dcm",
            Self::SecondaryCapture => "preview.dcm",
            Self::Nifti => "labels.nii.gz",
            Self::NiftiImage => "image.nii.gz",
            Self::Preview => "preview.png",
            Self::Stl => "stl",
            Self::Glb => "glb",
        }
    }

    /// Whether its files are DICOM objects, which archives accept.
    pub fn is_dicom(self) -> bool {
        self.media_type() == "application/dicom"
    }

    /// Whether it is a DICOM Segmentation object of any type.
    pub fn is_segmentation(self) -> bool {
        matches!(self, Self::DicomSeg | Self::DicomSegLabelmap)
    }

    /// Checks that `kinds` can be produced together.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidRequest`] if one of them refers to another that is missing.
    pub fn check_together(kinds: &[Self]) -> Result<()> {
        if kinds.contains(&Self::DicomSr) && !kinds.iter().any(|kind| kind.is_segmentation()) {
            return Err(Error::new(
                ErrorKind::InvalidRequest,
                "dicom-sr refers to the segments of a DICOM SEG; ask for dicom-seg beside it",
            )
            .with("field", "outputs"));
        }
        Ok(())
    }
}

/// How DICOM SEG objects are encoded, as specified by one source; `None` leaves it to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct SegmentationChoice {
    /// Encoding of LABELMAP frames; BINARY frames are never compressed.
    pub transfer_syntax: Option<FrameEncoding>,
}

impl SegmentationChoice {
    /// Returns this choice, completed by `other`.
    pub fn or(self, other: Self) -> Self {
        Self { transfer_syntax: self.transfer_syntax.or(other.transfer_syntax) }
    }
}

/// A finished output.
#[derive(Debug, Clone)]
pub struct Artifact {
    /// Its kind.
    pub kind: OutputKind,
    /// The media type, such as `application/dicom`.
    pub media_type: &'static str,
    /// File name built from the segment labels, unique within the request.
    pub file_name: String,
    /// Its bytes; empty once [released](Self::release).
    pub bytes: bytes::Bytes,
    /// The number of bytes, even after release.
    pub size: usize,
    /// The SHA-256 of the bytes in hexadecimal.
    pub sha256: String,
    /// Where it was written, if it was.
    pub uri: Option<String>,
}

impl Artifact {
    /// Creates an output of this kind. Computing its digest is CPU-bound.
    pub fn new(kind: OutputKind, file_name: String, bytes: bytes::Bytes) -> Self {
        let sha256 = format!("{:x}", Sha256::digest(&bytes));
        let (media_type, size) = (kind.media_type(), bytes.len());
        Self { kind, media_type, file_name, bytes, size, sha256, uri: None }
    }

    /// Drops the bytes if they have been written elsewhere.
    pub fn release(&mut self) {
        if self.uri.is_some() {
            self.bytes = bytes::Bytes::new();
        }
    }
}

/// The outcome of one input.
#[derive(Debug, Clone)]
pub struct InputOutcome {
    /// JSON report without the outputs: input, model, geometry, segments, execution provider,
    /// timings in seconds, warnings.
    pub report: Map<String, Value>,
    /// The outputs, in the requested order.
    pub artifacts: Vec<Artifact>,
    /// Why there are none, if this input failed and others did not.
    pub failure: Option<Arc<Error>>,
}

/// The outcome of a request: one per input, in their order.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// As in the request.
    pub request_id: String,
    /// As in the request.
    pub inference_id: Option<String>,
    /// The model that ran.
    pub model: String,
    /// One per input.
    pub results: Vec<InputOutcome>,
}

/// Whether `uri` is `s3://BUCKET` or `s3://BUCKET/PREFIX` with a valid bucket name (3 to 63
/// lower-case letters, digits, periods and hyphens) and a prefix that leaves room for names.
pub fn is_s3_uri(uri: &str) -> bool {
    const LONGEST_PREFIX: usize = 900;
    let Some(rest) = uri.strip_prefix("s3://") else { return false };
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let ends = |b: Option<&u8>| b.is_some_and(|&b| inner(b));
    (3..=63).contains(&bucket.len())
        && bucket.bytes().all(|b| inner(b) || b == b'.' || b == b'-')
        && ends(bucket.as_bytes().first())
        && ends(bucket.as_bytes().last())
        && prefix.len() <= LONGEST_PREFIX
        && !prefix.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_need_a_segmentation_beside_them() {
        use OutputKind::{DicomSeg, DicomSegLabelmap, DicomSr, Nifti};
        for good in [&[][..], &[Nifti], &[DicomSr, DicomSeg], &[DicomSegLabelmap, DicomSr, Nifti]] {
            assert!(OutputKind::check_together(good).is_ok(), "{good:?}");
        }
        let error = OutputKind::check_together(&[DicomSr, Nifti]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidRequest);
        assert!(error.message().contains("ask for dicom-seg"), "{error}");
    }

    #[test]
    fn s3_uris_name_a_bucket() {
        for good in ["s3://bucket", "s3://bucket/", "s3://my.bucket-1/a/b c/ä"] {
            assert!(is_s3_uri(good), "{good}");
        }
        for bad in [
            "",
            "bucket/a",
            "s3://",
            "s3:///a",
            "s3://ab/c",
            "s3://Bucket/a",
            "s3://-ab/c",
            "s3://bucket/a\nb",
            "https://bucket/a",
            "file:///etc",
            "s3://user@bucket/x",
        ] {
            assert!(!is_s3_uri(bad), "{bad}");
        }
    }
}
