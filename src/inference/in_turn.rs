//! Runs batches of windows through a network on several workers at the same time and blends their
//! results one after the other, in window order: while one worker blends, the network runs for the
//! others.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use ndarray::{Array5, ArrayView4, ArrayView5, Axis, s};
use rayon::prelude::*;

use super::blend::Blend;
use super::constant::{Batch, Constants, Kind, Known};
use super::network::{Network, Share};
use super::plane_sink::{PlaneSink, WindowStats};
use crate::cpu;
use crate::error::{Error, ErrorKind, Result};
use crate::memory::{keep, zeros};
use crate::progress::{Progress, Stage};

/// The input of a run.
pub(super) struct Work<'a> {
    /// In standard layout.
    pub image: ArrayView4<'a, f32>,
    /// Starts of windows, in blending order.
    pub windows: &'a [[usize; 3]],
    pub roi: [usize; 3],
    pub network: &'a dyn Network,
    pub progress: &'a dyn Progress,
    /// Windows in a batch.
    pub batch: usize,
}

/// Assigns windows to batches.
struct Plan {
    constants: Constants,
    taken: usize,
}

/// State that only one worker may touch at a time.
struct Turn<'t> {
    /// Index of the next window to blend.
    next: usize,
    blend: &'t mut Blend<'t>,
    sink: &'t mut dyn PlaneSink,
    known: Known,
    windows_run: usize,
    /// The first failure; nothing is blended after it.
    failure: Option<Error>,
    ended: bool,
}

struct Workers<'t, 'w, 'a> {
    work: &'w Work<'a>,
    plan: Mutex<Plan>,
    turn: Mutex<Turn<'t>>,
    changed: Condvar,
    /// Set when a worker fails; no further batch starts.
    stopped: AtomicBool,
    clock: Clock,
}

/// Runs all windows through the network and blends their results into `blend`.
pub(super) fn run<'t>(
    work: &Work,
    reuse_constant: bool,
    blend: &'t mut Blend<'t>,
    sink: &'t mut dyn PlaneSink,
) -> Result<WindowStats> {
    let workers = Workers {
        work,
        plan: Mutex::new(Plan { constants: Constants::new(reuse_constant), taken: 0 }),
        turn: Mutex::new(Turn {
            next: 0,
            blend,
            sink,
            known: Known::default(),
            windows_run: 0,
            failure: None,
            ended: false,
        }),
        changed: Condvar::new(),
        stopped: AtomicBool::new(false),
        clock: Clock::default(),
    };
    let _active = Active::begin();
    let count = work.network.workers().min(work.windows.len()).max(1);
    let span = tracing::Span::current();
    std::thread::scope(|scope| {
        for _ in 1..count {
            // If the system cannot start another thread, the existing ones do the work.
            let more = std::thread::Builder::new()
                .spawn_scoped(scope, || span.in_scope(|| workers.work()));
            if let Err(error) = more {
                tracing::warn!(%error, "cannot start another thread for windows");
                break;
            }
        }
        workers.work();
    });
    let mut turn = workers.turn.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Some(failure) = turn.failure.take() {
        return Err(work.network.judge(failure));
    }
    if turn.next != work.windows.len() {
        return Err(Error::internal("windows are missing"));
    }
    let Turn { blend, sink, .. } = &mut turn;
    in_steps(|| blend.finish(*sink))?;
    Ok(WindowStats {
        windows: work.windows.len(),
        windows_run: turn.windows_run,
        network_seconds: workers.clock.seconds(),
    })
}

impl<'t> Workers<'t, '_, '_> {
    /// Works until no window is left or a worker fails.
    fn work(&self) {
        /// Wakes workers that wait for a turn that will never come, also on a panic.
        struct Ending<'e, 't, 'w, 'a>(&'e Workers<'t, 'w, 'a>, bool);
        impl Drop for Ending<'_, '_, '_, '_> {
            fn drop(&mut self) {
                if !self.1 {
                    self.0.stopped.store(true, Ordering::Relaxed);
                    self.0.turn().ended = true;
                    self.0.changed.notify_all();
                }
            }
        }
        let mut ending = Ending(self, false);
        match self.batches() {
            Ok(()) => ending.1 = true,
            Err(e) => {
                self.turn().failure.get_or_insert(e);
            }
        }
    }

