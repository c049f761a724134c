//! Keeps the voxel buffer of a request for the next one.
//!
//! Memory newly obtained from the system is mapped and cleared on first touch; a virtual machine
//! that returns freed memory to its host even has to get it back from there. For a volume this can
//! take longer than decoding it. One voxel buffer is kept, no larger than a part of the memory
//! outside the accounts, and only while requests follow each other: see [`release_voxels`].

use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use super::zeroed::zeroed;
use crate::error::Result;

static KEPT: Kept = Kept(Mutex::new(Vec::new()));

/// Maximum number of bytes kept: a quarter of the memory set aside.
static MOST: LazyLock<u64> =
    LazyLock::new(|| super::limit().map_or(CEILING, |limit| CEILING.min(limit / 64)));
const CEILING: u64 = 256 << 20;

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

/// Keeps the buffer of an image that is no longer needed, if it is the largest so far and within
/// the limit.
pub fn keep_voxels(buffer: Vec<f32>) {
    KEPT.put(buffer, *MOST);
}

/// Frees the kept buffer when no request follows.
pub fn release_voxels() {
    drop(KEPT.take(0));
}

/// At most one buffer.
struct Kept(Mutex<Vec<f32>>);

impl Kept {
    fn buffer(&self) -> MutexGuard<'_, Vec<f32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes `count` voxels of the kept buffer. If it does not fit, it is freed before more memory
    /// is requested.
    fn take(&self, count: usize) -> Option<Vec<f32>> {
        let mut kept = std::mem::take(&mut *self.buffer());
        let fits = (count..=count.saturating_mul(TOO_LARGE)).contains(&kept.len());
        kept.truncate(count);
        fits.then_some(kept)
    }

    fn put(&self, mut buffer: Vec<f32>, most: u64) {
        let bytes = buffer.capacity().saturating_mul(size_of::<f32>()) as u64;
        let mut kept = self.buffer();
        if bytes <= most && buffer.len() > kept.len() {
            std::mem::swap(&mut *kept, &mut buffer);
        }
        // Frees the memory outside the lock.
        drop(kept);
        drop(buffer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_buffer_is_kept_and_used_where_it_fits() {
        const COUNT: usize = 1000;
        const MOST: u64 = 4 * COUNT as u64;
        let kept = Kept(Mutex::new(Vec::new()));
        kept.put(vec![1.0; COUNT], MOST);
        kept.put(vec![2.0; COUNT / 2], MOST);
        assert_eq!(kept.take(COUNT - 7), Some(vec![1.0; COUNT - 7]), "the larger one");
        assert_eq!(kept.take(COUNT), None, "it was taken");
        kept.put(vec![3.0; COUNT], MOST);
        assert_eq!(kept.take(COUNT / 4), None, "far too large a one is not used");
        assert_eq!(kept.take(COUNT), None, "and was given up");
        kept.put(vec![4.0; COUNT], MOST);
        drop(kept.take(0));
        assert_eq!(kept.take(COUNT), None, "it was released");
        kept.put(vec![5.0; COUNT + 1], MOST);
        assert!(kept.buffer().is_empty(), "larger than all that is kept");
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
