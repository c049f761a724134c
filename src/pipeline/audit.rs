//! Writes the audit log: one event for each input of each request, whether it was segmented or not.
//!
//! The event records who asked (by the request's identifiers), what was read, which network ran, how it
//! ended, and what was created and where it went. It is written at the level `info`, whatever the log
//! level, under the target [`AUDIT`]. It contains only identifiers and digests: an S3 key is often a
//! patient's name, so its SHA-256 is logged instead, and for destinations of outputs, only the bucket
//! and our own file names.
//!
//! If an input has several images, or there are several outputs, a field is a comma-separated list with
//! the same order in all fields; `-` marks a missing value.

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::error::Result;
use crate::registry::Model;
use crate::request::{Artifact, InferenceRequest, Input, InputOutcome};
use crate::source::ImageSource;
use crate::telemetry::AUDIT;

/// Limit on the images listed; a study may have any number.
const MOST_IMAGES: usize = 64;

/// The record of one input, logged on drop.
pub(super) struct Record {
    request_id: String,
    inference_id: Option<String>,
    input: usize,
    kind: &'static str,
    model: Option<String>,
    network_sha256: Option<String>,
    told: Mutex<Told>,
}

#[derive(Default)]
struct Told {
    outcome: Option<&'static str>,
    /// One entry for each image that the request names, or for each series found for it.
    images: Vec<Image>,
    /// UIDs of the segmented series.
    series: Option<String>,
    outputs: Vec<Output>,
}

/// The location of an image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Image {
    datastore_id: Option<String>,
    image_set_id: Option<String>,
    version_id: Option<String>,
    study_instance_uid: Option<String>,
    series_instance_uid: Option<String>,
    bucket: Option<String>,
    key_sha256: Option<String>,
    e_tag: Option<String>,
    body_bytes: Option<String>,
}

struct Output {
    kind: String,
    name: String,
    bytes: usize,
    sha256: String,
    /// `answer` or, after it is stored, `s3://BUCKET` or `file`.
    to: Option<String>,
    /// The archive that has it, and the result of storing it there: `ARCHIVE stored`.
    archived: Option<String>,
}

impl Record {
    /// Creates the record of the input at `index`, which `model` is to segment.
    pub fn of(request: &InferenceRequest, index: usize, model: Option<&Model>) -> Self {
        let input = request.inputs.get(index);
        let told = Told { images: input.map(images).unwrap_or_default(), ..Told::default() };
        Self {
            request_id: request.request_id.clone(),
            inference_id: request.inference_id.clone(),
            input: index,
            kind: input.map_or("none", kind),
            model: model.map(|model| model.name.clone()),
            network_sha256: model.map(|model| model.network.sha256().to_owned()),
            told: Mutex::new(told),
        }
    }

    /// Records the inputs from `first` on, which ended as `outcome` without being read.
    pub fn unread(
        request: &InferenceRequest,
        first: usize,
        model: Option<&Model>,
        outcome: &'static str,
    ) {
        for index in first..request.inputs.len() {
            Self::of(request, index, model).told().outcome = Some(outcome);
        }
    }

    /// Returns a guard that records, on drop, what was read from the places of an input, however
    /// reading ended.
    pub fn reading<'r>(&'r self, places: &'r [Place<'r>]) -> Reading<'r> {
        Reading { record: self, places }
    }

    /// Records the created outputs, as part of the response unless they are to be stored.
    pub fn made(&self, artifacts: &[Artifact], stored: bool) {
        let outputs = artifacts.iter().map(|artifact| Output {
            kind: artifact.kind.name().to_owned(),
            name: artifact.file_name.clone(),
            bytes: artifact.size,
            sha256: artifact.sha256.clone(),
            to: (!stored).then(|| "answer".to_owned()),
            archived: None,
        });
        self.told().outputs.extend(outputs);
    }

    /// Records where the latest outputs were stored, as far as they were.
    pub fn stored(&self, artifacts: &[Artifact]) {
        let mut told = self.told();
        for (output, artifact) in
            latest(&mut told.outputs, artifacts.len()).iter_mut().zip(artifacts)
        {
            output.to = artifact.uri.as_deref().map(place_of);
        }
    }

    /// Records what an archive did with the latest outputs.
    pub fn archived(&self, archived: Vec<Option<String>>) {
        let mut told = self.told();
        for (output, archived) in latest(&mut told.outputs, archived.len()).iter_mut().zip(archived)
        {
            output.archived = archived;
        }
    }

    /// Records how the input ended.
    pub fn ended(&self, result: &Result<Vec<InputOutcome>>) {
        let mut told = self.told();
        match result {
            Ok(outcomes) => {
                told.outcome = Some("ok");
                // Several outcomes are for volumes of one series.
                told.series = outcomes.first().and_then(|outcome| series(&outcome.report));
            }
            Err(e) => told.outcome = Some(e.kind().code()),
        }
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place of an input: its name in the request, and the series there.
pub(super) type Place<'p> = (Option<&'p str>, Vec<Box<dyn ImageSource>>);

