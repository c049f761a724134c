//! Stores any number of instances: sends those that are missing in requests of allowed size.

use std::collections::HashMap;
use std::sync::Arc;

use super::batch::batches;
use super::client::DicomWeb;
use super::outcome::{Instance, Outcome, Status, Stored};
use super::target::Target;
use crate::aws::Allowance;
use crate::error::{Error, Result};

impl DicomWeb {
    /// Stores instances, except those that are already there. The outcomes are in the order of
    /// `instances`. Retries are taken from `allowance`.
    ///
    /// # Errors
    /// Fails if the archive cannot be reached or rejects the request; the error names the archive
    /// and, if there are several instances, what is stored. `NotFound` if the archive does not
    /// exist; `AccessDenied`, `Credentials`, `Throttled`, `Upstream`.
    pub async fn store(
        &self,
        target: &Target,
        instances: &[Instance],
        allowance: &Arc<Allowance>,
    ) -> Result<Stored> {
        let mut outcomes: Vec<Option<Outcome>> = vec![None; instances.len()];
        let stored = self.store_each(target, instances, allowance, &mut outcomes).await;
        self.shared.stats.count(&outcomes);
        if let Err(e) = stored {
            return Err(tell(target.name_in(e), instances, &outcomes));
        }
        let outcomes: Vec<Outcome> = outcomes
            .into_iter()
            .map(|outcome| outcome.unwrap_or_else(|| Outcome::failed("it was not sent")))
            .collect();
        let (image_sets, warnings) = self.image_sets(target, instances, &outcomes, allowance).await;
        Ok(Stored { outcomes, image_sets, warnings })
    }

    /// Fills in `outcomes` until the first error.
    async fn store_each(
        &self,
        target: &Target,
        instances: &[Instance],
        allowance: &Arc<Allowance>,
        outcomes: &mut [Option<Outcome>],
    ) -> Result<()> {
        let all: Vec<&Instance> = instances.iter().collect();
        let there = self.present(target, &all, allowance).await?;
        let mut missing = Vec::new();
        for (index, instance) in instances.iter().enumerate() {
            let outcome = outcomes.get_mut(index);
            match outcome {
                Some(outcome) if there.contains(&instance.sop_instance_uid) => {
                    *outcome = Some(Outcome::of(Status::Already));
                }
                Some(outcome) if target.is_too_large(instance) => {
                    *outcome = Some(Outcome::failed(
                        "it is larger than the 1 GB that HealthImaging takes in a request",
                    ));
                }
                _ => missing.push((index, instance)),
            }
        }
        for batch in batches(missing) {
            let sent: Vec<&Instance> = batch.iter().map(|(_, instance)| *instance).collect();
            let told = self.store_batch(target, &sent, allowance).await?;
            for ((index, _), outcome) in batch.into_iter().zip(told) {
                if let Some(slot) = outcomes.get_mut(index) {
                    *slot = Some(outcome);
                }
            }
        }
        Ok(())
    }
}

/// Adds to an error which instances are in the archive and which are not.
fn tell(error: Error, instances: &[Instance], outcomes: &[Option<Outcome>]) -> Error {
    let mut kinds: HashMap<bool, Vec<&str>> = HashMap::new();
    for (instance, outcome) in instances.iter().zip(outcomes) {
        let there = outcome.as_ref().is_some_and(|outcome| outcome.status.is_there());
        kinds.entry(there).or_default().push(instance.kind);
    }
    let mut of = |there: bool| kinds.remove(&there).unwrap_or_default();
    let (stored, missing) = (of(true), of(false));
    if instances.len() < 2 {
        return error;
    }
    error
        .context(format_args!(
            "{} of {} instances not stored; the request may be sent again, which stores those alone",
            missing.len(),
            instances.len()
        ))
        .with("stored", stored)
        .with("notStored", missing)
}
