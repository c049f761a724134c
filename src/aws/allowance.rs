//! Limits what one request may spend on retries and hedges.
//!
//! A call to a service that fails occasionally is retried; a service that fails permanently must
//! not cost a request every attempt of each of its frames. Over all its calls, a request therefore
//! has 64 retries (as many as are in flight when a service restarts and breaks all connections)
//! plus one for every five calls; another 64 plus two for every call if the service refuses because
//! of load, since refusing costs it little; and 4 hedges plus one for every ten calls, so that a
//! service that is slow overall does not receive everything twice.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::fault::Retry;

/// Retries available regardless of the number of calls.
const RETRIES: u64 = 64;

/// Hedges available regardless of the number of calls.
const HEDGES: u64 = 4;

/// Number of known transfer times from which lateness is derived; before that, [`LATEST`] decides.
const ENOUGH: usize = 8;

/// Number of transfer times remembered.
const REMEMBERED: usize = 64;

/// Lower bound for considering a transfer late.
const SOONEST: Duration = Duration::from_millis(250);

/// A transfer silent for this long is late, whatever other transfers took.
pub(super) const LATEST: Duration = Duration::from_secs(2);

/// The retry and hedge budget of one request.
#[derive(Debug, Default)]
pub struct Allowance {
    calls: AtomicU64,
    retries: AtomicU64,
    throttled: AtomicU64,
    hedges: AtomicU64,
    pace: Mutex<Pace>,
}

/// Durations of the latest transfers.
#[derive(Debug, Default)]
struct Pace {
    took: Vec<Duration>,
    next: usize,
}

/// Increments `counter` if it is below `limit`.
fn take(counter: &AtomicU64, limit: u64) -> bool {
    let more = |n: u64| (n < limit).then_some(n + 1);
    counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
}

impl Allowance {
    /// Announces `calls` calls.
    pub fn expect(&self, calls: usize) {
        self.calls.fetch_add(calls as u64, Ordering::Relaxed);
    }

    /// Takes a retry of this kind, if one is left.
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

    /// Records the duration of a transfer.
    pub(super) fn took(&self, time: Duration) {
        let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        let next = pace.next;
        match pace.took.get_mut(next) {
            Some(slot) => *slot = time,
            None => pace.took.push(time),
        }
        pace.next = (next + 1) % REMEMBERED;
    }

    /// Returns three times the 95th percentile of transfer times, once enough are known.
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

    /// Returns how long a transfer may be silent before it is hedged.
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