    fn batches(&self) -> Result<()> {
        let Work { image, windows, roi, network, progress, batch: size } = *self.work;
        let fixed = network.shape().batch.is_some();
        let channels = image.dim().0;
        let mut buffer = batch_of(size, channels, roi)?;
        loop {
            progress.check()?;
            if self.stopped.load(Ordering::Relaxed) {
                return Err(another_failed());
            }
            let Some((first, batch)) = self.next_batch() else {
                keep(buffer.into_raw_vec_and_offset().0);
                return Ok(());
            };
            let run: Vec<[usize; 3]> = batch.to_run().collect();
            if run.is_empty() {
                self.deliver(first, &batch, None)?;
                continue;
            }
            gather(image, &run, roi, &mut buffer);
            let given = if fixed { size } else { run.len() };
            let given = buffer.slice(s![..given, .., .., .., ..]);
            // Windows left over after full rounds get all threads.
            let workers = network.workers();
            let share = match first + windows.len() % workers < windows.len() {
                true => Share::One,
                false => Share::All,
            };
            let mut running = Some(self.clock.start());
            network.run(given, share, &mut |results| {
                running = None;
                check_result(&results, given.dim().0, roi)?;
                self.deliver(first, &batch, Some(results))
            })?;
        }
    }

    /// Returns the next batch and the index of its first window.
    fn next_batch(&self) -> Option<(usize, Batch)> {
        let mut plan = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        let Work { image, windows, roi, batch: size, .. } = *self.work;
        let first = plan.taken;
        if first == windows.len() {
            return None;
        }
        let batch = plan.constants.next_batch(image, &windows[first..], roi, size);
        plan.taken += batch.windows.len();
        Some((first, batch))
    }

    /// Blends the results of a batch when its turn comes.
    fn deliver(&self, first: usize, batch: &Batch, results: Option<ArrayView5<f32>>) -> Result<()> {
        let mut turn = self.turn();
        while turn.next != first && !turn.ended {
            turn = self.changed.wait(turn).unwrap_or_else(PoisonError::into_inner);
        }
        if turn.ended {
            return Err(another_failed());
        }
        let mut results = results.iter().flat_map(|results| results.outer_iter());
        for (window, kind) in &batch.windows {
            self.blend(&mut turn, *window, kind, &mut results)?;
        }
        turn.next += batch.windows.len();
        self.work.progress.advance(Stage::Inference, turn.next, self.work.windows.len());
        self.changed.notify_all();
        Ok(())
    }

    fn blend<'r>(
        &self,
        turn: &mut Turn,
        window: [usize; 3],
        kind: &Kind,
        results: &mut impl Iterator<Item = ArrayView4<'r, f32>>,
    ) -> Result<()> {
        let Turn { blend, sink, known, windows_run, .. } = turn;
        if *kind == Kind::Known {
            if let Some(result) = known.result() {
                return add(blend, window, result, *sink);
            }
            // The result was too large to keep.
            *windows_run += 1;
            return self.run_alone(window, &mut |result| add(blend, window, result, *sink));
        }
        let result = results
            .next()
            .ok_or_else(|| Error::internal("the network gave fewer results than windows"))?;
        *windows_run += 1;
        add(blend, window, result, *sink)?;
        if *kind == Kind::Learn {
            known.learn(result);
        }
        Ok(())
    }

    fn run_alone(
        &self,
        window: [usize; 3],
        take: &mut dyn FnMut(ArrayView4<f32>) -> Result<()>,
    ) -> Result<()> {
        let Work { image, roi, network, .. } = *self.work;
        let size = network.shape().batch.unwrap_or(1);
        let mut buffer = batch_of(size, image.dim().0, roi)?;
        gather(image, &[window], roi, &mut buffer);
        network.run(buffer.view(), Share::All, &mut |results| {
            check_result(&results, size, roi)?;
            results.outer_iter().take(1).try_for_each(&mut *take)
        })
    }

    fn turn(&self) -> MutexGuard<'_, Turn<'t>> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Stands in for another worker's failure, which is the one reported.
