//! What a request makes, to where it belongs.

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
use crate::telemetry::Trace;

/// Where the outputs of an input go.
pub(super) struct Destinations<'a> {
    /// Into S3 or a folder.
    pub uri: Option<&'a str>,
    /// The folder of the request there: names of outputs are its own within one request alone.
    pub folder: &'a str,
    /// Into an archive.
    pub plan: store::Plan,
}

/// Brings each outcome of an input to where it belongs as soon as it is there, and gives up what is safe
/// elsewhere, so that the outputs of many volumes are never held together.
pub(super) struct Delivery<'a> {
    /// Writes to S3 and folders.
    pub sink: &'a Sink,
    /// Stores in archives.
    pub archives: &'a DicomWeb,
    /// Where to.
    pub to: Destinations<'a>,
    /// What attempts are taken from.
    pub allowance: &'a Arc<Allowance>,
    /// Told what was made and where it went.
    pub record: &'a Record,
    /// Told how long it took.
    pub progress: Arc<dyn Progress>,
    /// The input's place in its trace.
    pub trace: Trace,
    /// The input, as the report repeats it.
    pub input: Value,
    /// Whether the answer is the DICOM object itself.
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
    /// Brings the outputs to where they belong; whether there was anything to do. First to S3, so that they
    /// are safe whatever the archive says.
    async fn bring(&self, outcome: &mut InputOutcome) -> Result<bool> {
        if let Some(uri) = self.to.uri {
            let to = Destination::parse(uri)?.below(self.to.folder)?;
            let stored = self.sink.store(&mut outcome.artifacts, &to, self.allowance).await;
            // Also where one of several failed: the others are there.
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
