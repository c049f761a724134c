//! What a caller asks for and what it gets back, free of HTTP.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::archive::Store;
use crate::dicom::encoding::FrameEncoding;
use crate::error::{Error, ErrorKind, Result};
use crate::policy::{PolicyChoice, VolumeChoice};
use crate::telemetry::Trace;

/// One request: what to segment, with which model, and what to make of it.
#[derive(Debug, Clone, PartialEq)]
pub struct InferenceRequest {
    /// Identifier of this request in logs, in the answer and in names of outputs.
    pub request_id: String,
    /// The caller's own identifier (`X-Amzn-SageMaker-Inference-Id`), repeated in logs and answer.
    pub inference_id: Option<String>,
    /// What to segment, at least one.
    pub inputs: Vec<Input>,
    /// The model's name; `None` where only one is served.
    pub model: Option<String>,
    /// Outputs wanted; empty means the model package's own list (DICOM SEG by default).
    pub outputs: Vec<OutputKind>,
    /// Labels of the segments wanted; empty means all of the model's.
    pub segments: Vec<String>,
    /// How DICOM SEG is written, as far as the request says it.
    pub segmentation: SegmentationChoice,
    /// Where outputs go instead of into the answer: `s3://bucket/prefix` or a `file://` folder.
    pub output_uri: Option<String>,
    /// Whether and where DICOM outputs are stored in an archive, too.
    pub store: Store,
    /// How series that are not clean stacks are treated, as far as the request says it.
    pub policy: PolicyChoice,
    /// Whether the answer has room for one result only.
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
        /// Version to read; the latest where absent.
        version_id: Option<String>,
    },
    /// `{"datastoreId","studyInstanceUID"[,"seriesInstanceUID"]}`: the series of a study that the model
    /// package's rules choose, or its only one.
    Study {
        /// AHI data store, 32 characters of `[0-9a-z]`.
        datastore_id: String,
        /// The study.
        study_instance_uid: String,
        /// Which of its series, where that is said.
        series_instance_uid: Option<String>,
    },
    /// `{"s3Uri"[,"seriesInstanceUID"]}`: DICOM objects below a prefix, a DICOM object, or a zip, tar
    /// or tar.gz archive of them.
    S3 {
        /// `s3://BUCKET/KEY`.
        uri: String,
        /// Which of the series there, where that is said.
        series_instance_uid: Option<String>,
    },
    /// A DICOM file or an archive of them in place of a request in JSON.
    Body(bytes::Bytes),
    /// `{"images": {NAME: {"datastoreId",…}, …}}`: the images of a model that takes several at once,
    /// by the names it gives them; or `{"images": [{…}, …]}` without names, to be told apart by the
    /// model package's rules.
    Images(Vec<(Option<String>, Input)>),
    /// `{…, "volume": …}`: one volume of the series there.
    Volume {
        /// Which one.
        choice: VolumeChoice,
        /// Where the series is.
        of: Box<Input>,
    },
}

/// Without the bytes of a body and the key of an object, which may hold a patient's name.
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
            // Keys are often names of patients.
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
    /// Its name in requests and answers.
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

    /// The media type of its files.
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

    /// What names of its files end in, without the dot before it. Those of no two kinds are alike.
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

    /// Whether it is made of DICOM objects, which archives take.
    pub fn is_dicom(self) -> bool {
        self.media_type() == "application/dicom"
    }

    /// Whether it is a DICOM Segmentation object, of whatever type.
    pub fn is_segmentation(self) -> bool {
        matches!(self, Self::DicomSeg | Self::DicomSegLabelmap)
    }

    /// Whether all of `kinds` can be made together.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidRequest`] where one refers to another that is not among them.
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

/// How DICOM SEG is written, as far as one place says it; `None` leaves it to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct SegmentationChoice {
    /// Encoding of the frames of type LABELMAP; those of type BINARY are never compressed.
    pub transfer_syntax: Option<FrameEncoding>,
}

impl SegmentationChoice {
    /// This choice, with `other`'s where it says nothing.
    pub fn or(self, other: Self) -> Self {
        Self { transfer_syntax: self.transfer_syntax.or(other.transfer_syntax) }
    }
}

/// One finished output.
#[derive(Debug, Clone)]
pub struct Artifact {
    /// What it is.
    pub kind: OutputKind,
    /// `application/dicom` and the like.
    pub media_type: &'static str,
    /// File name made of the segments' labels, its own within the request.
    pub file_name: String,
    /// Its bytes; none once it was [released](Self::release).
    pub bytes: bytes::Bytes,
    /// How many there are, or were.
    pub size: usize,
    /// Their SHA-256 in hexadecimal.
    pub sha256: String,
    /// Where it was written, once it was.
    pub uri: Option<String>,
}

impl Artifact {
    /// An output of this kind. Its digest takes processor time.
    pub fn new(kind: OutputKind, file_name: String, bytes: bytes::Bytes) -> Self {
        let sha256 = format!("{:x}", Sha256::digest(&bytes));
        let (media_type, size) = (kind.media_type(), bytes.len());
        Self { kind, media_type, file_name, bytes, size, sha256, uri: None }
    }

    /// Gives up the bytes where they are safe elsewhere.
    pub fn release(&mut self) {
        if self.uri.is_some() {
            self.bytes = bytes::Bytes::new();
        }
    }
}

/// The answer to one input.
#[derive(Debug, Clone)]
pub struct InputOutcome {
    /// JSON report but for the outputs: input, model, geometry, segments, execution provider,
    /// timings in seconds, warnings.
    pub report: Map<String, Value>,
    /// The outputs, in the order asked for.
    pub artifacts: Vec<Artifact>,
    /// Why there are none: one input of several that failed, while others did not.
    pub failure: Option<Arc<Error>>,
}

/// The answer to a request: one outcome per input, in their order.
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

/// Whether `uri` is `s3://BUCKET` or `s3://BUCKET/PREFIX` with a bucket name as S3 allows it (3 to
/// 63 lower-case letters, digits, periods and hyphens) and a prefix that leaves room for names.
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