/// Records what was read, on drop.
pub(super) struct Reading<'r> {
    record: &'r Record,
    places: &'r [Place<'r>],
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        let mut told = self.record.told();
        let named = std::mem::take(&mut told.images);
        let read = named.into_iter().zip(self.places).flat_map(|(image, (_, sources))| {
            let origins: Vec<_> = sources.iter().filter_map(|source| source.origin()).collect();
            if origins.is_empty() {
                return vec![image];
            }
            origins
                .into_iter()
                .map(|origin| Image {
                    datastore_id: origin.datastore_id.or(image.datastore_id.clone()),
                    image_set_id: origin.image_set_id.or(image.image_set_id.clone()),
                    version_id: origin.version_id.or(image.version_id.clone()),
                    e_tag: origin.e_tag,
                    ..image.clone()
                })
                .collect()
        });
        let mut read: Vec<Image> = read.collect();
        // Series of one S3 object come from the same place.
        read.dedup();
        told.images = read;
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let told = self.told.get_mut().unwrap_or_else(PoisonError::into_inner);
        let Told { outcome, images, series, outputs } = told;
        let count = images.len();
        images.truncate(MOST_IMAGES);
        let image =
            |of: fn(&Image) -> &Option<String>| listed(images.iter().map(|i| of(i).as_deref()));
        let output = |of: &dyn Fn(&Output) -> Option<String>| {
            let texts: Vec<Option<String>> = outputs.iter().map(of).collect();
            listed(texts.iter().map(Option::as_deref))
        };
        tracing::info!(
            target: AUDIT,
            request_id = self.request_id,
            inference_id = self.inference_id,
            input = self.input,
            model = self.model,
            network_sha256 = self.network_sha256,
            kind = self.kind,
            images = count,
            datastore_id = image(|i| &i.datastore_id),
            image_set_id = image(|i| &i.image_set_id),
            version_id = image(|i| &i.version_id),
            bucket = image(|i| &i.bucket),
            key_sha256 = image(|i| &i.key_sha256),
            e_tag = image(|i| &i.e_tag),
            body_bytes = image(|i| &i.body_bytes),
            study_instance_uid = image(|i| &i.study_instance_uid),
            series_instance_uid = series.take().or_else(|| image(|i| &i.series_instance_uid)),
            // Only a panic leaves no outcome.
            outcome = outcome.unwrap_or("internal"),
            output_kind = output(&|o| Some(o.kind.clone())),
            output_name = output(&|o| Some(o.name.clone())),
            output_bytes = output(&|o| Some(o.bytes.to_string())),
            output_sha256 = output(&|o| Some(o.sha256.clone())),
            output_to = output(&|o| o.to.clone()),
            output_archive = output(&|o| o.archived.clone()),
            "audit"
        );
    }
}

/// Returns the last `count` outputs, which were created together.
fn latest(outputs: &mut [Output], count: usize) -> &mut [Output] {
    let before = outputs.len().saturating_sub(count);
    outputs.get_mut(before..).unwrap_or_default()
}

fn listed<'t>(texts: impl Iterator<Item = Option<&'t str>> + Clone) -> Option<String> {
    texts.clone().any(|text| text.is_some()).then(|| {
        let texts: Vec<&str> = texts.map(|text| text.unwrap_or("-")).collect();
        texts.join(",")
    })
}

