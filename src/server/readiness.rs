//! What `/ping` says: one atomic, set by whoever knows.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// How far the server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ReadyState {
    /// Models are being loaded.
    Starting = 0,
    /// Requests are taken.
    Ready = 1,
    /// No model can be used.
    Failed = 2,
    /// The server is stopping.
    Draining = 3,
}

/// The state, shared. Draining is final.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<AtomicU8>);

impl Readiness {
    /// The state now.
    pub fn get(&self) -> ReadyState {
        match self.0.load(Ordering::Acquire) {
            1 => ReadyState::Ready,
            2 => ReadyState::Failed,
            3 => ReadyState::Draining,
            _ => ReadyState::Starting,
        }
    }

    /// Sets the state, unless the server is draining already.
    pub fn set(&self, state: ReadyState) {
        let update = |now| (now != ReadyState::Draining as u8).then_some(state as u8);
        // An error here only says that the server is draining.
        let _ = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, update);
    }
}
