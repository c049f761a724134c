//! A pool of sessions of one network. A session runs one batch at a time: ONNX Runtime's promise that
//! runs may overlap does not hold for all of its parts, and `ort` requires one session per thread.
//! Sessions are created on demand, when a batch finds none idle, up to a limit.
//!
//! A session whose run failed or panicked returns as a suspect: it stays in use if no other is idle,
//! until a run succeeds or it is [examined](Sessions::take_suspect).

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::error::{Error, Result};

/// Creates one more session of the same network, given how many were created before.
type Make<L> = Box<dyn Fn(usize) -> Result<L> + Send + Sync>;

/// A pool of sessions of any type.
pub(super) struct Sessions<L> {
    make: Make<L>,
    state: Mutex<State<L>>,
    returned: Condvar,
}

struct State<L> {
    idle: Vec<Kept<L>>,
    made: usize,
    most: usize,
    /// Whether there is no session and the last attempt to create one failed.
    lost: bool,
}

struct Kept<L> {
    session: L,
    /// The index it was created with.
    index: usize,
    suspect: bool,
}

/// A session in use; it returns to the pool when dropped.
pub(super) struct Taken<'a, L> {
    sessions: &'a Sessions<L>,
    kept: Option<Kept<L>>,
}

impl<L> Sessions<L> {
    /// Creates a pool of at most `most` sessions (at least 1), with an optional first one.
    pub fn new(first: Option<L>, most: usize, make: Make<L>) -> Self {
        let most = most.max(1);
        let made = usize::from(first.is_some());
        let first = first.map(|session| Kept { session, index: 0, suspect: false });
        let state = State { idle: Vec::from_iter(first), made, most, lost: false };
        Self { make, state: Mutex::new(state), returned: Condvar::new() }
    }

    /// Takes a session that is not in use: an idle one, a new one, or the next to be returned.
    ///
    /// # Errors
    /// Propagates the error of creating a session, if there is none.
    pub fn take(&self) -> Result<Taken<'_, L>> {
        let mut state = self.state();
        loop {
            let trusted = state.idle.iter().rposition(|kept| !kept.suspect);
            if let Some(position) = trusted.or(state.idle.len().checked_sub(1)) {
                let kept = state.idle.swap_remove(position);
                return Ok(Taken { sessions: self, kept: Some(kept) });
            }
            if state.made < state.most {
                state.made += 1;
                let index = state.made - 1;
                drop(state);
                match self.make(index) {
                    Ok(kept) => return Ok(Taken { sessions: self, kept: Some(kept) }),
                    Err(e) => {
                        state = self.state();
                        if state.made == 0 {
                            return Err(e);
                        }
                        // The existing sessions do the work; creation is not retried for every batch.
                        tracing::warn!(error = %e, "cannot create another network session");
                        continue;
                    }
                }
            }
            state = self.returned.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Takes an idle session whose last run failed.
    pub fn take_suspect(&self) -> Option<Taken<'_, L>> {
        let mut state = self.state();
        let position = state.idle.iter().position(|kept| kept.suspect)?;
        let kept = state.idle.swap_remove(position);
        Some(Taken { sessions: self, kept: Some(kept) })
    }

    /// Recreates idle sessions whose last run failed.
    pub fn renew_suspects(&self) {
        while let Some(mut suspect) = self.take_suspect() {
            // If it cannot be recreated, its slot is released.
            match suspect.renew() {
                Ok(()) => suspect.suspect(false),
                Err(e) => {
                    tracing::warn!(error = %e, "cannot recreate a network session that failed")
                }
            }
        }
    }

    /// Whether there is no session and the last attempt to create one failed.
    pub fn is_lost(&self) -> bool {
        self.state().lost
    }

    /// Drops all idle sessions; new ones are created when needed.
    pub fn drop_idle(&self) {
        let mut state = self.state();
        let idle = std::mem::take(&mut state.idle);
        drop(state);
        let count = idle.len();
        // Freeing a session takes long; its slot is only free once its memory is.
        drop(idle);
        self.state().made -= count;
        self.returned.notify_all();
    }

    /// Returns the sum of `of` over the idle sessions.
    pub fn idle_sum(&self, of: impl Fn(&L) -> Option<u64>) -> Option<u64> {
        self.state().idle.iter().map(|kept| of(&kept.session)).sum()
    }

    /// Creates a session in a slot already counted for it. The slot is released on failure.
    fn make(&self, index: usize) -> Result<Kept<L>> {
        let place = Place(self);
        let session = (self.make)(index)?;
        std::mem::forget(place);
        self.state().lost = false;
        Ok(Kept { session, index, suspect: false })
    }

    fn state(&self) -> MutexGuard<'_, State<L>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Releases a slot on drop, also on a panic.
struct Place<'a, L>(&'a Sessions<L>);

impl<L> Drop for Place<'_, L> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.made -= 1;
        if state.made == 0 {
            state.lost = true;
        } else {
            state.most = state.made;
        }
        drop(state);
        self.0.returned.notify_all();
    }
}

