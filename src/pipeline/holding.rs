//! The resources that work on an input holds until it has really ended.
//!
//! A caller that disconnects, or whose deadline passes, gets its response at once. Threads that compute
//! for it only notice at their next window. Until then, they use memory and cores, so the memory grant
//! and the scheduler permit are released with the threads, not with the caller.

use std::any::Any;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use crate::memory::{Grant, Pool, charged};

/// A scheduler permit, released when its last clone is dropped.
pub type Places = Arc<dyn Any + Send + Sync>;

/// The memory and the scheduler permit of an input. Each thread that works for it has a clone.
#[derive(Clone)]
pub struct Holding {
    memory: Arc<Mutex<Grant>>,
    _places: Places,
}

impl Holding {
    /// Holds a memory grant and a permit.
    pub fn new(memory: Grant, places: Places) -> Self {
        Self { memory: Arc::new(Mutex::new(memory)), _places: places }
    }

    /// Returns outputs that hold the memory as long as any of them exists; memory beyond their size is
    /// released.
    pub fn outputs(&self, outputs: Vec<Bytes>) -> Vec<Bytes> {
        self.keep(outputs.iter().map(|bytes| bytes.len() as u64).sum());
        outputs.into_iter().map(|bytes| charged(bytes, Arc::clone(&self.memory))).collect()
    }

    /// Holds nothing, for programs other than the server.
    pub fn nothing() -> Self {
        Self::new(Pool::unbounded().open(), Arc::new(()))
    }

    /// Releases the memory beyond `bytes`.
    pub fn keep(&self, bytes: u64) {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner).shrink_to(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_hold_their_memory_and_no_more() {
        let pool = Pool::new("work", "WORK_MEMORY_BYTES", Some(10 << 20));
        let mut grant = pool.open();
        grant.grow(8 << 20).unwrap();
        let places: Places = Arc::new(());
        let holding = Holding::new(grant, places.clone());
        let outputs = holding.outputs(vec![vec![7; 1 << 20].into(), vec![8; 1 << 20].into()]);
        drop(holding);
        assert_eq!((pool.used(), Arc::strong_count(&places)), (2 << 20, 1));
        assert_eq!(outputs[1][5], 8);
        let slice = outputs[0].slice(3..4);
        drop(outputs);
        assert_eq!(pool.used(), 2 << 20, "some of it is there");
        drop(slice);
        assert_eq!(pool.used(), 0);
    }
}
