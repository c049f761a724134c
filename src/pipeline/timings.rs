//! How long each stage took.

use std::time::Instant;

use serde_json::{Map, Value};

use crate::progress::{Progress, Stage};
use crate::telemetry::Trace;
use crate::telemetry::traces::{Attribute, Span};

/// Seconds by stage, in the order they were taken, and a span of the trace for each.
#[derive(Debug)]
pub struct Timings {
    started: Instant,
    last: Instant,
    stages: Vec<(&'static str, f64)>,
    trace: Trace,
    /// Of the stage that runs. Dropped with it if it fails.
    span: Option<Span>,
}

impl Default for Timings {
    fn default() -> Self {
        Self::of(Trace::default())
    }
}

impl Timings {
    /// Those of a piece of work that begins now, with spans below `trace`.
    pub fn of(trace: Trace) -> Self {
        let now = Instant::now();
        Self { started: now, last: now, stages: Vec::new(), trace, span: None }
    }

    /// Begins the span of a stage. Its time still counts from the end of the stage before.
    pub fn begin(&mut self, stage: Stage) {
        self.span = Some(self.trace.begin(stage.name()));
    }

    /// Sets an attribute of the span that runs.
    pub fn set(&self, name: &'static str, value: impl Into<Attribute>) {
        if let Some(span) = &self.span {
            span.set(name, value);
        }
    }

    /// Ends a stage that began where the last one ended.
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

    /// The next stage begins now; what passed since the last one is already accounted for.
    pub fn skip(&mut self) {
        self.end_span();
        self.last = Instant::now();
    }

    /// Adds a part of a stage measured elsewhere.
    pub fn add(&mut self, name: &'static str, seconds: f64) {
        self.stages.push((name, seconds));
    }

    /// Tells `progress` of every stage so far.
    pub fn tell(&self, progress: &dyn Progress) {
        for &(name, seconds) in &self.stages {
            progress.took(name, seconds);
        }
    }

    /// Seconds of the stage that ended last.
    pub fn latest(&self) -> f64 {
        self.stages.last().map_or(0.0, |&(_, seconds)| seconds)
    }

    /// Seconds since the beginning.
    pub fn total(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    /// As a JSON object of seconds, with a `total`.
    pub fn to_json(&self) -> Value {
        let mut map = Map::new();
        for (name, seconds) in self.stages.iter().copied().chain([("total", self.total())]) {
            // Microseconds are enough, and keep the answer readable.
            map.insert(name.to_owned(), Value::from((seconds * 1e6).round() / 1e6));
        }
        Value::Object(map)
    }
}
