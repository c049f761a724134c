//! Several workers at once: order, failures, panics.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ndarray::{Array4, ArrayView3, ArrayView5};

use crate::error::{Error, ErrorKind, Result};
use crate::inference::network::{Network, NetworkShape, Share};
use crate::inference::plane_sink::{PlaneSink, WindowStats};
use crate::inference::sliding_window::{BlendMode, SlidingWindowInferer, WindowPadding};
use crate::progress::Silent;

/// An identity network with several workers, whose runs take different times.
#[derive(Default)]
struct Uneven {
    runs: AtomicUsize,
    fails_at: Option<usize>,
    panics_at: Option<usize>,
}

impl Network for Uneven {
    fn shape(&self) -> NetworkShape {
        NetworkShape {
            input_channels: Some(1),
            output_channels: Some(1),
            ..NetworkShape::default()
        }
    }

    fn workers(&self) -> usize {
        3
    }

    fn run(
        &self,
        batch: ArrayView5<f32>,
        _: Share,
        take: &mut dyn FnMut(ArrayView5<f32>) -> Result<()>,
    ) -> Result<()> {
        let run = self.runs.fetch_add(1, Ordering::SeqCst);
        std::thread::sleep(Duration::from_micros(run as u64 * 7919 % 1500));
        if self.fails_at == Some(run) {
            return Err(Error::new(ErrorKind::InvalidModel, "the one that fails"));
        }
        assert_ne!(self.panics_at, Some(run), "the one that panics");
        take(batch)
    }
}

/// Collects the sums of planes in order of arrival.
#[derive(Default)]
struct Collect(Vec<f32>);

impl PlaneSink for Collect {
    fn begin(&mut self, _: usize, _: [usize; 3]) -> Result<()> {
        Ok(())
    }

    fn planes(&mut self, _: usize, _: usize, planes: &[ArrayView3<f32>]) -> Result<()> {
        self.0.extend(planes.iter().map(|plane| plane.sum()));
        Ok(())
    }
}

fn run_with(network: &Uneven) -> Result<(WindowStats, f32)> {
    let inferer = SlidingWindowInferer {
        roi_size: [Some(4), Some(5), Some(6)],
        sw_batch_size: 4,
        overlap: [0.5; 3],
        mode: BlendMode::Constant,
        padding: WindowPadding::Constant(0.0),
        reuse_constant: true,
    };
    // The first half has one constant value.
    let value = |(_, x, y, z)| if x < 12 { 0.5 } else { (x * 7 + y * 3 + z) as f32 * 1e-3 };
    let image = Array4::from_shape_fn((1, 24, 13, 17), value);
    let mut sink = Collect::default();
    let stats = inferer.run(image.view(), network, &mut sink, &Silent)?;
    Ok((stats, sink.0.iter().sum::<f32>() - image.sum()))
}

#[test]
fn results_are_blended_in_order() {
    let (stats, difference) = run_with(&Uneven::default()).unwrap();
    assert!(stats.windows_run < stats.windows && stats.network_seconds > 0.0);
    assert!(difference.abs() < 1e-2, "{difference}");
}

#[test]
fn the_first_failure_ends_it_and_is_told() {
    for run in [0, 1, 5, 20] {
        let network = Uneven { fails_at: Some(run), ..Uneven::default() };
        let error = run_with(&network).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidModel, "{error}");
        assert!(error.message().contains("the one that fails"));
    }
}

#[test]
fn a_panic_leaves_nobody_waiting() {
    for run in [0, 1, 5, 20] {
        let network = Uneven { panics_at: Some(run), ..Uneven::default() };
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run_with(&network)));
        // As the calling worker's panic, or as an error of another worker.
        assert!(caught.is_err() || caught.is_ok_and(|result| result.is_err()));
    }
}
