//! Builds HTTP responses from outcomes: the JSON report with inline outputs, or a single output.
//!
//! Base64 encoding is CPU-bound; call these functions on a blocking thread.

use axum::body::Body;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Value, json};

use super::status;
use crate::error::{Error, ErrorKind, Result};
use crate::request::{Artifact, InputOutcome, Outcome};

/// Builds the JSON response. Outputs without a URI are inlined as base64 while the whole response
/// stays within `max_inline` bytes. An output that does not fit is marked by the field `omitted`
/// and by a warning in its result.
///
/// # Errors
/// [`ErrorKind::Internal`] if a report cannot be serialized.
pub(super) fn json(outcome: Outcome, max_inline: usize) -> Result<Response> {
    let body = json_text(outcome, max_inline)?;
    Ok(([(CONTENT_TYPE, "application/json")], body).into_response())
}

/// Returns the response text of [`json`] on a single line.
pub(super) fn json_text(outcome: Outcome, max_inline: usize) -> Result<Vec<u8>> {
    let mut results = Vec::with_capacity(outcome.results.len());
    let mut artifacts = Vec::with_capacity(outcome.results.len());
    for InputOutcome { mut report, artifacts: outputs, failure } in outcome.results {
        if let Some(error) = failure {
            status::log_one(&error);
            report.insert("error".to_owned(), status::described(&error));
        }
        results.push((report, outputs.iter().map(describe).collect::<Vec<_>>()));
        artifacts.push(outputs);
    }
    let mut room = max_inline.saturating_sub(text(&json!(results))?.len());
    for ((report, descriptions), artifacts) in results.iter_mut().zip(&artifacts) {
        for (description, artifact) in descriptions.iter_mut().zip(artifacts) {
            if artifact.uri.is_none() && !put(artifact, description, &mut room) {
                warn(report, artifact);
            }
        }
    }
    let results: Vec<Value> = results
        .into_iter()
        .map(|(mut report, outputs)| {
            report.insert("outputs".to_owned(), outputs.into());
            Value::Object(report)
        })
        .collect();
    let mut answer = Map::new();
    answer.insert("requestId".to_owned(), outcome.request_id.into());
    if let Some(id) = outcome.inference_id {
        answer.insert("inferenceId".to_owned(), id.into());
    }
    answer.insert("model".to_owned(), outcome.model.into());
    answer.insert("results".to_owned(), results.into());
    text(&Value::Object(answer))
}

/// Returns the DICOM Segmentation object of the only result.
///
/// # Errors
/// [`ErrorKind::NotAcceptable`] if the model produced no such object, or more than one.
pub(super) fn dicom(outcome: Outcome) -> Result<Response> {
    let artifacts = outcome.results.into_iter().flat_map(|r| r.artifacts);
    let mut objects = artifacts.filter(|artifact| artifact.kind.is_segmentation());
    let Some(object) = objects.next() else {
        return Err(Error::new(
            ErrorKind::NotAcceptable,
            "no DICOM Segmentation object was made; accept application/json",
        ));
    };
    // A segmentation larger than one object may be is split; do not drop the rest silently.
    if objects.next().is_some() {
        return Err(Error::new(
            ErrorKind::NotAcceptable,
            "the segmentation takes several DICOM objects; accept application/json",
        ));
    }
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(object.media_type));
    let disposition = format!("attachment; filename=\"{}\"", object.file_name);
    let plain = object.file_name.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\');
    if plain && let Ok(value) = HeaderValue::from_str(&disposition) {
        headers.insert(CONTENT_DISPOSITION, value);
    }
    Ok((headers, Body::from(object.bytes)).into_response())
}

fn text(value: &Value) -> Result<Vec<u8>> {
    serde_json::to_vec(value)
        .map_err(|e| Error::internal("the answer cannot be written as JSON").caused_by(e))
}

fn describe(artifact: &Artifact) -> Map<String, Value> {
    let mut description = Map::new();
    let mut add = |key: &str, value: Value| description.insert(key.to_owned(), value);
    add("kind", json!(artifact.kind));
    add("mediaType", artifact.media_type.into());
    add("fileName", artifact.file_name.clone().into());
    add("bytes", artifact.size.into());
    add("sha256", artifact.sha256.clone().into());
    if let Some(uri) = &artifact.uri {
        add("uri", uri.clone().into());
    }
    description
}

/// Inlines the bytes of an output into its description if there is `room`.
fn put(artifact: &Artifact, description: &mut Map<String, Value>, room: &mut usize) -> bool {
    /// Length of the framing `,"data":""`.
    const FRAME: usize = 10;
    let encoded = base64::encoded_len(artifact.bytes.len(), true);
    match encoded.and_then(|bytes| room.checked_sub(bytes.saturating_add(FRAME))) {
        Some(left) => {
            *room = left;
            description.insert("data".to_owned(), BASE64.encode(&artifact.bytes).into());
            true
        }
        None => {
            description.insert("omitted".to_owned(), "too large for the answer".into());
            false
        }
    }
}

fn warn(report: &mut Map<String, Value>, artifact: &Artifact) {
    let warning = format!(
        "{} ({} bytes) is not in this answer, which would become too large; set outputS3Uri, or \
         accept application/dicom for a single segmentation",
        artifact.file_name, artifact.size
    );
    tracing::warn!(bytes = artifact.size, "an output does not fit into the answer");
    let warnings = report.entry("warnings").or_insert_with(|| json!([]));
    if let Some(list) = warnings.as_array_mut() {
        list.push(warning.into());
    }
}
