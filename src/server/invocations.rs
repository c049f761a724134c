//! `POST /invocations`: a request read, run and answered.

use axum::body::{Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use tracing::Instrument;

use super::accept::{AnswerForm, negotiate};
use super::answer::answer;
use super::failure::failure;
use super::{App, ReadyState, parse};
use crate::error::{Error, ErrorKind, Result};
use crate::request::{InferenceRequest, OutputKind};

const INFERENCE_ID: &str = "x-amzn-sagemaker-inference-id";
const TARGET_MODEL: &str = "x-amzn-sagemaker-target-model";
const CUSTOM_ATTRIBUTES: &str = "x-amzn-sagemaker-custom-attributes";

/// The handler. Every answer carries the request's identifier in `x-request-id`.
pub async fn invocations(State(app): State<App>, request: Request) -> Response {
    let request_id = uuid::Uuid::new_v4().to_string();
    let inference_id = header_text(request.headers(), INFERENCE_ID).map(str::to_owned);
    let span = tracing::info_span!("request", request_id, inference_id = inference_id.as_deref());
    let mut response = handle(&app, request, &request_id, inference_id)
        .instrument(span.clone())
        .await
        .unwrap_or_else(|error| {
            span.in_scope(|| log_failure(&error));
            failure(&error, Some(&request_id))
        });
    if let Ok(value) = HeaderValue::from_str(&request_id) {
        response.headers_mut().insert("x-request-id", value);
    }
    response
}

fn log_failure(error: &Error) {
    let source = std::error::Error::source(error).map(ToString::to_string);
    let code = error.kind().code();
    if super::status_of(error.kind()).is_server_error() {
        tracing::error!(code, error = %error, source, "request failed");
    } else {
        tracing::warn!(code, error = %error, source, "request refused");
    }
}

async fn handle(
    app: &App,
    request: Request,
    request_id: &str,
    inference_id: Option<String>,
) -> Result<Response> {
    match app.readiness.get() {
        ReadyState::Draining => {
            return Err(Error::new(ErrorKind::Unavailable, "the server is stopping"));
        }
        ReadyState::Starting => {
            return Err(Error::new(ErrorKind::Unavailable, "models are still being loaded"));
        }
        // A failed model's own error says more than a refusal here would.
        ReadyState::Ready | ReadyState::Failed => {}
    }
    let headers = request.headers().clone();
    let form = negotiate(header_text(&headers, header::ACCEPT.as_str()))?;
    check_content_type(&headers)?;
    if inference_id.as_ref().is_some_and(|id| id.chars().count() > 64) {
        return Err(Error::new(
            ErrorKind::InvalidRequest,
            "X-Amzn-SageMaker-Inference-Id has more than 64 characters",
        ));
    }
    let bytes = read_body(request, app.max_body).await?;
    let body = parse::parse(&bytes)?;
    let model = choose_model(&headers, body.model)?;
    let mut outputs = body.outputs;
    if form == AnswerForm::Dicom {
        if body.inputs.len() > 1 {
            return Err(Error::new(
                ErrorKind::NotAcceptable,
                format!(
                    "application/dicom is one object, the request has {} inputs; ask for \
                     application/json",
                    body.inputs.len()
                ),
            ));
        }
        outputs = vec![OutputKind::DicomSeg];
    }
    let request = InferenceRequest {
        request_id: request_id.to_owned(),
        inference_id,
        inputs: body.inputs,
        model,
        outputs,
        output_uri: body.output_uri,
    };
    let started = std::time::Instant::now();
    let outcome = app.scheduler.run(request).await?;
    tracing::info!(
        model = outcome.model,
        seconds = started.elapsed().as_secs_f64(),
        "request finished"
    );
    answer(outcome, form)
}

/// The body, or [`ErrorKind::PayloadTooLarge`] before more than `limit` bytes are held.
async fn read_body(request: Request, limit: usize) -> Result<Bytes> {
    let announced = header_text(request.headers(), header::CONTENT_LENGTH.as_str())
        .and_then(|t| t.parse::<u64>().ok());
    let too_large = || {
        Error::new(
            ErrorKind::PayloadTooLarge,
            format!("the body is larger than {limit} bytes; --max-body sets the limit"),
        )
    };
    if announced.is_some_and(|n| n > limit as u64) {
        return Err(too_large());
    }
    to_bytes(request.into_body(), limit).await.map_err(|e| {
        let is_limit = std::error::Error::source(&e)
            .is_some_and(|s| s.to_string().contains("length limit exceeded"));
        if is_limit {
            too_large()
        } else {
            Error::new(ErrorKind::InvalidRequest, "the body could not be read to its end")
                .caused_by(e)
        }
    })
}

fn header_text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// JSON, or nothing said.
fn check_content_type(headers: &HeaderMap) -> Result<()> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return Ok(()) };
    let text = value.to_str().unwrap_or_default();
    let essence = text.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::UnsupportedMediaType,
        format!("Content-Type {essence:?} is not read here; send application/json"),
    ))
}

/// The model named in a header or the body; they may not contradict each other.
fn choose_model(headers: &HeaderMap, body: Option<String>) -> Result<Option<String>> {
    let target = header_text(headers, TARGET_MODEL).map(str::to_owned);
    let custom = header_text(headers, CUSTOM_ATTRIBUTES).and_then(|attributes| {
        attributes
            .split([',', ';'])
            .filter_map(|pair| pair.split_once('='))
            .find(|(name, _)| name.trim() == "model")
            .map(|(_, value)| value.trim().to_owned())
    });
    let mut chosen: Option<String> = None;
    for name in [target, custom, body].into_iter().flatten() {
        let plain = name.strip_suffix(".tar.gz").unwrap_or(&name).to_owned();
        match &chosen {
            Some(other) if *other != plain => {
                return Err(Error::new(
                    ErrorKind::InvalidRequest,
                    format!("the request names two models, {other:?} and {plain:?}; name one"),
                ));
            }
            _ => chosen = Some(plain),
        }
    }
    Ok(chosen)
}
