//! Tunes a network on this machine after it is loaded.

use std::path::Path;
use std::time::Duration;

use ndarray::{Array5, ArrayView5};

use super::lane::Lane;
use super::network::OnnxNetwork;
use super::opening::Opening;
use super::provider::{Provider, precision_unusable};
use super::sessions::Sessions;
use super::settings::RunPlan;
use super::tuning::{self, Runner};
use crate::bundle::CpuPrecision;
use crate::error::{Error, Result};

/// Time limit for trying plans.
const BUDGET: Duration = Duration::from_secs(6);

/// A plan being measured. One window at a time runs in the existing session. Other plans have their own
/// sessions, which are dropped with their memory afterwards.
struct Trial<'n> {
    network: &'n OnnxNetwork,
    lanes: Option<Sessions<Lane>>,
}

impl Runner for Trial<'_> {
    fn run(&self, _: usize, batch: ArrayView5<f32>) -> Result<()> {
        self.network
            .run_in_turn(batch, self.lanes.as_ref().unwrap_or(&self.network.whole))
            .map(drop)
    }
}

impl OnnxNetwork {
    /// Finds the plan with the least time per window of the given size (X, Y, Z), and adopts it. Does
    /// nothing on a GPU, for a network with a fixed batch size, or if there is only one plan.
    ///
    /// # Errors
    /// Propagates the errors of running the network with the usual plan.
    pub fn tune(&mut self, window: [usize; 3]) -> Result<()> {
        let plans = RunPlan::candidates(self.chosen.provider, self.most, self.opening.threads);
        if !self.is_plannable() || plans.len() < 2 {
            return Ok(());
        }
        let shape = self.shape_of(window);
        let network = &*self;
        let make = |plan: RunPlan| {
            let lanes = (plan != RunPlan::ONE).then(|| network.lanes(plan));
            Ok(Trial { network, lanes })
        };
        let plan = tuning::fastest(&plans, shape, BUDGET, make)?;
        tracing::info!(lanes = plan.lanes, batch = plan.batch, "the fastest plan for windows");
        self.adopt(plan);
        Ok(())
    }

    /// Identifies the network, the machine-dependent settings and the runtime build.
    pub fn identity(&self) -> String {
        let Opening { files, threads, provider, precision, .. } = &*self.opening;
        let (sha256, build) = (files.sha256(), ort::info());
        format!("{sha256} {provider:?} {precision:?} {threads} {} {build}", self.most)
    }

    /// Returns the path of the network's file.
    pub fn file(&self) -> &Path {
        self.opening.files.network()
    }

    /// Returns the plan in use.
    pub fn plan(&self) -> RunPlan {
        self.plan
    }

    /// Adopts a plan found earlier; a plan that does not fit is ignored.
    pub fn follow(&mut self, plan: RunPlan) {
        if self.is_plannable() && plan.fits(self.most, self.opening.threads) {
            self.adopt(plan);
        }
    }

    /// Checks that a requested precision makes a difference: OpenVINO ignores a precision that it does
    /// not support.
    ///
    /// # Errors
    /// [`Configuration`](crate::error::ErrorKind::Configuration) if it makes no difference.
    pub fn ensure_precision(&self, window: [usize; 3]) -> Result<()> {
        let precision = self.opening.precision;
        if !self.is_lowered() {
            return Ok(());
        }
        let [_, channels, x, y, z] = self.shape_of(window);
        let value = |(_, _, x, y, z)| ((x + y + z) % 97) as f32 * 1e-2;
        let batch =
            Array5::from_shape_fn((self.shape.batch.unwrap_or(1), channels, x, y, z), value);
        let full = self.opening.open_in(CpuPrecision::F32, 0, self.opening.threads, self.plan)?;
        let full =
            Sessions::new(Some(full), 1, Box::new(|_| Err(Error::internal("one is enough"))));
        let results = [&full, &self.whole].map(|sessions| self.run_in_turn(batch.view(), sessions));
        let [full, lowered] = results;
        let (full, lowered) = (full?, lowered?);
        if self.view(&full)? == self.view(&lowered)? {
            let why = "OpenVINO computes in f32 all the same on this CPU";
            return Err(precision_unusable(precision, why));
        }
        Ok(())
    }

    /// Whether a CPU computes in less than single precision.
    pub fn is_lowered(&self) -> bool {
        self.opening.precision != CpuPrecision::F32 && !self.chosen.provider.is_gpu()
    }

    /// Whether a new OpenVINO session runs a batch that ran before, then fails on one of the window
    /// size named in `failure`. An OpenVINO session that failed on a size the network cannot take fails
    /// on everything afterwards, so the failed session alone does not show what was at fault.
    pub(super) fn fails_by_size(&self, failure: &Error) -> bool {
        let (Some(&known), Provider::OpenVino) = (self.known_good.get(), self.chosen.provider)
        else {
            return false;
        };
        let window = failure.details().get("window").and_then(|window| window.as_array());
        let size = |axis: usize| Some(window?.get(axis)?.as_u64()? as usize);
        let failed = match (size(0), size(1), size(2)) {
            (Some(x), Some(y), z) => [known[0], known[1], x, y, z.unwrap_or(1)],
            _ => return false,
        };
        if failed == known {
            return false;
        }
        let run = |lane: &mut Lane, shape| self.try_shape(lane, shape).is_ok();
        let opened = self.opening.open(0, self.opening.threads, self.plan);
        opened.is_ok_and(|mut lane| run(&mut lane, known) && !run(&mut lane, failed))
    }

    /// Returns the shape of one window (N, C, X, Y, Z).
    fn shape_of(&self, [x, y, z]: [usize; 3]) -> [usize; 5] {
        [1, self.shape.input_channels.unwrap_or(1), x, y, z]
    }
}
