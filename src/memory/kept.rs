//! Keeps the voxel buffers of requests for the next ones.
//!
//! Memory newly obtained from the system is mapped and cleared on first touch; a virtual machine
//! that returns freed memory to its host even has to get it back from there. For a volume this can
//! take longer than decoding it. A few buffers are kept, one for each request that runs, together no larger than a
//! part of the memory outside the accounts, and only while requests follow each other: see [`release_voxels`].

use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use super::zeroed::zeroed;
use crate::error::Result;

static KEPT: Kept = Kept(Mutex::new(Vec::new()));

/// Maximum number of bytes kept: a quarter of the memory set aside.
static MOST: LazyLock<u64> =
    LazyLock::new(|| super::limit().map_or(CEILING, |limit| CEILING.min(limit / 64)));
const CEILING: u64 = 512 << 20;

/// Most buffers kept.
const BUFFERS: usize = 4;

/// A kept buffer more than this many times larger than requested is not reused.
const TOO_LARGE: usize = 2;

/// Returns `count` voxels with arbitrary content: zeros, or those of an earlier image. The caller
/// must write all of them before reading any. `what` names the buffer in the error.
///
/// # Errors
/// [`OutOfMemory`](crate::error::ErrorKind::OutOfMemory) if the memory cannot be allocated.
pub fn take_voxels(count: usize, what: &str) -> Result<Vec<f32>> {
    match KEPT.take(count) {
        Some(buffer) => Ok(buffer),
        None => zeroed(count, what),
    }
}

/// Keeps the buffer of an image that is no longer needed, if images like the largest so far fit into it. The
/// smallest are freed beyond the limit.
pub fn keep_voxels(buffer: Vec<f32>) {
    KEPT.put(buffer, *MOST);
}

/// Frees the kept buffers when no request follows.
pub fn release_voxels() {
    drop(KEPT.take(0));
}

/// The buffers, largest first.
struct Kept(Mutex<Vec<Vec<f32>>>);

impl Kept {
    fn buffers(&self) -> MutexGuard<'_, Vec<Vec<f32>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes `count` voxels of the smallest buffer that fits. If none does, all are freed before more memory
    /// is requested.
    fn take(&self, count: usize) -> Option<Vec<f32>> {
        let fits =
            |buffer: &Vec<f32>| (count..=count.saturating_mul(TOO_LARGE)).contains(&buffer.len());
        let mut kept = self.buffers();
        let Some(index) = kept.iter().rposition(fits) else {
            let unfit = std::mem::take(&mut *kept);
            // Frees the memory outside the lock.
            drop(kept);
            drop(unfit);
            return None;
        };
        let mut buffer = kept.remove(index);
        drop(kept);
        buffer.truncate(count);
        Some(buffer)
    }

    fn put(&self, buffer: Vec<f32>, most: u64) {
        let bytes = |buffer: &Vec<f32>| (buffer.capacity() as u64) * size_of::<f32>() as u64;
        let mut kept = self.buffers();
        if bytes(&buffer) > most
            || kept.first().is_some_and(|largest| buffer.len() < largest.len() / TOO_LARGE)
        {
            return;
        }
        let index = kept.partition_point(|other| other.len() >= buffer.len());
        kept.insert(index, buffer);
        let mut total = 0_u64;
        let held = kept.iter().take(BUFFERS).take_while(|buffer| {
            total = total.saturating_add(bytes(buffer));
            total <= most
        });
        let held = held.count();
        let beyond = kept.split_off(held);
        drop(kept);
        drop(beyond);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_kept_and_used_where_they_fit() {
        const COUNT: usize = 1000;
        const MOST: u64 = 4 * 2 * COUNT as u64;
        let kept = Kept(Mutex::new(Vec::new()));
        kept.put(vec![1.0; COUNT], MOST);
        kept.put(vec![2.0; COUNT / 2 - 1], MOST);
        assert_eq!(kept.take(COUNT - 7), Some(vec![1.0; COUNT - 7]), "the larger one");
        assert_eq!(kept.take(COUNT / 2 - 1), None, "half of the largest is not worth it");
        // One for each of two requests, the smallest that fits first.
        kept.put(vec![3.0; COUNT], MOST);
        kept.put(vec![4.0; COUNT - 1], MOST);
        assert_eq!(kept.take(COUNT - 1), Some(vec![4.0; COUNT - 1]));
        assert_eq!(kept.take(COUNT - 1), Some(vec![3.0; COUNT - 1]));
        assert_eq!(kept.take(COUNT), None, "both were taken");
        kept.put(vec![5.0; COUNT], MOST);
        assert_eq!(kept.take(COUNT / 4), None, "far too large a one is not used");
        assert_eq!(kept.take(COUNT), None, "and was freed");
        kept.put(vec![6.0; COUNT], MOST);
        drop(kept.take(0));
        assert_eq!(kept.take(COUNT), None, "it was released");
        kept.put(vec![7.0; 2 * COUNT + 1], MOST);
        assert!(kept.buffers().is_empty(), "larger than all that is kept");
    }

    #[test]
    fn the_smallest_are_freed_beyond_the_limits() {
        let kept = Kept(Mutex::new(Vec::new()));
        let lengths = |kept: &Kept| kept.buffers().iter().map(Vec::len).collect::<Vec<_>>();
        for length in [600, 800, 700, 900] {
            kept.put(vec![0.0; length], 4 * 2000);
        }
        assert_eq!(lengths(&kept), [900, 800], "2000 voxels together");
        for _ in 0..2 * BUFFERS {
            kept.put(vec![0.0; 800], u64::MAX);
        }
        assert_eq!(lengths(&kept).len(), BUFFERS);
    }

    #[test]
    fn voxels_that_are_taken_are_as_many_as_asked_for() {
        for count in [0, 1, 5000, 4000, 100] {
            let voxels = take_voxels(count, "a test").unwrap();
            assert_eq!(voxels.len(), count);
            keep_voxels(voxels);
        }
        release_voxels();
    }
}
