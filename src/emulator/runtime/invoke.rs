//! `InvokeEndpoint`: a real-time request.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use tokio::time::Instant;

use super::container::{Answer, Begun, Message};
use super::failure::Failure;
use super::{
    ATTRIBUTES, Endpoint, INFERENCE_ID, Kind, Runtime, TARGET_MODEL, VARIANT, check_lengths, copy,
    text,
};

/// Headers of features that the local runtime does not support.
const NOT_HERE: [&str; 6] = [
    "x-amzn-sagemaker-target-variant",
    "x-amzn-sagemaker-target-container-hostname",
    "x-amzn-sagemaker-inference-component",
    "x-amzn-sagemaker-enable-explanations",
    "x-amzn-sagemaker-session-id",
    "x-amzn-sagemaker-prefix-aware-id",
];

/// How much of an oversized body is read and discarded, as a multiple of the limit: a client still
/// sending when the connection closes often never sees the response.
const PATIENCE: usize = 3;

/// Response size limit of endpoints in older accounts, in bytes.
const OLDER_LIMIT: usize = 6 << 20;

pub(super) async fn invoke(
    State(runtime): State<Arc<Runtime>>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response, Failure> {
    let call = Call::read(&runtime, &name, request, &ACCEPT).await?;
    let deadline = Instant::now() + runtime.limits.invocation;
    let begun = call.begin(deadline).await?;
    let answer = begun.whole(deadline, runtime.limits.body).await;
    finish(&name, answer.map_err(|trouble| Failure::trouble(&trouble))?)
}

/// A validated real-time call.
pub(super) struct Call<'a> {
    endpoint: &'a Endpoint,
    name: &'a str,
    target: Option<String>,
    headers: HeaderMap,
    body: Bytes,
}

impl<'a> Call<'a> {
    /// Parses and validates a call of the endpoint `name`. The header `accept` holds the requested
    /// type of the response.
    pub async fn read(
        runtime: &'a Runtime,
        name: &'a str,
        request: Request,
        accept: &HeaderName,
    ) -> Result<Self, Failure> {
        let endpoint = runtime.endpoint(name)?;
        let (parts, body) = request.into_parts();
        check_lengths(&parts.headers)?;
        if let Some(header) = NOT_HERE.iter().find(|name| parts.headers.contains_key(**name)) {
            return Err(Failure::validation(format!("the local runtime does not take {header}")));
        }
        let body = read(&parts.headers, body, runtime.limits.body).await?;
        let headers = passed_on(&parts.headers, accept);
        let target = text(&parts.headers, TARGET_MODEL).map(str::to_owned);
        Ok(Self { endpoint, name, target, headers, body })
    }

    /// Sends the call to the server and waits until `deadline` for the headers of the response.
    pub async fn begin(self, deadline: Instant) -> Result<Begun, Failure> {
        let Self { endpoint, name, target, headers, body } = self;
        match &endpoint.kind {
            Kind::Asynchronous(_) => Err(Failure::validation(format!(
                "endpoint {name} is asynchronous: call InvokeEndpointAsync"
            ))),
            Kind::MultiModel(models) => {
                let target = target.ok_or_else(|| {
                    Failure::validation(format!(
                        "endpoint {name} has many models: name a TargetModel"
                    ))
                })?;
                models.begin(&target, headers, body, deadline).await
            }
            Kind::RealTime => {
                let path = "/invocations".to_owned();
                let message = Message { method: Method::POST, path, headers, body };
                let begun = endpoint.container.begin(message, deadline).await;
                begun.map_err(|trouble| Failure::trouble(&trouble))
            }
        }
    }
}

/// Returns the headers passed to the server: the types of body and response, and the caller's own.
fn passed_on(headers: &HeaderMap, accept: &HeaderName) -> HeaderMap {
    let mut passed = HeaderMap::new();
    copy(headers, CONTENT_TYPE.as_str(), &mut passed, CONTENT_TYPE);
    copy(headers, accept.as_str(), &mut passed, ACCEPT);
    for name in [ATTRIBUTES, TARGET_MODEL, INFERENCE_ID] {
        copy(headers, name, &mut passed, HeaderName::from_static(name));
    }
    passed
}

/// Reads a body of at most `limit` bytes.
async fn read(headers: &HeaderMap, body: Body, limit: usize) -> Result<Bytes, Failure> {
    let stated = headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
    let mut kept = BytesMut::with_capacity(stated.unwrap_or(0).min(limit));
    let mut read = 0_usize;
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| Failure::validation("the body did not arrive whole"))?;
        read = read.saturating_add(chunk.len());
        if read <= limit {
            kept.extend_from_slice(&chunk);
        } else if read > limit.saturating_mul(PATIENCE) {
            break;
        }
    }
    if read > limit {
        return Err(Failure::too_large(limit));
    }
    Ok(kept.freeze())
}

fn finish(name: &str, answer: Answer) -> Result<Response, Failure> {
    if answer.status != StatusCode::OK {
        return Err(Failure::model(&answer));
    }
    if answer.body.len() > OLDER_LIMIT {
        tracing::warn!(
            endpoint = name,
            bytes = answer.body.len(),
            "the answer is larger than the 6 MB that SageMaker's older limit allows"
        );
    }
    let mut response = Response::new(Body::from(answer.body));
    let headers = response.headers_mut();
    copy(&answer.headers, CONTENT_TYPE.as_str(), headers, CONTENT_TYPE);
    copy(&answer.headers, ATTRIBUTES, headers, HeaderName::from_static(ATTRIBUTES));
    headers.insert(HeaderName::from_static(VARIANT), HeaderValue::from_static("AllTraffic"));
    Ok(response)
}
