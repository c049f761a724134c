//! Traces: one OpenTelemetry span for each request, input and stage, exported as OTLP.
//!
//! Off unless [`export`] was called: then no span is recorded and [`Trace`] is empty. Spans have explicit parents
//! and are no part of the log's spans, so log lines keep the identifiers of their request. Attributes are
//! identifiers, names and codes, never attributes of a patient.

mod client;
mod export;

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::OnceLock;

use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{SpanKind, Status, TraceContextExt, Tracer};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracer;

pub use export::{Exporting, export};
/// The value of an attribute.
pub use opentelemetry::Value as Attribute;

/// The process's tracer, set by [`export`].
static TRACER: OnceLock<SdkTracer> = OnceLock::new();

/// Returns a count as an attribute, which is signed.
pub fn count(value: impl TryInto<i64>) -> Attribute {
    value.try_into().unwrap_or(i64::MAX).into()
}

/// OpenTelemetry's attribute for what went wrong.
const ERROR_TYPE: &str = "error.type";

/// The parent of new spans. Cheap to clone; empty if traces are off.
#[derive(Clone, Default)]
pub struct Trace(Option<Context>);

impl Trace {
    /// Reads the caller's span from its headers `traceparent` and `tracestate` (W3C Trace Context). If they are
    /// missing or malformed, a new trace starts.
    pub fn of_caller(traceparent: Option<&str>, tracestate: Option<&str>) -> Self {
        if TRACER.get().is_none() {
            return Self(None);
        }
        let headers = [("traceparent", traceparent), ("tracestate", tracestate)];
        let carrier: HashMap<String, String> = headers
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())))
            .collect();
        // Not the thread's current context, which may belong to another request.
        let propagator = TraceContextPropagator::new();
        Self(Some(propagator.extract_with_context(&Context::new(), &carrier)))
    }

    /// Begins the span of a request.
    pub fn serve(&self, name: impl Into<Cow<'static, str>>) -> Span {
        self.start(name.into(), SpanKind::Server)
    }

    /// Begins the span of a step of the work.
    pub fn begin(&self, name: impl Into<Cow<'static, str>>) -> Span {
        self.start(name.into(), SpanKind::Internal)
    }

    fn start(&self, name: Cow<'static, str>, kind: SpanKind) -> Span {
        let started = self.0.as_ref().zip(TRACER.get()).map(|(parent, tracer)| {
            let builder = tracer.span_builder(name).with_kind(kind);
            parent.with_span(tracer.build_with_context(builder, parent))
        });
        Span { context: started, ended: false }
    }

    /// Returns the trace's identifier, 32 hexadecimal digits.
    pub fn id(&self) -> Option<String> {
        let span = self.0.as_ref()?.span().span_context().clone();
        span.is_valid().then(|| span.trace_id().to_string())
    }
}

/// Equal if both are the same span of the same trace.
impl PartialEq for Trace {
    fn eq(&self, other: &Self) -> bool {
        let of =
            |trace: &Self| trace.0.as_ref().map(|context| context.span().span_context().clone());
        of(self) == of(other)
    }
}

impl std::fmt::Debug for Trace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Trace").field(&self.id()).finish()
    }
}

/// A running span. Dropping it without [`end`](Self::end) marks it as failed: the work returned early or was
/// cancelled.
#[derive(Debug)]
pub struct Span {
    context: Option<Context>,
    ended: bool,
}

impl Span {
    /// Returns the parent for spans of its steps.
    pub fn trace(&self) -> Trace {
        Trace(self.context.clone())
    }

    /// Sets an attribute.
    pub fn set(&self, name: &'static str, value: impl Into<Attribute>) {
        if let Some(context) = &self.context {
            context.span().set_attribute(KeyValue::new(name, value));
        }
    }

    /// Ends it, with the error code if it failed.
    pub fn end(mut self, outcome: Result<(), &'static str>) {
        self.close(outcome);
    }

    /// Ends it without an error, with the code of why the request was refused.
    pub fn end_refused(self, code: &'static str) {
        self.set(ERROR_TYPE, code);
        self.end(Ok(()));
    }

    /// Ends it with the outcome `result`.
    pub fn end_with<T>(self, result: &crate::error::Result<T>) {
        self.end(result.as_ref().map(|_| ()).map_err(|e| e.kind().code()));
    }

    fn close(&mut self, outcome: Result<(), &'static str>) {
        self.ended = true;
        let Some(context) = &self.context else { return };
        let span = context.span();
        if let Err(code) = outcome {
            span.set_attribute(KeyValue::new(ERROR_TYPE, code));
            span.set_status(Status::error(code));
        }
        span.end();
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        if !self.ended {
            self.close(Err("unfinished"));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use opentelemetry::trace::TracerProvider;
    use opentelemetry_sdk::error::OTelSdkResult;
    use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};

    use super::*;

    /// Keeps the spans that ended.
    #[derive(Debug, Clone, Default)]
    struct Kept(Arc<Mutex<Vec<SpanData>>>);

    impl SpanExporter for Kept {
        async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
            self.0.lock().unwrap().extend(batch);
            Ok(())
        }
    }

    /// One test, because the tracer is the process's.
    #[test]
    fn spans_have_the_callers_trace_their_parents_and_their_ends() {
        assert_eq!(Trace::of_caller(None, None).id(), None, "off until it is on");
        assert!(Trace::default().begin("nothing").context.is_none());

        let kept = Kept::default();
        let provider = SdkTracerProvider::builder().with_simple_exporter(kept.clone()).build();
        TRACER.set(provider.tracer("test")).unwrap();

        let (trace, parent) = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
        let caller = Trace::of_caller(Some(&format!("00-{trace}-{parent}-01")), Some("a=b"));
        let request = caller.serve("POST /invocations");
        let stage = request.trace().begin("frames");
        stage.set("frames", 3);
        stage.end(Ok(()));
        drop(request.trace().begin("inference"));
        assert_eq!(request.trace().id().as_deref(), Some(trace));
        request.end(Err("internal"));

        let spans = kept.0.lock().unwrap().clone();
        let [frames, inference, request] = &spans[..] else { panic!("{spans:?}") };
        assert_eq!(request.parent_span_id.to_string(), parent);
        assert_eq!(request.span_kind, SpanKind::Server);
        for (part, status) in [(frames, Status::Unset), (inference, Status::error("unfinished"))] {
            assert_eq!(part.parent_span_id, request.span_context.span_id());
            assert_eq!(part.span_context.trace_id().to_string(), trace);
            assert_eq!(part.status, status);
        }
        assert!(frames.attributes.contains(&KeyValue::new("frames", 3)));
        assert_eq!(request.status, Status::error("internal"));

        // What is no traceparent begins a trace of its own; one that is not sampled is not recorded.
        for bad in ["", "00-xyz", "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "é"] {
            let span = Trace::of_caller(Some(bad), None).serve("request");
            let id = span.trace().id().unwrap();
            assert!(id != trace && id.len() == 32, "{bad}: {id}");
        }
        let recorded = kept.0.lock().unwrap().len();
        let caller = Trace::of_caller(Some(&format!("00-{trace}-{parent}-00")), None);
        caller.serve("request").end(Ok(()));
        assert_eq!(kept.0.lock().unwrap().len(), recorded);
    }
}
