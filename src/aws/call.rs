//! The retry layer of calls: retries after faults, and hedges, which are parallel requests to a
//! late one; the first to succeed counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use tokio::time::Instant;

use super::allowance::{Allowance, LATEST};
use super::fault::{Fault, Retry};
use super::limiter::RateLimiter;
use super::stats::Counters;
use crate::error::{Error, Result};

/// Throttled calls wait this many times as long as those that failed by chance.
const LATER: u32 = 5;

/// How often a call is checked for lateness.
const LOOK: Duration = Duration::from_millis(50);

/// Maximum number of parallel requests of one call: two, and a third in case the second is late as
/// well.
const MOST: usize = 3;

/// Limits on the attempts of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patience {
    /// Maximum number of attempts of one call, including the first.
    pub attempts: u32,
    /// The same for a service that refuses because of load, which passes with time.
    pub throttled_attempts: u32,
    /// Maximum wait before the second attempt, doubled for each later one. The actual wait is
    /// random between zero and the maximum. Throttled calls wait five times as long.
    pub backoff: Duration,
    /// Upper limit of the wait before any attempt.
    pub max_backoff: Duration,
    /// An attempt that receives nothing for this long has failed.
    pub silence: Duration,
    /// Timeout of one attempt, including the response's body.
    pub attempt_timeout: Duration,
    /// No attempt begins this long after the first: clients wait a minute, and need to be told the
    /// reason.
    pub total: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            attempts: 4,
            throttled_attempts: 6,
            backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(10),
            silence: Duration::from_secs(10),
            attempt_timeout: Duration::from_secs(60),
            total: Duration::from_secs(30),
        }
    }
}

/// When a running request is hedged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hedge {
    /// After receiving nothing for this long.
    After(Duration),
    /// If it lags behind the other transfers of the request.
    Paced,
}

/// Used instead of a time once the response is complete.
const ARRIVED: u64 = u64::MAX;

/// Progress of one attempt: when it last received a byte.
#[derive(Debug, Clone)]
pub struct Watch {
    base: Instant,
    /// Milliseconds after `base`, plus one; zero before the request is sent; [`ARRIVED`] at the
    /// end.
    latest: Arc<AtomicU64>,
}

impl Watch {
    /// Creates the watch of an attempt that begins at `base`.
    pub fn new(base: Instant) -> Self {
        Self { base, latest: Arc::default() }
    }

    /// Records that bytes arrived.
    pub fn progress(&self) {
        let elapsed = u64::try_from(self.base.elapsed().as_millis()).unwrap_or(u64::MAX - 2);
        self.latest.store(elapsed + 1, Ordering::Relaxed);
    }

    /// Records that all bytes arrived; time spent on them afterwards is not the service's silence.
    pub fn arrived(&self) {
        self.latest.store(ARRIVED, Ordering::Relaxed);
    }

    /// Returns when bytes last arrived, or when the request was sent.
    fn latest(&self) -> Option<Instant> {
        if self.latest.load(Ordering::Relaxed) == ARRIVED {
            return Some(Instant::now());
        }
        let after = self.latest.load(Ordering::Relaxed).checked_sub(1)?;
        Some(self.base + Duration::from_millis(after))
    }
}

/// A call and its limits.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// The service's name of the operation.
    pub operation: &'static str,
    /// Limits on its attempts.
    pub patience: &'a Patience,
    /// Every request of the call takes a token of it, so that retries keep to the rate, too.
    pub limiter: Option<&'a RateLimiter>,
    /// Counters of the operation.
    pub counters: &'a Counters,
    /// Budget of the request that the call belongs to.
    pub allowance: &'a Allowance,
    /// When a request of the call is hedged.
    pub hedge: Hedge,
}

