//! Measures the duration of each stage.

use std::time::Instant;

use serde_json::{Map, Value};

use crate::progress::{Progress, Stage};
use crate::traces::{Attribute, Span, Trace};

/// Seconds per stage, in order of measurement, and a span of the trace for each.
#[derive(Debug)]
pub struct Timings {
    started: Instant,
    last: Instant,
    stages: Vec<(&'static str, f64)>,
    trace: Trace,
    /// The span of the running stage. Dropping it unfinished marks the stage as failed.
    span: Option<Span>,
}

impl Default for Timings {
    fn default() -> Self {
        Self::of(Trace::default())
    }
}

impl Timings {
    /// Starts measuring now, with spans below `trace`.
    pub fn of(trace: Trace) -> Self {
        let now = Instant::now();
        Self { started: now, last: now, stages: Vec::new(), trace, span: None }
    }

    /// Begins the span of a stage. Its time still counts from the end of the stage before.
    pub fn begin(&mut self, stage: Stage) {
        self.span = Some(self.trace.begin(stage.name()));
    }

    /// Sets an attribute of the running span.
    pub fn set(&self, name: &'static str, value: impl Into<Attribute>) {
        if let Some(span) = &self.span {
            span.set(name, value);
        }
    }

    /// Ends a stage that began when the previous one ended.
    pub fn end(&mut self, stage: Stage) {
        self.end_span();
        let now = Instant::now();
        self.add(stage.name(), (now - self.last).as_secs_f64());
        self.last = now;
    }

    fn end_span(&mut self) {
        if let Some(span) = self.span.take() {
            span.end(Ok(()));
        }
    }

    /// Starts the next stage now; the time since the last one is already accounted for.
    pub fn skip(&mut self) {
        self.end_span();
        self.last = Instant::now();
    }

    /// Adds a part of a stage that was measured elsewhere.
    pub fn add(&mut self, name: &'static str, seconds: f64) {
        self.stages.push((name, seconds));
    }

    /// Reports every stage so far to `progress`.
    pub fn tell(&self, progress: &dyn Progress) {
        for &(name, seconds) in &self.stages {
            progress.took(name, seconds);
        }
    }

    /// Returns the seconds of the last finished stage.
    pub fn latest(&self) -> f64 {
        self.stages.last().map_or(0.0, |&(_, seconds)| seconds)
    }

    /// Returns the seconds since the start.
    pub fn total(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    /// Returns a JSON object of seconds, with a `total`.
    pub fn to_json(&self) -> Value {
        let mut map = Map::new();
        for (name, seconds) in self.stages.iter().copied().chain([("total", self.total())]) {
            // Microseconds are precise enough and keep the response readable.
            map.insert(name.to_owned(), Value::from((seconds * 1e6).round() / 1e6));
        }
        Value::Object(map)
    }
}
