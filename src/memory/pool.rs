//! A bound on memory, charged before it is used.
//!
//! A [`Pool`] is an account in bytes; a [`Grant`] is a share of it that is released when dropped.
//! The owner of memory also owns the grant for it, so that the account is right whatever happens to
//! a request. Waiters are served in the order they came.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::parachute;
use crate::error::{Error, ErrorKind, Result};

/// Bytes per permit; grants are rounded up to a multiple of it.
const UNIT: u64 = 64 << 10;

/// How long a growing grant waits for others to be released. Its owner keeps what it has, so two of
/// them may wait for each other; the first to give up lets the other proceed.
const PATIENCE: Duration = Duration::from_secs(10);

/// An account of memory.
#[derive(Debug)]
pub struct Pool {
    /// What the memory is used for, and the setting that limits it, for errors.
    what: &'static str,
    setting: &'static str,
    limit: u64,
    permits: Arc<Semaphore>,
    /// Bytes held by loaded models, which no request can wait for.
    standing: AtomicU64,
}

impl Pool {
    /// Creates a pool of `limit` bytes for `what`, limited by `setting`; `None` means unlimited.
    pub fn new(what: &'static str, setting: &'static str, limit: Option<u64>) -> Arc<Self> {
        let most = u64::from(u32::MAX).min(Semaphore::MAX_PERMITS as u64);
        let units = limit.map_or(most, |bytes| (bytes / UNIT).min(most));
        Arc::new(Self {
            what,
            setting,
            limit: units * UNIT,
            permits: Arc::new(Semaphore::new(units as usize)),
            standing: AtomicU64::new(0),
        })
    }

    /// Creates a pool without a limit, for programs that do not serve requests.
    pub fn unbounded() -> Arc<Self> {
        Self::new("memory", "", None)
    }

    /// Returns the size of the pool in bytes.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Returns the number of bytes currently granted.
    pub fn used(&self) -> u64 {
        self.limit - self.permits.available_permits() as u64 * UNIT
    }

    /// Returns the number of bytes not granted.
    pub fn free(&self) -> u64 {
        self.permits.available_permits() as u64 * UNIT
    }

    /// Returns the maximum number of bytes that one request can be granted: all except standing
    /// grants.
    pub fn largest(&self) -> u64 {
        self.limit.saturating_sub(self.standing.load(Ordering::Relaxed))
    }

    /// Returns an empty grant that can grow.
    pub fn open(self: &Arc<Self>) -> Grant {
        Grant { pool: Arc::clone(self), bytes: 0, permit: None, standing: false }
    }

    /// Acquires `bytes`, waiting until they are available.
    ///
    /// # Errors
    /// [`ErrorKind::PayloadTooLarge`] if the pool can never grant that many.
    pub async fn take(self: &Arc<Self>, bytes: u64) -> Result<Grant> {
        let mut grant = self.open();
        let units = self.units(bytes)?;
        parachute::arm();
        let permit = Arc::clone(&self.permits).acquire_many_owned(units).await;
        grant.permit = Some(permit.map_err(|_| closed())?);
        grant.bytes = bytes;
        Ok(grant)
    }

    /// Acquires `bytes` for the lifetime of a model.
    ///
    /// # Errors
    /// [`ErrorKind::OutOfMemory`] if they are not available immediately.
    pub fn take_standing(self: &Arc<Self>, bytes: u64) -> Result<Grant> {
        let mut grant = self.open();
        grant.standing = true;
        let permit = self
            .units(bytes)
            .ok()
            .and_then(|units| Arc::clone(&self.permits).try_acquire_many_owned(units).ok());
        grant.permit = Some(permit.ok_or_else(|| {
            let used = self.used();
            self.name_in(Error::new(
                ErrorKind::OutOfMemory,
                format!(
                    "a model needs {bytes} bytes; of {} for models and requests {used} are in use",
                    self.limit
                ),
            ), bytes)
        })?);
        grant.bytes = bytes;
        self.standing.fetch_add(u64::from(grant.held()) * UNIT, Ordering::Relaxed);
        Ok(grant)
    }

