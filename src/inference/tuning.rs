//! Finds the fastest way to run a network on this machine by measuring.
//!
//! How well a network's operators share threads depends on the network, the provider and the CPU; rules
//! of thumb are off by tens of percent. So windows of synthetic values run through each candidate a few
//! times.

use std::time::{Duration, Instant};

use ndarray::{Array5, ArrayView5};

use super::settings::RunPlan;
use crate::error::{Error, Result};

/// Warm-up runs of a candidate: they allocate memory and touch it for the first time.
const WARMING: u32 = 2;

/// Runs that are measured.
const ROUNDS: u32 = 3;

/// The least gain over the usual plan, as a fraction of its time. A smaller gain may be noise, and a
/// lane costs memory.
const LEAST_GAIN: f64 = 0.1;

/// Runs batches of windows on all lanes of a plan at the same time.
pub(super) trait Runner {
    /// Runs `batch` once on lane `lane`.
    fn run(&self, lane: usize, batch: ArrayView5<f32>) -> Result<()>;
}

/// Returns the fastest of `plans`, of which the first is the usual one. Plans that do not fit into the
/// time `budget` are not tried. `shape` is that of one window (N, C, X, Y, Z); `make` creates the
/// runner of a plan.
///
/// # Errors
/// Propagates the error of the first plan. Other plans that fail are skipped.
pub(super) fn fastest<R: Runner + Sync>(
    plans: &[RunPlan],
    shape: [usize; 5],
    budget: Duration,
    make: impl Fn(RunPlan) -> Result<R>,
) -> Result<RunPlan> {
    let started = Instant::now();
    let mut best: Option<(RunPlan, f64)> = None;
    for &plan in plans {
        let seconds = match (make(plan).and_then(|runner| measure(&runner, plan, shape)), best) {
            (Ok(seconds), _) => seconds,
            (Err(e), None) => return Err(e),
            (Err(e), Some(_)) => {
                tracing::debug!(error = %e, ?plan, "passed over");
                continue;
            }
        };
        tracing::debug!(?plan, seconds, "seconds a window");
        // The first plan is the one to beat.
        best = match best {
            Some((usual, least)) if seconds >= least * (1.0 - LEAST_GAIN) => Some((usual, least)),
            _ => Some((plan, seconds)),
        };
        // The next plan takes about as long.
        let taken = started.elapsed();
        if taken + taken / plans.len().max(1) as u32 > budget {
            break;
        }
    }
    best.map(|(plan, _)| plan).ok_or_else(|| Error::internal("no plan to choose from"))
}

/// Measures the seconds per window with `plan`.
fn measure<R: Runner + Sync>(runner: &R, plan: RunPlan, shape: [usize; 5]) -> Result<f64> {
    let [_, channels, x, y, z] = shape;
    // Values that vary between voxels, and that no network can finish early on.
    let value = |(n, _, x, y, z)| ((n + x + y + z) % 97) as f32 * 1e-2;
    let batch = Array5::from_shape_fn((plan.batch, channels, x, y, z), value);
    let mut least = f64::INFINITY;
    for round in 0..WARMING + ROUNDS {
        let started = Instant::now();
        let results: Vec<Result<()>> = std::thread::scope(|scope| {
            let lanes: Vec<_> = (0..plan.lanes)
                .map(|lane| (lane, batch.view()))
                .map(|(lane, batch)| scope.spawn(move || runner.run(lane, batch)))
                .collect();
            let ended = |lane: std::thread::ScopedJoinHandle<Result<()>>| {
                lane.join().unwrap_or_else(|_| Err(Error::internal("a measurement panicked")))
            };
            lanes.into_iter().map(ended).collect()
        });
        results.into_iter().collect::<Result<()>>()?;
        if round >= WARMING {
            least = least.min(started.elapsed().as_secs_f64());
        }
    }
    Ok(least / (plan.lanes * plan.batch) as f64)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::error::ErrorKind;

    /// Takes this many milliseconds per run, or fails.
    struct Double(Option<u64>);

    impl Runner for Double {
        fn run(&self, _: usize, batch: ArrayView5<f32>) -> Result<()> {
            assert_eq!(batch.dim().1, 2);
            let millis = self.0.ok_or_else(|| Error::new(ErrorKind::OutOfMemory, "none"))?;
            std::thread::sleep(Duration::from_millis(millis));
            Ok(())
        }
    }

    const PLANS: [RunPlan; 3] =
        [RunPlan::ONE, RunPlan { lanes: 2, batch: 1 }, RunPlan { lanes: 1, batch: 4 }];

    /// Returns the plan chosen if a run of each plan takes that long, and how many were tried.
    fn chosen(millis: [Option<u64>; 3], budget: u64) -> (Result<RunPlan>, usize) {
        let tried = Mutex::new(0);
        let make = |plan: RunPlan| {
            *tried.lock().unwrap() += 1;
            let index = PLANS.iter().position(|p| *p == plan).unwrap();
            Ok(Double(millis[index]))
        };
        let plan = fastest(&PLANS, [1, 2, 3, 3, 3], Duration::from_millis(budget), make);
        (plan, tried.into_inner().unwrap())
    }

    #[test]
    fn the_fastest_window_wins() {
        // 40, 15 and 50 ms per window; then 40, 80 and 5.
        assert_eq!(chosen([Some(40), Some(30), Some(200)], 60_000).0.unwrap(), PLANS[1]);
        assert_eq!(chosen([Some(40), Some(160), Some(20)], 60_000).0.unwrap(), PLANS[2]);
    }

    #[test]
    fn what_fails_is_passed_over_but_for_the_usual_one() {
        let (plan, tried) = chosen([Some(20), None, None], 60_000);
        assert_eq!((plan.unwrap(), tried), (PLANS[0], 3));
        assert!(chosen([None, Some(1), Some(1)], 60_000).0.is_err());
    }

    #[test]
    fn without_time_the_usual_one_is_taken() {
        let (plan, tried) = chosen([Some(20), Some(1), Some(1)], 1);
        assert_eq!((plan.unwrap(), tried), (PLANS[0], 1));
    }

    #[test]
    fn a_panic_is_an_error() {
        struct Panics;
        impl Runner for Panics {
            fn run(&self, _: usize, _: ArrayView5<f32>) -> Result<()> {
                panic!("a defect")
            }
        }
        let found = fastest(&PLANS, [1; 5], Duration::from_secs(9), |_| Ok(Panics));
        assert_eq!(found.unwrap_err().kind(), ErrorKind::Internal);
    }
}
