//! Sessions of one network. A session runs one batch at a time: ONNX Runtime's promise that runs may
//! overlap does not hold for all of its parts, and `ort` asks for a session for each thread. They
//! are made once a batch finds none idle, up to a number.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::lane::Lane;
use crate::error::{Error, Result};

/// Makes one more session of the same network, given how many were made before.
type Make = Box<dyn Fn(usize) -> Result<Lane> + Send + Sync>;

pub(super) struct Sessions {
    make: Make,
    state: Mutex<State>,
    returned: Condvar,
}

struct State {
    idle: Vec<Lane>,
    made: usize,
    most: usize,
}

/// A session in use; it goes back when dropped.
pub(super) struct Taken<'a> {
    sessions: &'a Sessions,
    session: Option<Lane>,
}

impl Sessions {
    /// At most `most`, at least 1, of which a first one may be there.
    pub fn new(first: Option<Lane>, most: usize, make: Make) -> Self {
        let most = most.max(1);
        let made = usize::from(first.is_some());
        let state = Mutex::new(State { idle: Vec::from_iter(first), made, most });
        Self { make, state, returned: Condvar::new() }
    }

    /// A session that nobody uses: one there is, one more, or the next that is given back.
    ///
    /// # Errors
    /// Those of making one, where there is none.
    pub fn take(&self) -> Result<Taken<'_>> {
        let mut state = self.state();
        loop {
            if let Some(session) = state.idle.pop() {
                return Ok(Taken { sessions: self, session: Some(session) });
            }
            if state.made < state.most {
                state.made += 1;
                let index = state.made - 1;
                drop(state);
                let session = (self.make)(index);
                state = self.state();
                match session {
                    Ok(session) => return Ok(Taken { sessions: self, session: Some(session) }),
                    Err(e) => {
                        state.made -= 1;
                        self.returned.notify_all();
                        if state.made == 0 {
                            return Err(e);
                        }
                        // Those there are do the work; it is not tried again for every batch.
                        tracing::warn!(error = %e, "no further session of a network");
                        state.most = state.made;
                        continue;
                    }
                }
            }
            state = self.returned.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Bytes that the arenas of idle sessions took from the system.
    pub fn allocated(&self) -> Option<u64> {
        self.state().idle.iter().map(|lane| super::arena::allocated(lane.session())).sum()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken<'_> {
    /// The session.
    pub fn session(&mut self) -> Result<&mut Lane> {
        self.session.as_mut().ok_or_else(|| Error::internal("a session was given back twice"))
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        // A panic while the session was in use left nothing of ours half done in it.
        if let Some(session) = self.session.take() {
            self.sessions.state().idle.push(session);
            self.sessions.returned.notify_one();
        }
    }
}
