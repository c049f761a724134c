//! Requests per second, bounded as a token bucket does it.
//!
//! The bucket is kept as a single time, the one at which it would be full again (the generic cell
//! rate algorithm): no task refills it, and waiting callers are served in the order they came.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How fast something may be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Requests per second in the long run; zero means without bound.
    pub per_second: u32,
    /// Requests that may go at once after a pause; at least one.
    pub burst: u32,
}

/// A token bucket that many tasks share.
#[derive(Debug)]
pub struct RateLimiter {
    /// Time per token; zero where there is no bound.
    interval: Duration,
    /// How far ahead of now the bucket's time may run: the burst but for its last token.
    allowance: Duration,
    full_at: Mutex<Option<Instant>>,
}

impl RateLimiter {
    /// A full bucket.
    pub fn new(rate: Rate) -> Self {
        let interval = match rate.per_second {
            0 => Duration::ZERO,
            n => Duration::from_secs(1) / n,
        };
        let allowance = interval * rate.burst.max(1).saturating_sub(1);
        Self { interval, allowance, full_at: Mutex::new(None) }
    }

    /// Takes a token, waiting until there is one.
    pub async fn acquire(&self) {
        let wait = self.reserve(Instant::now());
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }

    /// Takes a token that may be used after the time returned. Who goes away before that has spent
    /// it nevertheless.
    fn reserve(&self, now: Instant) -> Duration {
        if self.interval.is_zero() {
            return Duration::ZERO;
        }
        let mut full_at = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        let from = full_at.map_or(now, |t| t.max(now));
        *full_at = Some(from + self.interval);
        (from - now).saturating_sub(self.allowance)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_goes_at_once_and_the_rest_at_the_rate() {
        let limiter = RateLimiter::new(Rate { per_second: 10, burst: 3 });
        let now = Instant::now();
        let waits: Vec<_> = (0..5).map(|_| limiter.reserve(now).as_millis()).collect();
        assert_eq!(waits, [0, 0, 0, 100, 200]);
        let later = now + Duration::from_millis(350);
        let waits: Vec<_> = (0..3).map(|_| limiter.reserve(later).as_millis()).collect();
        assert_eq!(waits, [0, 50, 150], "one token and a half have come back");
    }

    #[test]
    fn zero_is_without_bound() {
        let limiter = RateLimiter::new(Rate { per_second: 0, burst: 0 });
        let now = Instant::now();
        assert!((0..1000).all(|_| limiter.reserve(now).is_zero()));
    }
}
