//! Progress on a terminal: one bar per stage, with its rate and the time left.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio_util::sync::CancellationToken;

use super::console::BARS;
use crate::progress::{Progress, Stage};

/// Template of a running stage whose length is known.
const COUNTED: &str = "{prefix:<17} [{bar:28}] {pos}/{len} {msg}  {per_sec}  {eta} left";

/// Template of a running stage without steps.
const WHOLE: &str = "{prefix:<17} {spinner} {elapsed}";

/// Template of a finished stage.
const DONE: &str = "{prefix:<17} done in {elapsed}";

const TICK: Duration = Duration::from_millis(200);

/// Creates a bar, which is hidden if standard error is not a terminal.
pub(super) fn bar(name: &'static str, unit: &'static str) -> ProgressBar {
    let bar = BARS.add(ProgressBar::new(0).with_prefix(name).with_message(unit));
    style(&bar, WHOLE);
    bar.enable_steady_tick(TICK);
    bar
}

/// Shows `done` of `total`.
pub(super) fn show(bar: &ProgressBar, done: u64, total: u64) {
    if bar.length() != Some(total) {
        bar.set_length(total);
        style(bar, if total > 1 { COUNTED } else { WHOLE });
    }
    if done < bar.position() {
        // The stage starts again for another volume.
        bar.reset();
        style(bar, if total > 1 { COUNTED } else { WHOLE });
        bar.enable_steady_tick(TICK);
    }
    bar.set_position(done);
    if done >= total {
        end(bar);
    }
}

/// Increases the length of the bar by `more`.
pub(super) fn more(bar: &ProgressBar, more: u64) {
    style(bar, COUNTED);
    bar.set_length(bar.length().unwrap_or(0) + more);
}

/// Shows the stage as finished.
pub(super) fn end(bar: &ProgressBar) {
    style(bar, DONE);
    bar.finish();
}

fn style(bar: &ProgressBar, template: &str) {
    // Templates are constants that a test validates.
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
}

/// The bars of one command, and its cancellation token.
pub(super) struct Bars {
    bars: Mutex<BTreeMap<Stage, ProgressBar>>,
    stop: CancellationToken,
}

impl Bars {
    /// Creates an empty set; `stop` signals that the work should end.
    pub fn new(stop: CancellationToken) -> Self {
        Self { bars: Mutex::default(), stop }
    }

    fn bars(&self) -> MutexGuard<'_, BTreeMap<Stage, ProgressBar>> {
        self.bars.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Removes all bars from the terminal permanently, so that later output is not overwritten.
pub(super) fn clear() {
    // If the terminal cannot be written to, there is nothing to remove.
    let _ = BARS.clear();
    BARS.set_draw_target(ProgressDrawTarget::hidden());
}

/// Returns the unit that a stage counts.
fn unit(stage: Stage) -> &'static str {
    match stage {
        Stage::Frames => "frames",
        Stage::Preprocess => "steps",
        Stage::Inference => "windows",
        Stage::Metadata => "images",
        Stage::Memory | Stage::Postprocess | Stage::Write | Stage::Store => "",
    }
}

impl Progress for Bars {
    fn advance(&self, stage: Stage, done: usize, total: usize) {
        let bar =
            self.bars().entry(stage).or_insert_with(|| bar(stage.name(), unit(stage))).clone();
        show(&bar, done as u64, total as u64);
    }

    fn is_cancelled(&self) -> bool {
        self.stop.is_cancelled()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_can_be_read() {
        for template in [COUNTED, WHOLE, DONE] {
            ProgressStyle::with_template(template).unwrap();
        }
    }

    #[test]
    fn a_stage_goes_on_to_its_end_and_begins_anew_with_the_next_volume() {
        let bars = Bars::new(CancellationToken::new());
        let at = |stage| bars.bars()[&stage].clone();
        bars.advance(Stage::Frames, 1, 2);
        assert!(!at(Stage::Frames).is_finished());
        bars.advance(Stage::Frames, 2, 2);
        assert!(at(Stage::Frames).is_finished());
        bars.advance(Stage::Frames, 1, 3);
        assert!(!at(Stage::Frames).is_finished());
        assert_eq!((at(Stage::Frames).position(), at(Stage::Frames).length()), (1, Some(3)));
        bars.advance(Stage::Write, 0, 1);
        assert_eq!(bars.bars().len(), 2);
    }
}
