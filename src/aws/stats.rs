//! Call counters of one operation, for metrics.

use std::sync::atomic::{AtomicU64, Ordering};

/// A snapshot of one operation's counters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CallStats {
    /// Calls made, regardless of the number of attempts.
    pub calls: u64,
    /// Requests sent.
    pub attempts: u64,
    /// Attempts after the first of their call.
    pub retries: u64,
    /// Requests sent in parallel to a late one.
    pub hedges: u64,
    /// Calls made because the result of an earlier one was broken.
    pub refetches: u64,
    /// Responses that refused because of load.
    pub throttles: u64,
    /// Calls that failed for good.
    pub failures: u64,
    /// Bytes of complete bodies received.
    pub bytes: u64,
}

/// Counters of one operation since the start of the process.
#[derive(Debug, Default)]
pub struct Counters {
    calls: AtomicU64,
    attempts: AtomicU64,
    retries: AtomicU64,
    hedges: AtomicU64,
    refetches: AtomicU64,
    throttles: AtomicU64,
    failures: AtomicU64,
    bytes: AtomicU64,
}

fn one_more(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Counters {
    /// Returns a snapshot of the counters.
    pub fn snapshot(&self) -> CallStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        CallStats {
            calls: read(&self.calls),
            attempts: read(&self.attempts),
            retries: read(&self.retries),
            hedges: read(&self.hedges),
            refetches: read(&self.refetches),
            throttles: read(&self.throttles),
            failures: read(&self.failures),
            bytes: read(&self.bytes),
        }
    }

    /// Counts a call made because the result of an earlier one was broken.
    pub fn refetch(&self) {
        one_more(&self.refetches);
    }

    /// Counts the bytes of a complete response body.
    pub fn received(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn call(&self) {
        one_more(&self.calls);
    }

    pub(super) fn attempt(&self) {
        one_more(&self.attempts);
    }

    pub(super) fn retry(&self) {
        one_more(&self.retries);
    }

    pub(super) fn hedge(&self) {
        one_more(&self.hedges);
    }

    pub(super) fn throttle(&self) {
        one_more(&self.throttles);
    }

    pub(super) fn failure(&self) {
        one_more(&self.failures);
    }
}
