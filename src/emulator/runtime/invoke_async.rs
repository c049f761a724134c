//! `InvokeEndpointAsync`: a request whose response is written to S3.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::{Bytes, to_bytes};
use axum::extract::{Path, Request, State};
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::super::objects::Location;
use super::failure::Failure;
use super::queue::{Input, Invocation, Queue};
use super::{ATTRIBUTES, INFERENCE_ID, Kind, Runtime, TARGET_MODEL, check_lengths, copy, text};
use crate::error::{Error, Result};

/// Maximum size of an inline request in bytes.
const LARGEST_INLINE: usize = 128_000;

const INPUT: &str = "x-amzn-sagemaker-inputlocation";
const TIME_TO_LIVE: &str = "x-amzn-sagemaker-requestttlseconds";
const TIMEOUT: &str = "x-amzn-sagemaker-invocationtimeoutseconds";

/// Parameters that the local runtime does not support.
const NOT_HERE: [&str; 2] = ["x-amzn-sagemaker-s3outputpathextension", "x-amzn-sagemaker-filename"];

pub(super) async fn invoke(
    State(runtime): State<Arc<Runtime>>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response, Failure> {
    let Kind::Asynchronous(queue) = &runtime.endpoint(&name)?.kind else {
        return Err(Failure::validation(format!(
            "endpoint {name} is called in real time: call InvokeEndpoint"
        )));
    };
    let (parts, body) = request.into_parts();
    check_lengths(&parts.headers)?;
    let headers = &parts.headers;
    if let Some(header) = NOT_HERE.iter().find(|name| headers.contains_key(**name)) {
        return Err(Failure::validation(format!("the local runtime does not take {header}")));
    }
    if headers.contains_key(TARGET_MODEL) {
        let problem = "asynchronous endpoints take no TargetModel: name the model in the request";
        return Err(Failure::validation(problem));
    }
    let inline = to_bytes(body, LARGEST_INLINE).await.map_err(|_| {
        Failure::validation(format!("the body has more than {LARGEST_INLINE} bytes"))
    })?;
    let input = input(text(headers, INPUT), inline)?;
    accept(queue, headers, input)
}

fn accept(queue: &Arc<Queue>, headers: &HeaderMap, input: Input) -> Result<Response, Failure> {
    let inference_id =
        text(headers, INFERENCE_ID).map_or_else(|| uuid::Uuid::new_v4().to_string(), str::to_owned);
    let accepted = queue.accept(Invocation {
        input,
        headers: passed_on(headers, &inference_id)?,
        time_to_live: seconds(headers, TIME_TO_LIVE, 60, 21_600, 21_600)?,
        timeout: seconds(headers, TIMEOUT, 1, 3_600, 900)?,
    })?;
    let body = Json(json!({"InferenceId": inference_id}));
    let mut response = (StatusCode::ACCEPTED, body).into_response();
    let mut place = |name: &'static str, location: &Location| -> Result<(), Failure> {
        let value = value_of(&location.to_string())?;
        response.headers_mut().insert(HeaderName::from_static(name), value);
        Ok(())
    };
    place("x-amzn-sagemaker-outputlocation", &accepted.output)?;
    if let Some(failure) = &accepted.failure {
        place("x-amzn-sagemaker-failurelocation", failure)?;
    }
    Ok(response)
}

/// Returns the input, which is given either inline or by location.
fn input(location: Option<&str>, inline: Bytes) -> Result<Input, Failure> {
    match (location, inline.is_empty()) {
        (Some(uri), true) => {
            let location = Location::parse(uri);
            let location = location
                .map_err(|e| Failure::validation(format!("InputLocation: {}", e.message())))?;
            Ok(Input::Object(location))
        }
        (None, false) => Ok(Input::Inline(inline)),
        (Some(_), false) => Err(Failure::validation("InputLocation and Body exclude each other")),
        (None, true) => Err(Failure::validation("InputLocation is missing")),
    }
}

/// Returns the headers passed to the server; this call uses its own names for the types of body and
/// response.
fn passed_on(headers: &HeaderMap, inference_id: &str) -> Result<HeaderMap, Failure> {
    let mut passed = HeaderMap::new();
    copy(headers, "x-amzn-sagemaker-content-type", &mut passed, CONTENT_TYPE);
    copy(headers, "x-amzn-sagemaker-accept", &mut passed, ACCEPT);
    copy(headers, ATTRIBUTES, &mut passed, HeaderName::from_static(ATTRIBUTES));
    passed.insert(HeaderName::from_static(INFERENCE_ID), value_of(inference_id)?);
    Ok(passed)
}

fn value_of(text: &str) -> Result<HeaderValue, Failure> {
    HeaderValue::from_str(text)
        .map_err(|e| Failure::internal(&Error::internal("a header's value").caused_by(e)))
}

/// Parses a number of seconds in a header.
fn seconds(
    headers: &HeaderMap,
    name: &'static str,
    low: u64,
    high: u64,
    default: u64,
) -> Result<Duration, Failure> {
    let Some(value) = headers.get(name) else { return Ok(Duration::from_secs(default)) };
    let number = value.to_str().ok().and_then(|text| text.parse::<u64>().ok());
    match number {
        Some(number) if (low..=high).contains(&number) => Ok(Duration::from_secs(number)),
        _ => Err(Failure::validation(format!("{name} must be {low} to {high}"))),
    }
}