impl Call<'_> {
    /// Runs the call; `attempt` sends one request, reads its response and notifies the watch of
    /// arriving bytes.
    ///
    /// # Errors
    /// The error of the last attempt.
    pub async fn run<T, F>(&self, attempt: impl Fn(Watch) -> F) -> Result<T>
    where
        F: Future<Output = Result<T, Fault>>,
    {
        self.counters.call();
        let began = Instant::now();
        let mut number = 1;
        loop {
            let fault = match self.race(&attempt).await {
                Ok(value) => return Ok(value),
                Err(fault) => fault,
            };
            if let Err(why) = self.may_retry(&fault, number, began) {
                self.counters.failure();
                return Err(given_up(fault, number, why));
            }
            let wait = longest_wait(self.patience, fault.retry, number).mul_f64(random_fraction());
            tracing::debug!(
                operation = self.operation,
                attempt = number,
                error = %fault.error,
                wait_ms = wait.as_millis() as u64,
                "attempt failed, waiting for the next"
            );
            tokio::time::sleep(wait).await;
            self.counters.retry();
            number += 1;
        }
    }

    /// Whether there may be another attempt after `number` failed ones; otherwise why not.
    fn may_retry(&self, fault: &Fault, number: u32, began: Instant) -> Result<(), &'static str> {
        let attempts = match fault.retry {
            Retry::No => return Err(""),
            Retry::Soon => self.patience.attempts,
            Retry::Later => self.patience.throttled_attempts,
        };
        if number >= attempts.max(1) || began.elapsed() >= self.patience.total {
            return Err("");
        }
        if !self.allowance.retry(fault.retry) {
            return Err(", the request's retries being used up");
        }
        Ok(())
    }

    /// Runs one attempt, and hedges it while it is late. Requests still running when the first
    /// succeeds are dropped together with their connections.
    async fn race<T, F>(&self, attempt: &impl Fn(Watch) -> F) -> Result<T, Fault>
    where
        F: Future<Output = Result<T, Fault>>,
    {
        let began = Instant::now();
        let mut watches = vec![Watch::new(began)];
        let mut under_way = FuturesUnordered::new();
        under_way.push(self.single(attempt, watches[0].clone()));
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                outcome = under_way.next() => match outcome {
                    Some(Ok((value, took))) => {
                        if self.hedge == Hedge::Paced {
                            self.allowance.took(took);
                        }
                        return Ok(value);
                    }
                    // While another request is running, a failed one needs no replacement.
                    Some(Err(fault)) if fault.retry != Retry::No && !under_way.is_empty() => {}
                    Some(Err(fault)) => return Err(fault),
                    None => return Err(Fault::last(Error::internal("a call without attempts"))),
                },
                _ = look.tick(), if watches.len() < MOST => {
                    if self.is_late(&watches) && self.allowance.hedge() {
                        self.counters.hedge();
                        let watch = Watch::new(began);
                        watches.push(watch.clone());
                        under_way.push(self.single(attempt, watch));
                    }
                }
            }
        }
    }

    /// Whether the running requests are late: silent for too long, or slow overall.
    fn is_late(&self, watches: &[Watch]) -> bool {
        let sent: Option<Vec<Instant>> = watches.iter().map(Watch::latest).collect();
        // A request that waits for its token has not been sent and needs no hedge.
        let Some(latest) = sent.and_then(|sent| sent.into_iter().max()) else { return false };
        match self.hedge {
            Hedge::After(silence) => latest.elapsed() >= silence,
            Hedge::Paced => {
                let alone = watches.len() == 1;
                let lags = |usual: Duration| watches[0].base.elapsed() >= usual.max(LATEST);
                latest.elapsed() >= self.allowance.silence()
                    || alone && self.allowance.usual().is_some_and(lags)
            }
        }
    }

    /// Sends one request; returns its result and duration.
    async fn single<T, F>(
        &self,
        attempt: &impl Fn(Watch) -> F,
        watch: Watch,
    ) -> Result<(T, Duration), Fault>
    where
        F: Future<Output = Result<T, Fault>>,
    {
        if let Some(limiter) = self.limiter {
            limiter.acquire().await;
        }
        self.counters.attempt();
        watch.progress();
        let sent = Instant::now();
        let ends = sent + self.patience.attempt_timeout;
        let mut response = std::pin::pin!(attempt(watch.clone()));
        let outcome = loop {
            let silent = watch.latest().unwrap_or(sent) + self.patience.silence;
            tokio::select! {
                biased;
                outcome = &mut response => break outcome,
                () = tokio::time::sleep_until(silent.min(ends)) => {
                    let now = Instant::now();
                    if now >= ends {
                        break Err(Fault::timed_out(self.operation, self.patience.attempt_timeout));
                    }
                    let latest = watch.latest().unwrap_or(sent);
                    if now >= latest + self.patience.silence {
                        break Err(Fault::timed_out(self.operation, self.patience.silence));
                    }
                }
            }
        };
        outcome.map(|value| (value, sent.elapsed())).inspect_err(|fault| {
            if fault.is_throttle() {
                self.counters.throttle();
            }
        })
    }
}

