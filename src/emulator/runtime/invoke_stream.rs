//! `InvokeEndpointWithResponseStream`: a real-time request whose response is relayed as it arrives.
//!
//! AWS's operation has no `TargetModel`. The header is passed on anyway, for clients that set it
//! themselves; without it, the model is named in the request or in the custom attributes.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use futures::{Stream, stream};
use tokio::time::Instant;

use super::container::{Begun, Trouble};
use super::event_stream::{self, MEDIA_TYPE};
use super::failure::Failure;
use super::invoke::Call;
use super::{ATTRIBUTES, Runtime, VARIANT, copy};
use crate::error::Result;

/// This operation uses its own header names for the requested and the actual type of the response.
const ACCEPT: HeaderName = HeaderName::from_static("x-amzn-sagemaker-accept");
const ANSWERED: HeaderName = HeaderName::from_static("x-amzn-sagemaker-content-type");

pub(super) async fn invoke(
    State(runtime): State<Arc<Runtime>>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response, Failure> {
    let call = Call::read(&runtime, &name, request, &ACCEPT).await?;
    let deadline = Instant::now() + runtime.limits.stream;
    let begun = call.begin(deadline).await?;
    if begun.status() != StatusCode::OK {
        let answer = begun.whole(deadline, runtime.limits.body).await;
        let answer = answer.map_err(|trouble| Failure::trouble(&trouble))?;
        return Err(Failure::model(&answer));
    }
    let mut response = Response::default();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    copy(begun.headers(), CONTENT_TYPE.as_str(), headers, ANSWERED);
    copy(begun.headers(), ATTRIBUTES, headers, HeaderName::from_static(ATTRIBUTES));
    headers.insert(HeaderName::from_static(VARIANT), HeaderValue::from_static("AllTraffic"));
    *response.body_mut() = Body::from_stream(relayed(begun, deadline));
    Ok(response)
}

/// Relays a response in event-stream framing. Dropping the stream ends the request to the server.
fn relayed(begun: Begun, deadline: Instant) -> impl Stream<Item = Result<bytes::Bytes>> {
    stream::unfold(Some(begun), move |begun| async move {
        let mut begun = begun?;
        match begun.next(deadline).await {
            Ok(None) => None,
            Ok(Some(bytes)) => Some((event_stream::payload(&bytes), Some(begun))),
            Err(trouble) => {
                let (code, message) = model_stream_error(&trouble);
                tracing::warn!(code, message, "a stream ended before its end");
                Some((event_stream::model_stream_error(code, &message), None))
            }
        }
    })
}

/// Returns the code and message for a stream that was cut short.
fn model_stream_error(trouble: &Trouble) -> (&'static str, String) {
    match trouble {
        Trouble::Late => (
            "ModelInvocationTimeExceeded",
            "the model did not finish its answer in the time that there is for a stream; asynchronous \
             endpoints wait longer"
                .to_owned(),
        ),
        Trouble::Unreachable(problem) => {
            ("StreamBroken", format!("the connection to the model broke: {problem}"))
        }
        Trouble::TooLarge(limit) => {
            ("StreamBroken", format!("the answer is larger than {limit} bytes"))
        }
    }
}
