//! Delivers the outputs of a request to their destinations.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use serde_json::{Map, Value};

use super::audit::Record;
use super::{Deliver, store};
use crate::aws::Allowance;
use crate::error::Result;
use crate::progress::{Progress, Stage};
use crate::request::InputOutcome;
use crate::sink::dicomweb::DicomWeb;
use crate::sink::{Destination, Sink};
use crate::traces::Trace;

/// The destinations of an input's outputs.
pub(super) struct Destinations<'a> {
    /// A URI in S3 or of a folder.
    pub uri: Option<&'a str>,
    /// The request's folder there: output names are only unique within a request.
    pub folder: &'a str,
    /// The plan for storing in an archive.
    pub plan: store::Plan,
}

/// Delivers each outcome of an input as soon as it is available, and releases outputs that are safely
/// stored, so that the outputs of many volumes are never held together.
pub(super) struct Delivery<'a> {
    /// Writes to S3 and folders.
    pub sink: &'a Sink,
    /// Stores in archives.
    pub archives: &'a DicomWeb,
    /// The destinations.
    pub to: Destinations<'a>,
    /// The budget for retries.
    pub allowance: &'a Arc<Allowance>,
    /// Records what was created and where it went.
    pub record: &'a Record,
    /// Receives the time it took.
    pub progress: Arc<dyn Progress>,
    /// The input's place in its trace.
    pub trace: Trace,
    /// The input, as repeated in the report.
    pub input: Value,
    /// Whether the response is the DICOM object itself.
    pub single: bool,
}

#[async_trait]
impl Deliver for Delivery<'_> {
    async fn deliver(&self, mut outcome: InputOutcome) -> Result<InputOutcome> {
        let mut report = Map::new();
        report.insert("input".to_owned(), self.input.clone());
        report.append(&mut outcome.report);
        outcome.report = report;
        self.record.made(&outcome.artifacts, self.to.uri.is_some());
        let storing = self.to.uri.is_some() || matches!(self.to.plan, store::Plan::In(_));
        let span = storing.then(|| self.trace.begin(Stage::Store.name()));
        if storing {
            self.progress.advance(Stage::Store, 0, 1);
        }
        let started = Instant::now();
        let brought = self.bring(&mut outcome).await;
        if let Some(span) = span {
            span.end_with(&brought);
        }
        if brought? {
            self.progress.took(Stage::Store.name(), started.elapsed().as_secs_f64());
            self.progress.advance(Stage::Store, 1, 1);
        }
        if !self.single {
            outcome.artifacts.iter_mut().for_each(|artifact| artifact.release());
        }
        Ok(outcome)
    }
}

impl Delivery<'_> {
    /// Delivers the outputs and returns whether there was anything to do. S3 comes first, so that they
    /// are safe whatever the archive does.
    async fn bring(&self, outcome: &mut InputOutcome) -> Result<bool> {
        if let Some(uri) = self.to.uri {
            let to = Destination::parse(uri)?.below(self.to.folder)?;
            let stored = self.sink.store(&mut outcome.artifacts, &to, self.allowance).await;
            // Also on failure, because some outputs may have been stored.
            self.record.stored(&outcome.artifacts);
            stored?;
        }
        match &self.to.plan {
            store::Plan::Nowhere => {}
            store::Plan::NotPossible(why) => store::warn(outcome, vec![(*why).to_owned()]),
            store::Plan::In(target) => {
                let stored =
                    store::store(self.archives, target, outcome, self.single, self.allowance).await;
                let kept = "the outputs are in S3 all the same";
                self.record.archived(stored.map_err(|e| match self.to.uri {
                    Some(_) => e.context(kept),
                    None => e,
                })?);
                return Ok(true);
            }
        }
        Ok(self.to.uri.is_some())
    }
}
