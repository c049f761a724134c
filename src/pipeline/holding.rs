//! What the work on an input holds until it has really ended.
//!
//! A caller that goes away, or whose deadline passes, is answered at once. Threads that compute for it
//! notice at their next window. Until they do, they use memory and cores: whatever they hold of the
//! account and of the scheduler goes with them and not with the caller.

use std::any::Any;
use std::sync::{Arc, Mutex, PoisonError};

use crate::memory::{Grant, Pool};

/// Something that is given back once the last clone of it is dropped: a place at the scheduler.
pub type Places = Arc<dyn Any + Send + Sync>;

/// The memory and the places of an input. Each thread that works for it has a clone.
#[derive(Clone)]
pub struct Holding {
    memory: Arc<Mutex<Grant>>,
    _places: Places,
}

impl Holding {
    /// Holds both.
    pub fn new(memory: Grant, places: Places) -> Self {
        Self { memory: Arc::new(Mutex::new(memory)), _places: places }
    }

    /// Holds nothing: for programs that serve nobody.
    pub fn nothing() -> Self {
        Self::new(Pool::unbounded().open(), Arc::new(()))
    }

    /// Gives back the memory beyond `bytes`.
    pub fn keep(&self, bytes: u64) {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner).shrink_to(bytes);
    }
}