fn kind(input: &Input) -> &'static str {
    match input {
        Input::ImageSet { .. } => "image_set",
        Input::Study { .. } => "study",
        Input::S3 { .. } => "s3",
        Input::Body(_) => "body",
        Input::Images(_) => "images",
        Input::Volume { of, .. } => kind(of),
    }
}

/// Returns the images of an input, as the request names them.
fn images(input: &Input) -> Vec<Image> {
    vec![match input {
        Input::ImageSet { datastore_id, image_set_id, version_id } => Image {
            datastore_id: plain(datastore_id),
            image_set_id: plain(image_set_id),
            version_id: version_id.as_deref().and_then(plain),
            ..Image::default()
        },
        Input::Study { datastore_id, study_instance_uid, series_instance_uid } => Image {
            datastore_id: plain(datastore_id),
            study_instance_uid: plain(study_instance_uid),
            series_instance_uid: series_instance_uid.as_deref().and_then(plain),
            ..Image::default()
        },
        Input::S3 { uri, series_instance_uid } => {
            let rest = uri.strip_prefix("s3://").unwrap_or(uri);
            let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
            Image {
                bucket: plain(bucket),
                key_sha256: Some(format!("{:x}", Sha256::digest(key))),
                series_instance_uid: series_instance_uid.as_deref().and_then(plain),
                ..Image::default()
            }
        }
        Input::Body(bytes) => {
            Image { body_bytes: Some(bytes.len().to_string()), ..Image::default() }
        }
        Input::Images(several) => {
            return several.iter().flat_map(|(_, image)| images(image)).collect();
        }
        Input::Volume { of, .. } => return images(of),
    }]
}

/// Returns an identifier unchanged. Text that is not an identifier is not logged, whatever it was used
/// as.
fn plain(text: &str) -> Option<String> {
    const LONGEST: usize = 64;
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-');
    let is_identifier = (1..=LONGEST).contains(&text.len()) && text.bytes().all(is_plain);
    Some(if is_identifier { text.to_owned() } else { "malformed".to_owned() })
}

/// Returns the UIDs of the series in a report.
fn series(report: &Map<String, Value>) -> Option<String> {
    let several = report.get("images").and_then(Value::as_object);
    match several {
        Some(images) => listed(images.values().map(Value::as_str)),
        None => report.get("seriesInstanceUID").and_then(Value::as_str).map(str::to_owned),
    }
}

/// Returns the part of a URI that is logged: the bucket, or that it is a file.
fn place_of(uri: &str) -> String {
    match uri.split_once("://") {
        Some(("s3", rest)) => format!("s3://{}", rest.split('/').next().unwrap_or_default()),
        Some((scheme, _)) => scheme.to_owned(),
        None => "file".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_prefixes_are_not_repeated() {
        let s3 = |uri: &str| Input::S3 { uri: uri.to_owned(), series_instance_uid: None };
        let image = images(&s3("s3://bucket/Doe^Jane/ct.zip")).remove(0);
        assert_eq!(image.bucket.as_deref(), Some("bucket"));
        assert_eq!(image.key_sha256, Some(format!("{:x}", Sha256::digest("Doe^Jane/ct.zip"))));
        assert!(!format!("{image:?}").contains("Doe"));
        assert_eq!(place_of("s3://bucket/Doe^Jane/x.dcm"), "s3://bucket");
        assert_eq!(place_of("file:///data/Doe^Jane/x.dcm"), "file");
        let image = images(&s3("s3://Doe^Jane")).remove(0);
        assert_eq!(image.bucket.as_deref(), Some("malformed"));
    }

    #[test]
    fn several_are_listed_in_one_order() {
        let set = |version: Option<&str>| Input::ImageSet {
            datastore_id: "d".repeat(32),
            image_set_id: "i".repeat(32),
            version_id: version.map(str::to_owned),
        };
        let both = Input::Images(vec![(None, set(None)), (Some("T1".to_owned()), set(Some("2")))]);
        let images = images(&both);
        let versions = listed(images.iter().map(|image| image.version_id.as_deref()));
        assert_eq!(versions.as_deref(), Some("-,2"));
        assert_eq!(listed(images.iter().map(|image| image.e_tag.as_deref())), None);
    }
}
