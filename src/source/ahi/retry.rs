//! Attempts of a call, and the waits between them.

use std::time::Duration;

use super::fault::{Fault, Retry};
use super::settings::AhiSettings;
use super::stats::{Counters, Operation};
use crate::error::{Error, Result};
use crate::source::limiter::RateLimiter;

/// Throttled calls wait this many times as long as those that failed by chance.
const LATER: u32 = 5;

/// Makes one call in as many attempts as the settings allow. Every attempt takes a token of
/// `limiter` first, so that retries too keep to the rate.
pub(super) async fn call<T, F>(
    operation: Operation,
    settings: &AhiSettings,
    limiter: &RateLimiter,
    counters: &Counters,
    attempt: impl Fn() -> F,
) -> Result<T>
where
    F: Future<Output = Result<T, Fault>>,
{
    counters.call();
    let attempts = settings.max_attempts.max(1);
    let mut number = 1;
    loop {
        limiter.acquire().await;
        counters.attempt(number == 1);
        let outcome = tokio::time::timeout(settings.attempt_timeout, attempt()).await;
        let fault = match outcome {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(fault)) => fault,
            Err(_) => Fault::timed_out(operation, settings.attempt_timeout),
        };
        if fault.is_throttle() {
            counters.throttle();
        }
        if fault.retry == Retry::No || number >= attempts {
            counters.failure();
            return Err(given_up(fault, number));
        }
        let wait = longest_wait(settings, fault.retry, number).mul_f64(random_fraction());
        tracing::debug!(
            operation = operation.name(),
            attempt = number,
            error = %fault.error,
            wait_ms = wait.as_millis() as u64,
            "attempt failed, waiting for the next"
        );
        tokio::time::sleep(wait).await;
        number += 1;
    }
}

fn given_up(fault: Fault, attempts: u32) -> Error {
    let error = fault.error.with("attempts", attempts);
    if attempts > 1 {
        error.context(format_args!("given up after {attempts} attempts"))
    } else {
        error
    }
}

/// The bound of the wait after attempt `number`, counted from one.
fn longest_wait(settings: &AhiSettings, retry: Retry, number: u32) -> Duration {
    let base = match retry {
        Retry::Later => settings.backoff.saturating_mul(LATER),
        Retry::Soon | Retry::No => settings.backoff,
    };
    base.saturating_mul(1 << (number - 1).min(20)).min(settings.max_backoff)
}

/// Uniform between zero and one, so that callers refused together do not come back together.
fn random_fraction() -> f64 {
    // The low 32 bits of a version 4 UUID are all random.
    f64::from(uuid::Uuid::new_v4().as_u128() as u32) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_bound() {
        let settings = AhiSettings {
            backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(1),
            ..AhiSettings::default()
        };
        let waits = |retry| [1, 2, 3, 9, 60].map(|n| longest_wait(&settings, retry, n).as_millis());
        assert_eq!(waits(Retry::Soon), [100, 200, 400, 1000, 1000]);
        assert_eq!(waits(Retry::Later), [500, 1000, 1000, 1000, 1000]);
    }

    #[test]
    fn jitter_is_spread_over_the_unit_interval() {
        let all: Vec<f64> = (0..200).map(|_| random_fraction()).collect();
        assert!(all.iter().all(|x| (0.0..=1.0).contains(x)));
        assert!(all.iter().any(|&x| x < 0.25) && all.iter().any(|&x| x > 0.75));
    }
}
