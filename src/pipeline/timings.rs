//! How long each stage took.

use std::time::Instant;

use serde_json::{Map, Value};

use crate::progress::{Progress, Stage};

/// Seconds by stage, in the order they were taken.
#[derive(Debug, Clone)]
pub struct Timings {
    started: Instant,
    last: Instant,
    stages: Vec<(&'static str, f64)>,
}

impl Default for Timings {
    fn default() -> Self {
        let now = Instant::now();
        Self { started: now, last: now, stages: Vec::new() }
    }
}

impl Timings {
    /// Ends a stage that began where the last one ended.
    pub fn end(&mut self, stage: Stage) {
        let now = Instant::now();
        self.add(stage.name(), (now - self.last).as_secs_f64());
        self.last = now;
    }

    /// The next stage begins now; what passed since the last one is already accounted for.
    pub fn skip(&mut self) {
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
