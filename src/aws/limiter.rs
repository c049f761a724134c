//! Limits requests per second with a token bucket.
//!
//! The bucket is represented by a single time, the one at which it would be full again (the generic
//! cell rate algorithm): no task refills it, and waiting callers are served in the order they came.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

/// A request rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Requests per second in the long run; zero means unlimited.
    pub per_second: u32,
    /// Requests that may be sent at once after a pause; at least one.
    pub burst: u32,
}

/// A token bucket shared by many tasks.
#[derive(Debug)]
pub struct RateLimiter {
    /// Time per token; zero if unlimited.
    interval: Duration,
    /// How far the bucket's time may run ahead of now: the burst minus its last token.
    allowance: Duration,
    /// Locked by the next caller while it waits for its token. The lock is fair, so that the
    /// callers behind it are served in order.
    full_at: Mutex<Option<Instant>>,
}

impl RateLimiter {
    /// Creates a full bucket.
    pub fn new(rate: Rate) -> Self {
        let interval = match rate.per_second {
            0 => Duration::ZERO,
            n => Duration::from_secs(1) / n,
        };
        let allowance = interval * rate.burst.max(1).saturating_sub(1);
        Self { interval, allowance, full_at: Mutex::new(None) }
    }

    /// Takes a token, waiting until there is one. A caller that is cancelled while waiting takes
    /// none, and those behind it move up.
    pub async fn acquire(&self) {
        if self.interval.is_zero() {
            return;
        }
        let mut full_at = self.full_at.lock().await;
        let now = Instant::now();
        let from = full_at.map_or(now, |t| t.max(now));
        let wait = (from - now).saturating_sub(self.allowance);
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        // Counts from the time before the wait, so that a late timer does not reduce the rate.
        *full_at = Some(from + self.interval);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const RATE: Rate = Rate { per_second: 10, burst: 3 };

    /// Returns when each of several callers got its token.
    async fn waits(limiter: &RateLimiter, callers: usize) -> Vec<Duration> {
        let began = Instant::now();
        let mut waits = Vec::new();
        for _ in 0..callers {
            limiter.acquire().await;
            waits.push(began.elapsed());
        }
        waits
    }

    const TENTH: Duration = Duration::from_millis(100);

    #[tokio::test]
    async fn a_burst_goes_at_once_and_the_rest_at_the_rate() {
        let waits = waits(&RateLimiter::new(RATE), 5).await;
        assert!(waits[2] < TENTH, "{waits:?}");
        assert!(waits[3] >= TENTH && waits[4] >= 2 * TENTH, "{waits:?}");
    }

    #[tokio::test]
    async fn a_late_timer_does_not_slow_the_rate_down() {
        let limiter = RateLimiter::new(Rate { per_second: 2000, burst: 100 });
        let waits = waits(&limiter, 1100).await;
        let all = waits[1099].as_millis();
        assert!((500..1500).contains(&all), "{all} ms for 1000 tokens beyond the burst");
    }

    #[tokio::test]
    async fn zero_is_without_bound() {
        let limiter = RateLimiter::new(Rate { per_second: 0, burst: 0 });
        assert!(waits(&limiter, 1000).await[999] < Duration::from_secs(1));
    }

    #[tokio::test]
    async fn who_goes_away_has_taken_nothing_and_those_behind_move_up() {
        let limiter = Arc::new(RateLimiter::new(RATE));
        waits(&limiter, 3).await;
        let began = Instant::now();
        let waiting = |limiter: Arc<RateLimiter>| {
            tokio::spawn(async move {
                limiter.acquire().await;
                Instant::now()
            })
        };
        let gone: Vec<_> = (0..50).map(|_| waiting(limiter.clone())).collect();
        tokio::task::yield_now().await;
        let behind: Vec<_> = (0..2).map(|_| waiting(limiter.clone())).collect();
        tokio::task::yield_now().await;
        gone.iter().for_each(tokio::task::JoinHandle::abort);
        let mut came = Vec::new();
        for task in behind {
            came.push(task.await.unwrap() - began);
        }
        // The fifty tokens of the cancelled callers would take five seconds.
        assert!(came[1] >= Duration::from_millis(150) && came[1] < 25 * TENTH, "{came:?}");
    }

    #[tokio::test]
    async fn callers_are_served_in_their_order() {
        let limiter = Arc::new(RateLimiter::new(Rate { per_second: 100, burst: 1 }));
        let order = Arc::new(std::sync::Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for number in 0..20 {
            let (limiter, order) = (limiter.clone(), order.clone());
            tasks.push(tokio::spawn(async move {
                limiter.acquire().await;
                order.lock().unwrap().push(number);
            }));
            tokio::task::yield_now().await;
        }
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(*order.lock().unwrap(), (0..20).collect::<Vec<_>>());
    }
}
