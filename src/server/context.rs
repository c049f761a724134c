//! The context of every request: its identifiers, its log lines, and the handling of panics.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use axum::body::{Body, HttpBody};
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::Response;
use futures::{FutureExt, StreamExt};
use tracing::{Instrument, Level, Span};

use super::custom_attributes::{CUSTOM_ATTRIBUTES, values_of};
use super::status::{self, ErrorCode};
use crate::error::{Error, ErrorKind, Result};
use crate::telemetry::Metrics;
use crate::traces::{Span as TraceSpan, Trace};

/// The caller's identifier of a request.
pub(super) const INFERENCE_ID: HeaderName =
    HeaderName::from_static("x-amzn-sagemaker-inference-id");

/// The server's identifier of a request.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Maximum length of an inference identifier on the platform.
const LONGEST_INFERENCE_ID: usize = 64;

/// How a streamed response ended. The producer sets it, in an extension of the response; logging
/// and metrics read it.
#[derive(Debug, Clone, Default)]
pub(super) struct Ended(Arc<OnceLock<Option<ErrorKind>>>);

impl Ended {
    /// Records that the response is complete.
    pub fn well(&self) {
        // The first call wins.
        let _ = self.0.set(None);
    }

    /// Records that the response ended with an error.
    pub fn badly(&self, kind: ErrorKind) {
        let _ = self.0.set(Some(kind));
    }

    /// Returns the status and code to report; those of a cancelled request if no end was recorded.
    pub fn status(&self) -> (u16, &'static str) {
        let of = |kind: ErrorKind| (status::status(kind).as_u16(), kind.code());
        match self.0.get() {
            Some(None) => (200, "ok"),
            Some(Some(kind)) => of(*kind),
            None => of(ErrorKind::Cancelled),
        }
    }
}

/// The identifiers of a request.
#[derive(Debug, Clone)]
pub(super) struct Context {
    /// The server's identifier, unique per request.
    pub request_id: String,
    /// The caller's identifier; `None` if missing or malformed.
    pub inference_id: Option<String>,
    /// Its place in its trace; empty for probes, and if traces are off.
    pub trace: Trace,
}

/// Returns the caller's identifier of a request: at most 64 visible ASCII characters.
///
/// # Errors
/// [`ErrorKind::InvalidRequest`] if it is malformed or repeated.
pub(super) fn inference_id(headers: &HeaderMap) -> Result<Option<String>> {
    let mut values = headers.get_all(INFERENCE_ID).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let usable = |text: &&str| {
        (1..=LONGEST_INFERENCE_ID).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_graphic())
    };
    match (value.to_str().ok().filter(usable), values.next()) {
        (Some(text), None) => Ok(Some(text.to_owned())),
        _ => Err(Error::new(
            ErrorKind::InvalidRequest,
            format!(
                "the header {INFERENCE_ID} must be there once, with 1 to {LONGEST_INFERENCE_ID} \
                 visible ASCII characters"
            ),
        )),
    }
}

/// Assigns the identifiers, runs the request in a span that carries them, turns a panic into an
/// error response, and logs and counts the request.
pub(super) async fn around(
    State(metrics): State<Arc<Metrics>>,
    request: Request,
    next: Next,
) -> Response {
    let mut request = count_received(request, &metrics);
    let route = request.extensions().get::<MatchedPath>().cloned();
    let method = known(request.method());
    let traced = begin_trace(request.headers(), method, route.as_ref());
    let context = Context {
        request_id: uuid::Uuid::new_v4().to_string(),
        inference_id: inference_id(request.headers()).ok().flatten(),
        trace: traced.trace(),
    };
    let span = span(&context);
    identify_trace(&traced, &context);
    request.extensions_mut().insert(context.clone());

    async move {
        let started = Instant::now();
        let answer = AssertUnwindSafe(next.run(request)).catch_unwind().await;
        let mut response = answer.unwrap_or_else(|_| {
            status::respond(&Error::internal("the handler panicked"), &context.request_id)
        });
        identify(response.headers_mut(), &context);
        let ended = response.extensions_mut().remove::<Ended>();
        let traced = Some(traced);
        let mut entry = Entry { route, method, started, metrics: Arc::clone(&metrics), traced };
        match ended {
            Some(ended) => {
                let last = Last { entry, ended, span: Span::current() };
                count_sent(response, &metrics, Some(last))
            }
            None => {
                let code = response.extensions().get::<ErrorCode>().map_or("ok", |c| c.0);
                entry.note(response.status().as_u16(), code);
                count_sent(response, &metrics, None)
            }
        }
    }
    .instrument(span)
    .await
}

/// Returns the method, with non-standard ones mapped to `other`.
fn known(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        Method::PATCH => "PATCH",
        _ => "other",
    }
}

/// Counts the bytes of a request body as they are read.
fn count_received(request: Request, metrics: &Arc<Metrics>) -> Request {
    if request.body().is_end_stream() {
        return request;
    }
    let metrics = Arc::clone(metrics);
    request.map(|body| {
        let chunks = body.into_data_stream();
        Body::from_stream(chunks.inspect(move |chunk| {
            metrics.received(chunk.as_ref().map_or(0, |bytes| bytes.len() as u64));
        }))
    })
}