    /// Returns the number of permits for `bytes`.
    fn units(&self, bytes: u64) -> Result<u32> {
        u32::try_from(bytes.div_ceil(UNIT)).ok().filter(|_| bytes <= self.largest()).ok_or_else(|| {
            let largest = self.largest();
            let (what, setting) = (self.what, self.setting);
            self.name_in(Error::new(
                ErrorKind::PayloadTooLarge,
                format!("{bytes} bytes of {what} are more than the {largest} of this server ({setting})"),
            ), bytes)
        })
    }

    fn name_in(&self, error: Error, bytes: u64) -> Error {
        error
            .with("neededBytes", bytes)
            .with("limitBytes", self.largest())
            .with("setting", self.setting)
    }

    fn busy(&self, bytes: u64) -> Error {
        let (what, used, limit) = (self.what, self.used(), self.limit);
        self.name_in(Error::new(
            ErrorKind::Overloaded,
            format!(
                "{bytes} bytes more of {what} are not free: {used} of {limit} are in use; send the \
                 request again later"
            ),
        ), bytes)
    }
}

fn closed() -> Error {
    Error::internal("an account of memory is closed")
}

/// A share of a [`Pool`], released when dropped.
#[derive(Debug)]
pub struct Grant {
    pool: Arc<Pool>,
    bytes: u64,
    permit: Option<OwnedSemaphorePermit>,
    standing: bool,
}

impl Grant {
    /// Returns its size in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Acquires `more` bytes on a blocking thread, waiting a limited time for others to be
    /// released.
    ///
    /// # Errors
    /// [`ErrorKind::PayloadTooLarge`] if the grant would exceed the pool, [`ErrorKind::Overloaded`]
    /// if the bytes do not become available.
    pub fn grow(&mut self, more: u64) -> Result<()> {
        let bytes = self.bytes.saturating_add(more);
        let wanted = self.pool.units(bytes)?.saturating_sub(self.held());
        if wanted > 0 {
            let permits = &self.pool.permits;
            let permit = match Arc::clone(permits).try_acquire_many_owned(wanted) {
                Ok(permit) => permit,
                Err(_) => {
                    let acquire = Arc::clone(permits).acquire_many_owned(wanted);
                    let waited = Handle::try_current()
                        .map(|handle| {
                            handle.block_on(async { tokio::time::timeout(PATIENCE, acquire).await })
                        })
                        .map_err(|_| self.pool.busy(more))?;
                    waited.map_err(|_| self.pool.busy(more))?.map_err(|_| closed())?
                }
            };
            match &mut self.permit {
                Some(held) => held.merge(permit),
                none => *none = Some(permit),
            }
        }
        self.bytes = bytes;
        Ok(())
    }

    /// Merges `other`, a grant of the same pool, into this one.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] if `other` belongs to another pool.
    pub fn join(&mut self, mut other: Self) -> Result<()> {
        if !Arc::ptr_eq(&self.pool, &other.pool) {
            return Err(Error::internal("grants of two accounts cannot be joined"));
        }
        self.bytes = self.bytes.saturating_add(std::mem::take(&mut other.bytes));
        if let Some(permit) = other.permit.take() {
            match &mut self.permit {
                Some(held) => held.merge(permit),
                none => *none = Some(permit),
            }
        }
        Ok(())
    }

    /// Resizes the grant to `bytes`, without waiting.
    ///
    /// # Errors
    /// [`ErrorKind::OutOfMemory`] if they are not available; the grant then stays unchanged.
    pub fn settle(&mut self, bytes: u64) -> Result<()> {
        if bytes <= self.bytes {
            self.shrink_to(bytes);
            return Ok(());
        }
        // The new permits are merged and remain standing.
        self.join(self.pool.take_standing(bytes - self.bytes)?)
    }

    /// Releases everything beyond `bytes`.
    pub fn shrink_to(&mut self, bytes: u64) {
        if bytes >= self.bytes {
            return;
        }
        let keep = bytes.div_ceil(UNIT) as usize;
        if let Some(permit) = &mut self.permit {
            let beyond = permit.num_permits().saturating_sub(keep);
            if self.standing {
                self.pool.standing.fetch_sub(beyond as u64 * UNIT, Ordering::Relaxed);
            }
            drop(permit.split(beyond));
        }
        self.bytes = bytes;
    }

