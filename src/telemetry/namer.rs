//! Registration of named metrics.

use prometheus_client::encoding::EncodeMetric;
use prometheus_client::registry::{Metric, Registry};

/// Registers metrics under a name.
pub(super) struct Namer(pub Registry);

impl Namer {
    pub(super) fn add<M: Metric + EncodeMetric + Clone>(
        &mut self,
        name: &str,
        help: &str,
        metric: M,
    ) -> M {
        self.0.register(name, help, metric.clone());
        metric
    }
}
