//! Settings for running a network.

use serde::{Deserialize, Serialize};

use super::health::BrokenNetworks;
use super::provider::{GpuSettings, Provider, ProviderChoice};
use crate::bundle::CpuPrecision;

/// The requested settings.
#[derive(Debug, Clone, Default)]
pub struct NetworkSettings {
    /// The requested execution provider.
    pub provider: ProviderChoice,
    /// Why ONNX Runtime's own CPU kernels are used, if they were not requested.
    pub reason: Option<String>,
    /// Total number of threads; one per core if absent.
    pub threads: Option<usize>,
    /// The most windows in memory at the same time, from the bundle's `sw_batch_size`: the upper limit
    /// for a [`RunPlan`]. On a GPU, this is the batch size. Batches are always padded to it, so that
    /// cuDNN chooses its algorithms once.
    pub side_by_side: usize,
    /// Size of every window (X, Y, Z), if it is fixed.
    pub window: Option<[usize; 3]>,
    /// Precision of computation on a CPU.
    pub cpu_precision: CpuPrecision,
    /// Settings for GPUs.
    pub gpu: GpuSettings,
    /// The GPUs to use; all if empty.
    pub devices: Vec<i32>,
    /// Counter of broken networks that includes this one while it is broken.
    pub broken: BrokenNetworks,
}

impl NetworkSettings {
    /// Returns the total number of threads, at least one.
    pub(super) fn threads(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        self.threads.unwrap_or_else(cores).max(1)
    }
}

/// How the windows of an image share a CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunPlan {
    /// Concurrent runs, each in a session with its share of the threads.
    pub lanes: usize,
    /// Windows per run.
    pub batch: usize,
}

impl RunPlan {
    /// One window at a time with all threads.
    pub const ONE: Self = Self { lanes: 1, batch: 1 };

    /// Returns the plan that is usually best. ONNX Runtime's own operators scale worse with threads
    /// than with concurrent windows; OpenVINO's scale well with threads.
    pub(super) fn usual(provider: Provider, side_by_side: usize, threads: usize) -> Self {
        match provider {
            Provider::Cpu => Self { lanes: side_by_side.clamp(1, threads.max(1)), batch: 1 },
            _ => Self::ONE,
        }
    }

    /// Whether the plan respects the limit on windows in memory and the number of threads.
    pub(super) fn fits(self, side_by_side: usize, threads: usize) -> bool {
        let most = side_by_side.max(1);
        (1..=most.min(threads.max(1))).contains(&self.lanes)
            && (1..=most).contains(&self.batch)
            && (self.lanes == 1 || self.batch == 1)
    }

    /// Returns the plans worth trying, the usual one first.
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