fn given_up(fault: Fault, attempts: u32, why: &str) -> Error {
    let error = fault.error.with("attempts", attempts);
    match attempts {
        1 if why.is_empty() => error,
        1 => error.context(format_args!("given up after its first attempt{why}")),
        _ => error.context(format_args!("given up after {attempts} attempts{why}")),
    }
}

/// Returns the maximum wait after attempt `number`, counted from one.
fn longest_wait(patience: &Patience, retry: Retry, number: u32) -> Duration {
    let base = match retry {
        Retry::Later => patience.backoff.saturating_mul(LATER),
        Retry::Soon | Retry::No => patience.backoff,
    };
    base.saturating_mul(1 << (number - 1).min(20)).min(patience.max_backoff)
}

/// Returns a random number between zero and one, so that callers refused together do not retry
/// together.
fn random_fraction() -> f64 {
    // The low 32 bits of a version 4 UUID are all random.
    f64::from(uuid::Uuid::new_v4().as_u128() as u32) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn upstream() -> Fault {
        Fault::passing(Error::new(ErrorKind::Upstream, "it failed"))
    }

    struct Made {
        patience: Patience,
        counters: Counters,
        allowance: Allowance,
    }

    impl Made {
        fn new() -> Self {
            let allowance = Allowance::default();
            allowance.expect(10);
            let milliseconds = Duration::from_millis;
            let patience = Patience {
                backoff: milliseconds(1),
                silence: 3 * SECOND,
                attempt_timeout: 20 * SECOND,
                ..Patience::default()
            };
            Self { patience, counters: Counters::default(), allowance }
        }

        fn call(&self, hedge: Hedge) -> Call<'_> {
            Call {
                operation: "GetThing",
                patience: &self.patience,
                limiter: None,
                counters: &self.counters,
                allowance: &self.allowance,
                hedge,
            }
        }
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn waits_double_up_to_the_bound() {
        let patience = Patience { max_backoff: SECOND, ..Patience::default() };
        let waits = |retry| [1, 2, 3, 9, 60].map(|n| longest_wait(&patience, retry, n).as_millis());
        assert_eq!(waits(Retry::Soon), [100, 200, 400, 1000, 1000]);
        assert_eq!(waits(Retry::Later), [500, 1000, 1000, 1000, 1000]);
    }

    #[test]
    fn jitter_is_spread_over_the_unit_interval() {
        let all: Vec<f64> = (0..200).map(|_| random_fraction()).collect();
        assert!(all.iter().all(|x| (0.0..=1.0).contains(x)));
        assert!(all.iter().any(|&x| x < 0.25) && all.iter().any(|&x| x > 0.75));
    }

    #[tokio::test]
    async fn a_call_has_four_attempts_and_refusals_one() {
        let made = Made::new();
        let call = made.call(Hedge::After(SECOND));
        let error = call.run(async |_| Err::<(), _>(upstream())).await.unwrap_err();
        assert!(error.message().contains("after 4 attempts"), "{error}");
        let stats = made.counters.snapshot();
        assert_eq!((stats.attempts, stats.retries, stats.failures), (4, 3, 1));
        let denied = || Fault::last(Error::new(ErrorKind::AccessDenied, "no"));
        call.run(async |_| Err::<(), _>(denied())).await.unwrap_err();
        assert_eq!(made.counters.snapshot().attempts, 5);
    }

    #[tokio::test]
    async fn a_request_whose_retries_are_used_up_fails_at_once() {
        let made = Made::new();
        while made.allowance.retry(Retry::Soon) {}
        let call = made.call(Hedge::After(SECOND));
        let error = call.run(async |_| Err::<(), _>(upstream())).await.unwrap_err();
        assert!(error.message().contains("used up"), "{error}");
        assert_eq!(made.counters.snapshot().attempts, 1);
    }

    #[tokio::test]
    async fn a_service_that_never_answers_is_given_up() {
        let mut made = Made::new();
        made.patience.silence = SECOND / 5;
        let began = Instant::now();
        let call = made.call(Hedge::After(SECOND / 20));
        call.run(async |_| std::future::pending::<Result<(), Fault>>().await).await.unwrap_err();
        assert!(began.elapsed() >= 4 * made.patience.silence);
        assert!(began.elapsed() < 10 * SECOND, "{:?}", began.elapsed());
        assert!(made.counters.snapshot().hedges <= 5);

        // No attempt begins after the total time limit.
        made.patience.total = SECOND / 10;
        let call = made.call(Hedge::Paced);
        call.run(async |_| std::future::pending::<Result<(), Fault>>().await).await.unwrap_err();
        assert_eq!(made.counters.snapshot().retries, 3);
    }

    #[tokio::test]
    async fn the_first_of_two_to_come_counts() {
        let made = Made::new();
        let service = AtomicU64::new(0);
        let answer = async |_| match service.fetch_add(1, Ordering::Relaxed) {
            0 | 1 => std::future::pending().await,
            n => Ok(n),
        };
        assert_eq!(made.call(Hedge::After(SECOND / 10)).run(answer).await.unwrap(), 2);
        let stats = made.counters.snapshot();
        assert_eq!((stats.attempts, stats.hedges, stats.retries), (3, 2, 0));
    }

    #[tokio::test]
    async fn what_others_took_tells_what_is_late() {
        let made = Made::new();
        (0..20).for_each(|_| made.allowance.took(SECOND / 10));
        let service = AtomicU64::new(0);
        let began = Instant::now();
        // The first response stops after half of its body.
        let answer = async |watch: Watch| match service.fetch_add(1, Ordering::Relaxed) {
            0 => {
                tokio::time::sleep(SECOND / 5).await;
                watch.progress();
                std::future::pending().await
            }
            n => Ok(n),
        };
        assert_eq!(made.call(Hedge::Paced).run(answer).await.unwrap(), 1);
        let elapsed = began.elapsed().as_millis();
        assert!((500..2000).contains(&elapsed), "{elapsed}");
    }

    #[tokio::test]
    async fn a_body_that_comes_steadily_is_not_late() {
        let made = Made::new();
        let answer = async |watch: Watch| {
            for _ in 0..30 {
                tokio::time::sleep(SECOND / 20).await;
                watch.progress();
            }
            Ok(())
        };
        made.call(Hedge::After(SECOND)).run(answer).await.unwrap();
        assert_eq!(made.counters.snapshot().attempts, 1);
    }

    #[tokio::test]
    async fn a_call_that_waits_for_its_token_is_not_late() {
        let made = Made::new();
        let limiter = RateLimiter::new(super::super::Rate { per_second: 4, burst: 1 });
        let call = Call { limiter: Some(&limiter), ..made.call(Hedge::After(SECOND / 10)) };
        let calls = (0..4).map(|_| call.run(async |_| Ok(())));
        futures::future::try_join_all(calls).await.unwrap();
        assert_eq!(made.counters.snapshot().hedges, 0);
    }
}
