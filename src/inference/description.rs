//! Describes a network for reports and comparisons.

use serde_json::{Map, Value, json};

use super::network::OnnxNetwork;
use super::provider::Provider;

impl OnnxNetwork {
    /// Describes what runs the network:
    ///
    /// - its SHA-256 (`networkSha256`, and `networkFiles` if it has several files);
    /// - `executionProvider`, why no better one was chosen (`executionProviderReason`), and how many
    ///   `nodes` of the graph each provider runs;
    /// - on a GPU: the `devices`, the kinds of operators left to the CPU (`operatorsOnCpu`), whether
    ///   buffers are pinned (`pinnedMemory`), and the sessions per GPU (`sessionsPerGpu`);
    /// - on a CPU: the precision (`cpuPrecision`), how many windows run side by side
    ///   (`windowsSideBySide`), and how many run in one batch (`windowsPerRun`).
    pub fn describe(&self) -> Map<String, Value> {
        let mut map = Map::new();
        let mut add = |name: &str, value: Value| map.insert(name.to_owned(), value);
        add("networkSha256", json!(self.sha256()));
        if let Some(each) = self.opening.files.each() {
            let each: Map<String, Value> =
                each.map(|(n, sum)| (n.to_owned(), json!(sum))).collect();
            add("networkFiles", Value::Object(each));
        }
        add("executionProvider", json!(self.provider()));
        if let Some(reason) = &self.chosen.reason {
            add("executionProviderReason", json!(reason));
        }
        let gpu = self.chosen.provider.is_gpu();
        if gpu {
            let sessions = self.workers / 2 / self.chosen.devices.len().max(1);
            add("devices", json!(self.chosen.devices));
            add("pinnedMemory", json!(self.pinned));
            add("sessionsPerGpu", json!(sessions));
        } else {
            let precision = match self.chosen.provider {
                Provider::OpenVino => self.opening.precision,
                _ => Default::default(),
            };
            add("cpuPrecision", json!(precision.name()));
            add("windowsSideBySide", json!(self.plan.lanes));
            add("windowsPerRun", json!(self.shape.batch.unwrap_or(self.plan.batch)));
        }
        if let Some(placement) = &self.placement {
            add("nodes", json!(placement.nodes));
            if gpu {
                add("operatorsOnCpu", json!(placement.on_cpu));
            }
        }
        map
    }
}