impl<L> Taken<'_, L> {
    /// Returns the session.
    pub fn session(&mut self) -> Result<&mut L> {
        match &mut self.kept {
            Some(kept) => Ok(&mut kept.session),
            None => Err(Error::internal("a session was given back twice")),
        }
    }

    /// Records whether its last run failed.
    pub fn suspect(&mut self, suspect: bool) {
        if let Some(kept) = &mut self.kept {
            kept.suspect = suspect;
        }
    }

    /// Drops the session and creates another in its slot, which is released if that fails.
    ///
    /// # Errors
    /// Propagates the error of creating a session.
    pub fn renew(&mut self) -> Result<()> {
        if let Some(Kept { session, index, .. }) = self.kept.take() {
            let place = Place(self.sessions);
            drop(session);
            std::mem::forget(place);
            self.kept = Some(self.sessions.make(index)?);
        }
        Ok(())
    }

    /// Drops the session and releases its slot.
    pub fn discard(mut self) {
        if let Some(kept) = self.kept.take() {
            let _place = Place(self.sessions);
            drop(kept);
        }
    }
}

impl<L> Drop for Taken<'_, L> {
    fn drop(&mut self) {
        // A panic during use leaves none of our own state half done, but the session's may be.
        if let Some(mut kept) = self.kept.take() {
            kept.suspect |= std::thread::panicking();
            self.sessions.state().idle.push(kept);
            self.sessions.returned.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::error::ErrorKind;

    /// Sessions that are numbers; those from `bad` on cannot be created.
    fn sessions(most: usize, bad: usize) -> (Sessions<usize>, Arc<AtomicUsize>) {
        let made = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&made);
        let make = move |_| match count.fetch_add(1, Ordering::SeqCst) {
            number if number < bad => Ok(number),
            _ => Err(Error::new(ErrorKind::Configuration, "no more")),
        };
        (Sessions::new(None, most, Box::new(make)), made)
    }

    #[test]
    fn trusted_sessions_are_taken_before_suspects() {
        let (sessions, made) = sessions(2, 9);
        let (mut first, second) = (sessions.take().unwrap(), sessions.take().unwrap());
        first.suspect(true);
        drop(second);
        drop(first);
        assert_eq!(*sessions.take().unwrap().session().unwrap(), 1);
        let suspect = sessions.take_suspect().unwrap();
        assert_eq!(*sessions.take().unwrap().session().unwrap(), 1);
        drop(suspect);
        let mut suspect = sessions.take_suspect().unwrap();
        assert_eq!(*suspect.session().unwrap(), 0);
        suspect.suspect(false);
        drop(suspect);
        assert!(sessions.take_suspect().is_none());
        assert_eq!(made.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn a_panic_gives_the_session_back_as_a_suspect() {
        let (sessions, _) = sessions(1, 9);
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _taken = sessions.take().unwrap();
            panic!("in the middle of a run");
        }));
        assert!(panicked.is_err());
        assert!(sessions.take().is_ok());
        assert!(sessions.take_suspect().is_some());
    }

    #[test]
    fn a_session_is_renewed_in_its_place_or_gives_it_up() {
        let (sessions, made) = sessions(2, 3);
        let mut first = sessions.take().unwrap();
        let second = sessions.take().unwrap();
        first.renew().unwrap();
        assert_eq!(*first.session().unwrap(), 2);
        assert_eq!(first.renew().unwrap_err().kind(), ErrorKind::Configuration);
        assert!(first.session().is_err());
        drop(first);
        assert!(!sessions.is_lost(), "there is another");
        second.discard();
        assert!(sessions.is_lost());
        assert!(sessions.take().is_err(), "none can be made");
        assert_eq!(made.load(Ordering::SeqCst), 5);
    }

    #[test]
    fn a_panic_while_one_is_made_gives_the_place_up() {
        let sessions: Sessions<u8> = Sessions::new(None, 1, Box::new(|_| panic!("a defect")));
        for _ in 0..2 {
            let taken = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| sessions.take()));
            assert!(taken.is_err());
            assert!(sessions.is_lost());
        }
    }

    #[test]
    fn suspects_are_made_anew_or_give_their_places_up() {
        let (sessions, made) = sessions(2, 3);
        let (mut first, mut second) = (sessions.take().unwrap(), sessions.take().unwrap());
        first.suspect(true);
        second.suspect(true);
        drop((first, second));
        sessions.renew_suspects();
        assert_eq!(made.load(Ordering::SeqCst), 4, "the third works, the fourth cannot be made");
        assert!(sessions.take_suspect().is_none() && !sessions.is_lost());
        assert_eq!(*sessions.take().unwrap().session().unwrap(), 2);
    }

    #[test]
    fn idle_sessions_are_dropped_and_made_anew() {
        let (sessions, made) = sessions(2, 9);
        let (first, second) = (sessions.take().unwrap(), sessions.take().unwrap());
        drop(first);
        sessions.drop_idle();
        assert_eq!(*sessions.take().unwrap().session().unwrap(), 2);
        drop(second);
        assert_eq!(made.load(Ordering::SeqCst), 3);
    }
}