fn another_failed() -> Error {
    Error::new(ErrorKind::Cancelled, "another window failed")
}

/// Measures the time during which at least one batch was in the network.
#[derive(Default)]
struct Clock(Mutex<ClockState>);

#[derive(Default)]
struct ClockState {
    running: usize,
    since: Option<Instant>,
    seconds: f64,
}

/// Marks a batch as running until dropped.
struct Running<'c>(&'c Clock);

impl Clock {
    fn start(&self) -> Running<'_> {
        let mut state = self.state();
        if state.running == 0 {
            state.since = Some(Instant::now());
        }
        state.running += 1;
        Running(self)
    }

    fn seconds(&self) -> f64 {
        self.state().seconds
    }

    fn state(&self) -> MutexGuard<'_, ClockState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.running -= 1;
        if state.running == 0
            && let Some(since) = state.since.take()
        {
            state.seconds += since.elapsed().as_secs_f64();
        }
    }
}

/// Allocates a batch of windows of zeros.
fn batch_of(windows: usize, channels: usize, [x, y, z]: [usize; 3]) -> Result<Array5<f32>> {
    zeros([windows, channels, x, y, z], "a batch of windows")
}

/// Copies windows from the image (standard layout), row by row.
fn gather(
    image: ArrayView4<f32>,
    windows: &[[usize; 3]],
    roi: [usize; 3],
    buffer: &mut Array5<f32>,
) {
    for (mut target, &[x, y, z]) in buffer.outer_iter_mut().zip(windows) {
        let source = image.slice(s![.., x..x + roi[0], y..y + roi[1], z..z + roi[2]]);
        let planes = target.axis_iter_mut(Axis(1)).into_par_iter();
        planes.zip(source.axis_iter(Axis(1))).for_each(|(mut target, source)| {
            // Row by row: the image's rows are contiguous, its windows are not.
            for (mut target, source) in target.rows_mut().into_iter().zip(source.rows()) {
                match (target.as_slice_mut(), source.to_slice()) {
                    (Some(target), Some(source)) => target.copy_from_slice(source),
                    _ => target.assign(&source),
                }
            }
        });
    }
}

/// Adds a window's result to the blended one.
fn add(
    blend: &mut Blend,
    window: [usize; 3],
    result: ArrayView4<f32>,
    sink: &mut dyn PlaneSink,
) -> Result<()> {
    in_steps(|| blend.add(window, result, sink))
}

/// Runs work that consists of many short parallel steps. They are faster one after the other on the CPU pool, as
/// long as nothing else needs the cores: beside another request's network, which has priority, a thread of the
/// pool waits long for the other half of each step.
fn in_steps<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    if Active::is_alone() { cpu::inside(work) } else { work() }
}

/// Counts the runs in progress in this process.
struct Active;

static ACTIVE: AtomicUsize = AtomicUsize::new(0);

impl Active {
    fn begin() -> Self {
        ACTIVE.fetch_add(1, Ordering::Relaxed);
        Self
    }

    fn is_alone() -> bool {
        ACTIVE.load(Ordering::Relaxed) == 1
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        ACTIVE.fetch_sub(1, Ordering::Relaxed);
    }
}

fn check_result(result: &ArrayView5<f32>, batch: usize, roi: [usize; 3]) -> Result<()> {
    let (n, _, x, y, z) = result.dim();
    if n != batch || [x, y, z] != roi {
        return Err(Error::new(
            ErrorKind::InvalidModel,
            format!(
                "the network gave a result of {n} windows of {:?} voxels for {batch} of {roi:?}",
                [x, y, z]
            ),
        ));
    }
    Ok(())
}
