//! A model in memory, and the leases that requests hold on it.

use std::ops::Deref;
use std::sync::Arc;

use tokio_util::sync::{CancellationToken, DropGuard};

use super::budget::Reservation;

/// A model and what is released with it. Fields are dropped in declaration order: first the model,
/// then its share of the memory budget, and only then are waiters notified.
struct Resident<M> {
    model: M,
    _share: Option<Reservation>,
    revoked: CancellationToken,
    _freed: DropGuard,
}

/// A lease of a model, which stays in memory until the last lease is dropped.
pub struct Lease<M>(Arc<Resident<M>>);

impl<M> Lease<M> {
    /// Creates the first lease of `model`, which occupies `share` of the memory budget. `freed` is
    /// cancelled once the model and its share have been dropped.
    pub(super) fn new(model: M, share: Option<Reservation>, freed: &CancellationToken) -> Self {
        Self(Arc::new(Resident {
            model,
            _share: share,
            revoked: CancellationToken::new(),
            _freed: freed.clone().drop_guard(),
        }))
    }

    /// Creates a lease of a model that is not in a registry.
    pub fn unregistered(model: M) -> Self {
        Self::new(model, None, &CancellationToken::new())
    }

    /// Returns the token cancelled when the model must be unloaded while requests still use it:
    /// they must end now.
    pub fn revoked(&self) -> &CancellationToken {
        &self.0.revoked
    }

    /// Bytes of the memory budget that the model occupies.
    pub(super) fn bytes(&self) -> u64 {
        self.0._share.as_ref().map_or(0, Reservation::bytes)
    }
}

impl<M> Clone for Lease<M> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<M> Deref for Lease<M> {
    type Target = M;

    fn deref(&self) -> &M {
        &self.0.model
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Budget;

    #[test]
    fn all_is_free_once_whoever_waits_is_told() {
        struct Model(CancellationToken, Arc<Budget>);
        impl Drop for Model {
            fn drop(&mut self) {
                assert!(!self.0.is_cancelled(), "told before the model was gone");
                assert_eq!(self.1.used(), 7, "given back before the model was gone");
            }
        }
        let budget = Arc::new(Budget::of(10));
        let freed = CancellationToken::new();
        let share = budget.reserve(7).unwrap();
        let lease = Lease::new(Model(freed.clone(), budget.clone()), Some(share), &freed);
        let other = lease.clone();
        drop(lease);
        assert!(!freed.is_cancelled());
        drop(other);
        assert!(freed.is_cancelled());
        assert_eq!(budget.used(), 0);
    }
}
