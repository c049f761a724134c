//! What one request may spend on attempts beyond the first of each call.
//!
//! A service that fails now and then is asked again; one that fails altogether must not hold a request
//! for every attempt of each of its frames. So a request has, over all its calls, 64 retries (as many
//! as are in flight when a service restarts and breaks all connections) and one for every five calls;
//! as many and two for every call where the service refuses for load, which costs it little; and 4
//! hedges and one for every ten calls, so that a service that is slow altogether is not asked twice.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::fault::Retry;

/// Retries there are whatever the number of calls.
const RETRIES: u64 = 64;

/// Hedges there are whatever the number of calls.
const HEDGES: u64 = 4;

/// Transfers whose times are known when a late one is told by them; before, it is by [`LATEST`].
const ENOUGH: usize = 8;

/// Times that are remembered.
const REMEMBERED: usize = 64;

/// The soonest that a transfer counts as late.
const SOONEST: Duration = Duration::from_millis(250);

/// A transfer from which nothing has come for that long is late whatever others took.
pub(super) const LATEST: Duration = Duration::from_secs(2);

/// The account of one request.
#[derive(Debug, Default)]
pub struct Allowance {
    calls: AtomicU64,
    retries: AtomicU64,
    throttled: AtomicU64,
    hedges: AtomicU64,
    pace: Mutex<Pace>,
}

/// What the latest transfers took.
#[derive(Debug, Default)]
struct Pace {
    took: Vec<Duration>,
    next: usize,
}

/// Adds one to `counter` where it is below `limit`.
fn take(counter: &AtomicU64, limit: u64) -> bool {
    let more = |n: u64| (n < limit).then_some(n + 1);
    counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
}

impl Allowance {
    /// That many calls will be made.
    pub fn expect(&self, calls: usize) {
        self.calls.fetch_add(calls as u64, Ordering::Relaxed);
    }

    /// Takes a retry of that kind, if one is left.
    pub fn retry(&self, kind: Retry) -> bool {
        let calls = self.calls.load(Ordering::Relaxed);
        match kind {
            Retry::No => false,
            Retry::Soon => take(&self.retries, RETRIES + calls / 5),
            Retry::Later => take(&self.throttled, RETRIES + calls.saturating_mul(2)),
        }
    }

    /// Takes a hedge, if one is left.
    pub(super) fn hedge(&self) -> bool {
        take(&self.hedges, HEDGES + self.calls.load(Ordering::Relaxed) / 10)
    }

    /// A transfer took that long.
    pub(super) fn took(&self, time: Duration) {
        let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        let next = pace.next;
        match pace.took.get_mut(next) {
            Some(slot) => *slot = time,
            None => pace.took.push(time),
        }
        pace.next = (next + 1) % REMEMBERED;
    }

    /// Three times what 95 of 100 transfers take, once enough of them are known.
    pub(super) fn usual(&self) -> Option<Duration> {
        let mut took = {
            let pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
            pace.took.clone()
        };
        if took.len() < ENOUGH {
            return None;
        }
        took.sort_unstable();
        took.get(took.len() * 95 / 100).map(|p95| p95.saturating_mul(3))
    }

    /// How long a transfer may be silent before another is begun beside it.
    pub(super) fn silence(&self) -> Duration {
        self.usual().unwrap_or(LATEST).clamp(SOONEST, LATEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_and_hedges_are_bounded_by_calls() {
        let allowance = Allowance::default();
        allowance.expect(100);
        let granted =
            |mut take: Box<dyn FnMut() -> bool + '_>| (0..1000).filter(|_| take()).count();
        assert_eq!(granted(Box::new(|| allowance.retry(Retry::Soon))), 84);
        assert_eq!(granted(Box::new(|| allowance.retry(Retry::Later))), 264);
        assert_eq!(granted(Box::new(|| allowance.retry(Retry::No))), 0);
        assert_eq!(granted(Box::new(|| allowance.hedge())), 14);
        allowance.expect(50);
        assert_eq!(granted(Box::new(|| allowance.hedge())), 5);
    }

    #[test]
    fn a_late_transfer_is_told_by_what_others_took() {
        let allowance = Allowance::default();
        let milliseconds = Duration::from_millis;
        assert_eq!(allowance.silence(), LATEST);
        (0..20).for_each(|_| allowance.took(milliseconds(10)));
        assert_eq!(allowance.silence(), SOONEST);
        (0..64).for_each(|_| allowance.took(milliseconds(200)));
        assert_eq!(allowance.silence(), milliseconds(600));
        (0..64).for_each(|_| allowance.took(milliseconds(5000)));
        assert_eq!(allowance.silence(), LATEST);
    }
}
