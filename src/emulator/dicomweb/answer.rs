//! Responses, and the media types a client accepts.

use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde_json::Value;

use super::DICOM_JSON;
use crate::dicom::media_type::MediaType;
use crate::dicom::multipart::{Writer, content_type, new_boundary};
use crate::emulator::failure::Failure;
use crate::error::{Error, Result};

/// Returns the media ranges of all `Accept` headers without malformed ones; empty if there is no
/// header.
pub(super) fn accepted(headers: &HeaderMap) -> Vec<MediaType> {
    let values = headers.get_all(header::ACCEPT).iter();
    values.filter_map(|value| value.to_str().ok()).flat_map(MediaType::parse_list).collect()
}

/// Checks that the client accepts DICOM JSON.
///
/// # Errors
/// `NotAcceptableException` if it does not.
pub(super) fn check_json(headers: &HeaderMap) -> Result<(), Failure> {
    let ranges = accepted(headers);
    let json = |range: &MediaType| range.takes(DICOM_JSON) || range.takes("application/json");
    if ranges.is_empty() || ranges.iter().any(json) {
        return Ok(());
    }
    Err(Failure::not_acceptable(format!("the answer is {DICOM_JSON}, which Accept excludes")))
}

/// Builds a DICOM JSON response.
pub(super) fn dicom_json(value: &Value) -> Response {
    ([(header::CONTENT_TYPE, DICOM_JSON)], value.to_string()).into_response()
}

/// Builds a `multipart/related` response of `media_type`; each part has the content type `kind`.
pub(super) fn multipart_related(media_type: &str, kind: &str, parts: &[Bytes]) -> Result<Response> {
    let boundary = new_boundary();
    let write = || -> std::io::Result<Vec<u8>> {
        let mut writer = Writer::new(Vec::new(), &boundary);
        for part in parts {
            writer.part(kind)?.extend_from_slice(part);
        }
        writer.finish()
    };
    let body = write().map_err(|e| Error::internal("an answer cannot be written").caused_by(e))?;
    Ok(([(header::CONTENT_TYPE, content_type(media_type, &boundary))], body).into_response())
}
