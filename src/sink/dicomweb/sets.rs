//! Finds the image sets that HealthImaging created from stored instances.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::client::DicomWeb;
use super::outcome::{ImageSet, Instance, Outcome};
use super::target::Target;
use crate::aws::Allowance;
use crate::error::Result;
use crate::source::ahi::FoundSet;

/// Maximum time to wait for image sets: the index lags behind the store by seconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// The first pause between lookups; each later one doubles.
const PAUSE: Duration = Duration::from_millis(200);

impl DicomWeb {
    /// Returns the image sets of the stored series, and warnings about them. Not finding them is
    /// only a warning, because the instances are stored.
    pub(super) async fn image_sets(
        &self,
        target: &Target,
        instances: &[Instance],
        outcomes: &[Outcome],
        allowance: &Arc<Allowance>,
    ) -> (Vec<ImageSet>, Vec<String>) {
        let Target::Datastore(datastore_id) = target else { return (Vec::new(), Vec::new()) };
        let mut series: Vec<&str> = Vec::new();
        for (instance, outcome) in instances.iter().zip(outcomes) {
            let uid = instance.series_instance_uid.as_str();
            if outcome.status.is_there() && !series.contains(&uid) {
                series.push(uid);
            }
        }
        let (mut sets, mut warnings) = (Vec::new(), Vec::new());
        let ends = Instant::now() + PATIENCE;
        for uid in series {
            match self.sets_of(datastore_id, uid, ends, allowance).await {
                Ok(found) if found.is_empty() => warnings.push(format!(
                    "series {uid} is stored, and no image set of it was found within {} s",
                    PATIENCE.as_secs()
                )),
                Ok(found) => sets.extend(found),
                Err(e) => warnings.push(format!(
                    "series {uid} is stored, and its image sets could not be looked up ({})",
                    e.kind().code()
                )),
            }
        }
        for set in sets.iter().filter(|set| set.is_primary == Some(false)) {
            warnings.push(format!(
                "image set {} of series {} is not primary: it conflicts with what the data store has of its \
                 study",
                set.image_set_id, set.series_instance_uid
            ));
        }
        (sets, warnings)
    }

    /// Returns the image sets of one series as soon as there are any, or none at `ends`.
    async fn sets_of(
        &self,
        datastore_id: &str,
        series: &str,
        ends: Instant,
        allowance: &Arc<Allowance>,
    ) -> Result<Vec<ImageSet>> {
        let ahi = self.shared.ahi.within(Arc::clone(allowance));
        let mut pause = PAUSE;
        loop {
            let found = ahi.of_series(datastore_id, series).await?;
            if !found.is_empty() || Instant::now() + pause >= ends {
                let set = |found: FoundSet| ImageSet {
                    image_set_id: found.id.image_set_id().to_owned(),
                    is_primary: found.is_primary,
                    series_instance_uid: series.to_owned(),
                };
                return Ok(found.into_iter().map(set).collect());
            }
            sleep(pause).await;
            pause = pause.saturating_mul(2);
        }
    }
}