    fn held(&self) -> u32 {
        self.permit.as_ref().map_or(0, |permit| permit.num_permits() as u32)
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn pool(limit: u64) -> Arc<Pool> {
        Pool::new("volumes", "REQUEST_MEMORY_BYTES", Some(limit))
    }

    #[tokio::test]
    async fn what_never_fits_is_refused_and_what_does_not_fit_now_waits() {
        let pool = pool(10 * MIB);
        let never = pool.take(10 * MIB + 1).await.unwrap_err();
        assert_eq!(never.kind(), ErrorKind::PayloadTooLarge);
        assert_eq!(never.details()["setting"], "REQUEST_MEMORY_BYTES");
        let first = pool.take(6 * MIB).await.unwrap();
        assert_eq!(pool.used(), 6 * MIB);
        let second = pool.take(5 * MIB);
        tokio::pin!(second);
        let soon = Duration::from_millis(20);
        assert!(tokio::time::timeout(soon, &mut second).await.is_err());
        drop(first);
        let second = second.await.unwrap();
        assert_eq!(pool.used(), 5 * MIB);
        drop(second);
        assert_eq!(pool.used(), 0);
    }

    #[tokio::test]
    async fn a_waiting_request_that_goes_away_leaves_nothing() {
        let pool = pool(4 * MIB);
        let held = pool.take(4 * MIB).await.unwrap();
        let waiting = tokio::time::timeout(Duration::from_millis(10), pool.take(MIB)).await;
        assert!(waiting.is_err());
        drop(held);
        assert_eq!((pool.used(), pool.take(4 * MIB).await.is_ok()), (0, true));
    }

    #[test]
    fn a_grant_grows_and_shrinks_by_units() {
        let pool = pool(MIB);
        let mut grant = pool.open();
        for _ in 0..10 {
            grant.grow(1000).unwrap();
        }
        assert_eq!((grant.bytes(), pool.used()), (10_000, UNIT));
        grant.grow(MIB - 10_000).unwrap();
        assert_eq!(grant.grow(1).unwrap_err().kind(), ErrorKind::PayloadTooLarge);
        grant.shrink_to(UNIT + 1);
        assert_eq!(pool.used(), 2 * UNIT);
        let mut other = pool.open();
        assert_eq!(other.grow(MIB).unwrap_err().kind(), ErrorKind::Overloaded);
        drop(grant);
        other.grow(MIB).unwrap();
    }

    #[test]
    fn grants_are_joined_and_given_back_whole() {
        let pool = pool(MIB);
        let (mut first, mut second) = (pool.open(), pool.open());
        first.grow(1).unwrap();
        second.grow(2 * UNIT).unwrap();
        first.join(second).unwrap();
        assert_eq!((first.bytes(), pool.used()), (2 * UNIT + 1, 3 * UNIT));
        assert!(first.join(Pool::unbounded().open()).is_err());
        first.shrink_to(UNIT);
        assert_eq!(pool.used(), UNIT);
        drop(first);
        assert_eq!(pool.used(), 0);
    }

    #[test]
    fn what_stands_is_waited_for_by_nobody() {
        let pool = pool(10 * MIB);
        let mut model = pool.take_standing(4 * MIB).unwrap();
        assert_eq!(pool.largest(), 6 * MIB);
        assert_eq!(pool.take_standing(7 * MIB).unwrap_err().kind(), ErrorKind::OutOfMemory);
        assert_eq!(pool.units(7 * MIB).unwrap_err().kind(), ErrorKind::PayloadTooLarge);
        model.settle(6 * MIB).unwrap();
        assert_eq!((pool.largest(), pool.used()), (4 * MIB, 6 * MIB));
        assert_eq!(model.settle(11 * MIB).unwrap_err().kind(), ErrorKind::OutOfMemory);
        model.settle(MIB).unwrap();
        assert_eq!((pool.largest(), pool.used()), (9 * MIB, MIB));
        drop(model);
        assert_eq!(pool.largest(), 10 * MIB);
    }

    #[test]
    fn without_bound_there_is_room_for_all() {
        let pool = Pool::unbounded();
        assert!(pool.open().grow(1 << 40).is_ok());
    }
}
