//! A finished request as an answer.

use axum::Json;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::accept::AnswerForm;
use crate::error::{Error, ErrorKind, Result};
use crate::request::{Artifact, Outcome, OutputKind};

/// Largest answer in bytes: SageMaker's real-time path refuses more than 6 MiB (6,291,456).
const MOST_BYTES: usize = 6 * 1024 * 1024 - 256 * 1024;

/// The answer in the form that was negotiated.
pub fn answer(outcome: Outcome, form: AnswerForm) -> Result<Response> {
    match form {
        AnswerForm::Json => json_answer(outcome),
        AnswerForm::Dicom => dicom_answer(outcome),
    }
}

/// The one DICOM SEG itself.
fn dicom_answer(outcome: Outcome) -> Result<Response> {
    let segs: Vec<&Artifact> = outcome
        .results
        .iter()
        .flat_map(|r| &r.artifacts)
        .filter(|a| a.kind == OutputKind::DicomSeg)
        .collect();
    let [seg] = segs[..] else {
        return Err(Error::new(
            ErrorKind::NotAcceptable,
            format!(
                "application/dicom is one object, the request makes {}; ask for application/json",
                segs.len()
            ),
        ));
    };
    let name = seg.file_name.rsplit('/').next().unwrap_or_default();
    let mut response = seg.bytes.clone().into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/dicom"));
    if let Ok(value) = HeaderValue::from_str(&format!("attachment; filename=\"{name}\"")) {
        headers.insert(header::CONTENT_DISPOSITION, value);
    }
    Ok(response)
}

fn json_answer(outcome: Outcome) -> Result<Response> {
    let inline: usize = outcome
        .results
        .iter()
        .flat_map(|r| &r.artifacts)
        .filter(|a| a.uri.is_none())
        .map(|a| a.bytes.len().div_ceil(3) * 4)
        .sum();
    if inline > MOST_BYTES {
        return Err(Error::new(
            ErrorKind::PayloadTooLarge,
            format!(
                "the outputs are {inline} bytes in base64, more than an answer holds \
                 ({MOST_BYTES}); set outputS3Uri in the request or OUTPUT_S3_URI for the server, \
                 or ask for application/dicom"
            ),
        ));
    }
    let mut body = Map::new();
    body.insert("requestId".to_owned(), json!(outcome.request_id));
    if let Some(id) = outcome.inference_id {
        body.insert("inferenceId".to_owned(), json!(id));
    }
    body.insert("model".to_owned(), json!(outcome.model));
    let results: Vec<Value> = outcome
        .results
        .into_iter()
        .map(|result| {
            let mut report = result.report;
            let outputs = result.artifacts.iter().map(output).collect();
            report.insert("outputs".to_owned(), outputs);
            Value::Object(report)
        })
        .collect();
    body.insert("results".to_owned(), Value::from(results));
    Ok(Json(Value::Object(body)).into_response())
}

/// One output: where it is, or its bytes.
fn output(artifact: &Artifact) -> Value {
    let digest = Sha256::digest(&artifact.bytes);
    let sha256: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut map = Map::new();
    map.insert("kind".to_owned(), json!(artifact.kind));
    map.insert("mediaType".to_owned(), json!(artifact.media_type));
    map.insert("fileName".to_owned(), json!(artifact.file_name));
    map.insert("bytes".to_owned(), json!(artifact.bytes.len()));
    map.insert("sha256".to_owned(), json!(sha256));
    match &artifact.uri {
        Some(uri) => map.insert("uri".to_owned(), json!(uri)),
        None => map.insert("data".to_owned(), json!(STANDARD.encode(&artifact.bytes))),
    };
    Value::Object(map)
}
