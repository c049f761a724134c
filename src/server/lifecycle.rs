//! The state of the server, for `GET /ping`.

use std::sync::atomic::{AtomicU8, Ordering};

use crate::registry::BrokenNetworks;

/// The state of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// Models are loading.
    Starting,
    /// At least one model is ready.
    Ready,
    /// A model's network keeps failing, even in new sessions, so this instance should be replaced.
    /// One such model is enough in every mode: the cause is usually the device or the process,
    /// which the other models share, and the platform offers no other signal. The state ends when
    /// the network works again or is unloaded.
    Broken,
    /// No model could be loaded. Requests fail with the reason.
    Failed,
    /// The server is shutting down: running requests finish, new ones are rejected.
    Draining,
}

/// The shared state of a server; reading it never blocks.
#[derive(Debug)]
pub struct Readiness {
    state: AtomicU8,
    broken: BrokenNetworks,
}

impl Default for Readiness {
    fn default() -> Self {
        Self::watching(BrokenNetworks::default())
    }
}

impl Readiness {
    /// Creates the state of a server whose broken networks are counted in `broken`.
    pub fn watching(broken: BrokenNetworks) -> Self {
        Self { state: AtomicU8::new(State::Starting as u8), broken }
    }

    /// Returns the current state.
    pub fn state(&self) -> State {
        const READY: u8 = State::Ready as u8;
        const FAILED: u8 = State::Failed as u8;
        const DRAINING: u8 = State::Draining as u8;
        match self.state.load(Ordering::Acquire) {
            READY if self.broken.any() => State::Broken,
            READY => State::Ready,
            FAILED => State::Failed,
            DRAINING => State::Draining,
            _ => State::Starting,
        }
    }

    /// Ends [`State::Starting`] as [`State::Ready`] or [`State::Failed`]. A server told to stop in
    /// the meantime stays in [`State::Draining`].
    pub fn started(&self, ready: bool) {
        let next = if ready { State::Ready } else { State::Failed };
        let (starting, next) = (State::Starting as u8, next as u8);
        // An error means that the state had already changed; it is kept.
        let _ = self.state.compare_exchange(starting, next, Ordering::AcqRel, Ordering::Acquire);
    }

    /// Enters [`State::Draining`] permanently.
    pub fn drain(&self) {
        self.state.store(State::Draining as u8, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draining_is_for_good() {
        let readiness = Readiness::default();
        assert_eq!(readiness.state(), State::Starting);
        readiness.drain();
        readiness.started(true);
        assert_eq!(readiness.state(), State::Draining);
    }

    #[test]
    fn a_broken_network_is_told_until_it_works() {
        let broken = BrokenNetworks::default();
        let readiness = Readiness::watching(broken.clone());
        broken.count_up();
        assert_eq!(readiness.state(), State::Starting);
        readiness.started(true);
        assert_eq!(readiness.state(), State::Broken);
        broken.count_down();
        assert_eq!(readiness.state(), State::Ready);
        broken.count_up();
        readiness.drain();
        assert_eq!(readiness.state(), State::Draining);
    }

    #[test]
    fn starting_ends_once() {
        for (ready, state) in [(true, State::Ready), (false, State::Failed)] {
            let readiness = Readiness::default();
            readiness.started(ready);
            readiness.started(!ready);
            assert_eq!(readiness.state(), state);
        }
    }
}
