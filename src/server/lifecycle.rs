//! What state the server is in, for `GET /ping`.

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
    /// A model's network keeps failing, in new sessions, too: this instance should be replaced. In all
    /// modes one such model is enough: what breaks sessions for good is a device or the process, which
    /// the other models share, and the platform knows of no other sign. It ends where the network works
    /// again or is unloaded.
    Broken,
    /// No model could be loaded. Requests are answered with the reason.
    Failed,
    /// Told to stop: what runs is finished, nothing new is taken.
    Draining,
}

/// The state of a server, shared and read without waiting for anything.
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
    /// The state of a server whose broken networks are counted in `broken`.
    pub fn watching(broken: BrokenNetworks) -> Self {
        Self { state: AtomicU8::new(State::Starting as u8), broken }
    }

    /// The state now.
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

    /// Ends [`State::Starting`]: ready where at least one model is, failed otherwise. A server that
    /// was told to stop in the meantime goes on stopping.
    pub fn started(&self, ready: bool) {
        let next = if ready { State::Ready } else { State::Failed };
        let (starting, next) = (State::Starting as u8, next as u8);
        // An error means that the state was another one, which then stays.
        let _ = self.state.compare_exchange(starting, next, Ordering::AcqRel, Ordering::Acquire);
    }

    /// Begins [`State::Draining`], for good.
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