/// Counts the bytes of a response body: immediately if the size is known, otherwise as they are
/// sent. `last` is dropped with the body.
fn count_sent(response: Response, metrics: &Arc<Metrics>, last: Option<Last>) -> Response {
    if let Some(bytes) = response.body().size_hint().exact() {
        metrics.sent(bytes);
        return response;
    }
    let metrics = Arc::clone(metrics);
    response.map(|body| {
        let chunks = body.into_data_stream();
        Body::from_stream(chunks.inspect(move |chunk| {
            let _until_the_end = &last;
            metrics.sent(chunk.as_ref().map_or(0, |bytes| bytes.len() as u64));
        }))
    })
}

/// What is logged and counted per request.
struct Entry {
    /// The matched route, never the raw path: the path of an unknown route may contain anything.
    route: Option<MatchedPath>,
    method: &'static str,
    started: Instant,
    metrics: Arc<Metrics>,
    /// Ended with the first note.
    traced: Option<TraceSpan>,
}

impl Entry {
    fn note(&mut self, status: u16, code: &'static str) {
        let Self { method, started, .. } = *self;
        let route = self.route.as_ref().map_or("unknown", MatchedPath::as_str);
        let seconds = started.elapsed().as_secs_f64();
        log(method, route, status, code, seconds);
        self.metrics.answered(route, method, status, seconds);
        if let Some(span) = self.traced.take() {
            span.set("http.response.status_code", i64::from(status));
            match status {
                500.. => span.end(Err(code)),
                // The caller's error, not one of the server: OpenTelemetry's conventions leave the status unset.
                400.. => span.end_refused(code),
                _ => span.end(Ok(())),
            }
        }
    }
}

/// Logs and counts a request when its response body is dropped.
struct Last {
    entry: Entry,
    ended: Ended,
    span: Span,
}

impl Drop for Last {
    fn drop(&mut self) {
        let (status, code) = self.ended.status();
        self.span.in_scope(|| self.entry.note(status, code));
    }
}

fn span(context: &Context) -> Span {
    let (request_id, inference_id) = (&*context.request_id, context.inference_id.as_deref());
    let trace_id = context.trace.id();
    tracing::error_span!("request", request_id, inference_id, trace_id)
}

/// Begins the span of a request, below its caller's. Probes have none.
fn begin_trace(headers: &HeaderMap, method: &str, route: Option<&MatchedPath>) -> TraceSpan {
    let path = route.map_or("unknown", MatchedPath::as_str);
    if is_probe(path) {
        return Trace::default().serve(method.to_owned());
    }
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    // SageMaker does not relay `traceparent` itself.
    let relayed = header(CUSTOM_ATTRIBUTES.as_str())
        .and_then(|attributes| values_of(attributes, "traceparent").next());
    let caller = Trace::of_caller(header("traceparent").or(relayed), header("tracestate"));
    let span = caller.serve(format!("{method} {path}"));
    span.set("http.request.method", method.to_owned());
    span.set("http.route", path.to_owned());
    span
}

fn identify_trace(traced: &TraceSpan, context: &Context) {
    traced.set("request_id", context.request_id.clone());
    if let Some(id) = &context.inference_id {
        traced.set("inference_id", id.clone());
    }
}

/// Whether it is asked for every few seconds.
fn is_probe(route: &str) -> bool {
    route == super::PING || route == super::METRICS
}

fn identify(headers: &mut HeaderMap, context: &Context) {
    let mut set = |name, text: &str| {
        if let Ok(value) = HeaderValue::from_str(text) {
            headers.insert(name, value);
        }
    };
    set(REQUEST_ID, &context.request_id);
    if let Some(id) = &context.inference_id {
        set(INFERENCE_ID, id);
    }
}

fn log(method: &str, route: &str, status: u16, code: &str, seconds: f64) {
    // Probes arrive every few seconds, so they are logged at debug level only.
    let probe = is_probe(route);
    if probe && tracing::enabled!(Level::DEBUG) {
        tracing::debug!(method, route, status, seconds, "answered");
    } else if !probe {
        tracing::info!(method, route, status, code, seconds, "answered");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inference_ids_are_short_visible_and_single() {
        let read = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(INFERENCE_ID, HeaderValue::from_bytes(value.as_bytes()).unwrap());
            }
            inference_id(&headers)
        };
        assert_eq!(read(&[]).unwrap(), None);
        assert_eq!(read(&["study-7"]).unwrap().as_deref(), Some("study-7"));
        for bad in [&[""][..], &["a b"], &["é"], &["a", "b"], &[&"x".repeat(65)]] {
            assert_eq!(read(bad).unwrap_err().kind(), ErrorKind::InvalidRequest, "{bad:?}");
        }
    }

    #[tokio::test]
    async fn a_panic_in_a_handler_is_an_answer_with_its_identifier() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};

        let defect = async || -> &'static str { panic!("a defect") };
        let router = axum::Router::new()
            .route("/", axum::routing::get(defect))
            .layer(axum::middleware::from_fn_with_state(Arc::new(Metrics::new()), around));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut stream =
            tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        tokio::spawn(axum::serve(listener, router).into_future());
        let request = b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 500 "), "{answer}");
        assert!(answer.contains("x-request-id: ") && answer.contains("\"internal\""), "{answer}");
        assert!(!answer.contains("a defect"), "{answer}");
    }
}
