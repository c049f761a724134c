//! How a network is run.

use serde::{Deserialize, Serialize};

use super::health::BrokenNetworks;
use super::provider::{GpuSettings, Provider, ProviderChoice};
use crate::bundle::CpuPrecision;

/// What is asked for.
#[derive(Debug, Clone, Default)]
pub struct NetworkSettings {
    /// The execution provider asked for.
    pub provider: ProviderChoice,
    /// Why it is ONNX Runtime's own CPU kernels, where nobody asked for them.
    pub reason: Option<String>,
    /// Threads in all; one a core where absent.
    pub threads: Option<usize>,
    /// Windows that may be in memory at the same time, as the bundle's `sw_batch_size` says: the most that
    /// a [`RunPlan`] has. On a GPU they are a batch, which is always filled up to that many, so that cuDNN
    /// chooses its algorithms once.
    pub side_by_side: usize,
    /// In which precision a CPU computes.
    pub cpu_precision: CpuPrecision,
    /// Of a GPU.
    pub gpu: GpuSettings,
    /// The GPUs to use, of those there are; all where empty.
    pub devices: Vec<i32>,
    /// Where the network is counted while it is broken.
    pub broken: BrokenNetworks,
}

impl NetworkSettings {
    /// Threads in all, at least one.
    pub(super) fn threads(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        self.threads.unwrap_or_else(cores).max(1)
    }
}

/// How the windows of an image share a CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunPlan {
    /// Runs at the same time, each in a session with its share of the threads.
    pub lanes: usize,
    /// Windows in a run.
    pub batch: usize,
}

impl RunPlan {
    /// One window at a time with all threads.
    pub const ONE: Self = Self { lanes: 1, batch: 1 };

    /// What is best as a rule. ONNX Runtime's own operators scale worse with threads than windows side by
    /// side do; OpenVINO's share the threads well.
    pub(super) fn usual(provider: Provider, side_by_side: usize, threads: usize) -> Self {
        match provider {
            Provider::Cpu => Self { lanes: side_by_side.clamp(1, threads.max(1)), batch: 1 },
            _ => Self::ONE,
        }
    }

    /// Whether so many windows may be in memory, and there are as many threads.
    pub(super) fn fits(self, side_by_side: usize, threads: usize) -> bool {
        let most = side_by_side.max(1);
        (1..=most.min(threads.max(1))).contains(&self.lanes)
            && (1..=most).contains(&self.batch)
            && (self.lanes == 1 || self.batch == 1)
    }

    /// Those that are worth a try, the usual one first.
    pub(super) fn candidates(provider: Provider, side_by_side: usize, threads: usize) -> Vec<Self> {
        let most = side_by_side.clamp(1, threads.max(1));
        let halves = std::iter::successors(Some(most), |n| (*n > 1).then_some(n / 2));
        let lanes = halves.map(|lanes| Self { lanes, batch: 1 });
        let batch = Self { lanes: 1, batch: side_by_side.max(1) };
        let mut all = vec![Self::usual(provider, side_by_side, threads)];
        for plan in lanes.chain([batch]) {
            if !all.contains(&plan) {
                all.push(plan);
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_share_the_threads() {
        let of = |side_by_side, threads| {
            let plan = RunPlan::usual(Provider::Cpu, side_by_side, threads);
            assert!(plan.fits(side_by_side, threads));
            (plan.lanes, threads.max(1) / plan.lanes)
        };
        assert_eq!(of(4, 2), (2, 1));
        assert_eq!(of(2, 8), (2, 4));
        assert_eq!(of(4, 6), (4, 1));
        assert_eq!(of(1, 8), (1, 8));
        assert_eq!(of(0, 0), (1, 1));
        assert_eq!(RunPlan::usual(Provider::OpenVino, 4, 4), RunPlan::ONE);
    }

    #[test]
    fn candidates_stay_within_memory_and_threads() {
        for (side_by_side, threads, count) in
            [(1, 8, 1), (4, 2, 3), (4, 16, 4), (12, 8, 5), (2, 1, 2)]
        {
            for provider in [Provider::Cpu, Provider::OpenVino] {
                let all = RunPlan::candidates(provider, side_by_side, threads);
                assert_eq!(all[0], RunPlan::usual(provider, side_by_side, threads));
                assert!(all.iter().all(|plan| plan.fits(side_by_side, threads)), "{all:?}");
                assert_eq!(all.len(), count, "{all:?}");
            }
        }
        for plan in [(0, 1), (1, 0), (3, 1), (1, 5), (2, 2), (usize::MAX, 1)] {
            assert!(!RunPlan { lanes: plan.0, batch: plan.1 }.fits(4, 2), "{plan:?}");
        }
    }
}
