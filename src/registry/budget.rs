//! The memory budget of models: memory is reserved before it is used.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::{Error, ErrorKind, Result};
use crate::memory::{Grant, Pool};

/// The memory that all models together may occupy.
#[derive(Debug)]
pub struct Budget {
    /// `None` if unlimited; usage is counted anyway.
    limit: Option<u64>,
    used: Mutex<u64>,
    /// The memory pool that models share with requests.
    pool: Arc<Pool>,
}

impl Budget {
    /// Creates a budget of `limit` bytes.
    pub fn of(limit: u64) -> Self {
        Self { limit: Some(limit), ..Self::unbounded() }
    }

    /// Creates a budget without a limit.
    pub fn unbounded() -> Self {
        Self { limit: None, used: Mutex::new(0), pool: Pool::unbounded() }
    }

    /// Also charges the models of this budget to `pool`.
    #[must_use]
    pub fn within(self, pool: Arc<Pool>) -> Self {
        Self { pool, ..self }
    }

    /// Returns the limit in bytes, if any.
    pub fn limit(&self) -> Option<u64> {
        self.limit
    }

    /// Returns the reserved bytes.
    pub fn used(&self) -> u64 {
        *self.lock()
    }

    /// Reserves `bytes`, which are released when the reservation is dropped.
    ///
    /// # Errors
    /// [`ErrorKind::OutOfMemory`] if they exceed the budget or the pool.
    pub fn reserve(self: &Arc<Self>, bytes: u64) -> Result<Reservation> {
        let mut used = self.lock();
        let sum = self.sum(*used, bytes)?;
        let grant = self.pool.take_standing(bytes)?;
        *used = sum;
        drop(used);
        Ok(Reservation { budget: Arc::clone(self), bytes, grant })
    }

    /// Returns the usage after adding `bytes` to `used`, or an error if it exceeds the limit.
    fn sum(&self, used: u64, bytes: u64) -> Result<u64> {
        let wanted = used.saturating_add(bytes);
        match self.limit {
            Some(limit) if wanted > limit => Err(Error::new(
                ErrorKind::OutOfMemory,
                format!(
                    "the model needs about {bytes} bytes of memory; of {limit} for models {used} \
                     are in use; unload another model, or raise MEMORY_BUDGET_BYTES where there is \
                     more memory"
                ),
            )
            .with("neededBytes", bytes)
            .with("usedBytes", used)
            .with("budgetBytes", limit)),
            _ => Ok(wanted),
        }
    }

    fn lock(&self) -> MutexGuard<'_, u64> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A share of a [`Budget`], released on drop.
#[derive(Debug)]
pub struct Reservation {
    budget: Arc<Budget>,
    bytes: u64,
    grant: Grant,
}

impl Reservation {
    /// Returns its size in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Adjusts the reservation to the measured usage.
    ///
    /// # Errors
    /// [`ErrorKind::OutOfMemory`] if that exceeds the budget or the pool. The reservation is then
    /// unchanged, and the caller must free the memory.
    pub fn settle(&mut self, bytes: u64) -> Result<()> {
        let mut used = self.budget.lock();
        let others = used.saturating_sub(self.bytes);
        let sum = self.budget.sum(others, bytes)?;
        self.grant.settle(bytes)?;
        *used = sum;
        drop(used);
        self.bytes = bytes;
        Ok(())
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut used = self.budget.lock();
        *used = used.saturating_sub(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_refused_and_what_is_dropped_comes_back() {
        let budget = Arc::new(Budget::of(100));
        let mut first = budget.reserve(60).unwrap();
        let refused = budget.reserve(41).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::OutOfMemory);
        assert_eq!(refused.details()["usedBytes"], 60);
        assert_eq!(budget.used(), 60, "a refusal takes nothing");
        first.settle(30).unwrap();
        let second = budget.reserve(70).unwrap();
        assert_eq!(first.settle(31).unwrap_err().details()["usedBytes"], 70);
        assert_eq!((budget.used(), first.bytes()), (100, 30), "a refusal changes nothing");
        assert!(budget.reserve(1).is_err());
        drop(second);
        first.settle(100).unwrap();
        drop(first);
        assert_eq!(budget.used(), 0);
        assert!(budget.reserve(u64::MAX).is_err());
    }

    #[test]
    fn models_and_requests_share_the_memory() {
        let pool = Pool::new("work", "WORK_MEMORY_BYTES", Some(100 << 20));
        let budget = Arc::new(Budget::of(90 << 20).within(pool.clone()));
        let mut model = budget.reserve(40 << 20).unwrap();
        assert_eq!(pool.largest(), 60 << 20);
        let mut request = pool.open();
        request.grow(50 << 20).unwrap();
        assert_eq!(budget.reserve(20 << 20).unwrap_err().kind(), ErrorKind::OutOfMemory);
        assert_eq!(model.settle(60 << 20).unwrap_err().kind(), ErrorKind::OutOfMemory);
        assert_eq!((budget.used(), model.bytes()), (40 << 20, 40 << 20));
        drop(request);
        model.settle(60 << 20).unwrap();
        drop(model);
        assert_eq!((budget.used(), pool.used()), (0, 0));
    }

    #[test]
    fn without_bound_nothing_is_refused_and_all_is_counted() {
        let budget = Arc::new(Budget::unbounded());
        let share = budget.reserve(1 << 40).unwrap();
        assert_eq!((budget.limit(), budget.used()), (None, share.bytes()));
    }
}
