//! The voxels of a request, kept for the next one.
//!
//! Memory that comes fresh from the system is mapped and cleared when it is first touched; a virtual machine that
//! gives freed memory back to its host gets it from there again. Of a volume this can take longer than
//! decoding it. One buffer of voxels is kept, no more than the account leaves aside for what is in no account,
//! and only while requests follow each other: see [`release`].

use std::sync::{LazyLock, Mutex, PoisonError};

use super::zeroed::zeroed;
use crate::error::Result;

static KEPT: Mutex<Vec<f32>> = Mutex::new(Vec::new());

/// Bytes that are kept at most: a quarter of what is set aside of the memory.
static MOST: LazyLock<u64> =
    LazyLock::new(|| super::limit().map_or(CEILING, |limit| CEILING.min(limit / 64)));
const CEILING: u64 = 256 << 20;

/// A kept buffer so many times as large as what is asked for is not used for it.
const TOO_LARGE: usize = 2;

/// `count` voxels that hold anything: zeros, or those of an image before. Whoever takes them must write all of
/// them before any is read. `what` names the buffer in the error.
///
/// # Errors
/// [`OutOfMemory`](crate::error::ErrorKind::OutOfMemory) where the memory is not to be had.
pub fn take_voxels(count: usize, what: &str) -> Result<Vec<f32>> {
    let mut kept = std::mem::take(&mut *KEPT.lock().unwrap_or_else(PoisonError::into_inner));
    if (count..=count.saturating_mul(TOO_LARGE)).contains(&kept.len()) {
        kept.truncate(count);
        return Ok(kept);
    }
    // Of another size: its memory is given up before more is asked for.
    drop(kept);
    zeroed(count, what)
}

/// Keeps the buffer of an image that is no longer needed, if it is the largest and not too large.
pub fn keep_voxels(mut buffer: Vec<f32>) {
    let bytes = buffer.capacity().saturating_mul(size_of::<f32>()) as u64;
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    if bytes <= *MOST && buffer.len() > kept.len() {
        std::mem::swap(&mut *kept, &mut buffer);
    }
    // Memory goes back to the system without the lock.
    drop(kept);
    drop(buffer);
}

/// Gives back what is kept: no request follows.
pub fn release_voxels() {
    drop(std::mem::take(&mut *KEPT.lock().unwrap_or_else(PoisonError::into_inner)));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One test, for what is kept is the process's.
    #[test]
    fn one_buffer_is_kept_and_used_where_it_fits() {
        let count = 1 << 20;
        keep_voxels(vec![1.0; count]);
        keep_voxels(vec![2.0; count / 2]);
        let taken = take_voxels(count - 7, "a test").unwrap();
        assert_eq!(taken.len(), count - 7);
        assert!(taken.iter().all(|&v| v == 1.0), "the larger one");
        assert!(take_voxels(count, "a test").unwrap().iter().all(|&v| v == 0.0), "a fresh one");
        keep_voxels(taken);
        let small = take_voxels(count / 4, "a test").unwrap();
        assert!(small.iter().all(|&v| v == 0.0), "far too large a one is not used");
        keep_voxels(vec![3.0; count]);
        release_voxels();
        assert!(take_voxels(count, "a test").unwrap().iter().all(|&v| v == 0.0));
        keep_voxels(vec![4.0; (CEILING / 4) as usize + 1]);
        assert!(KEPT.lock().unwrap().is_empty(), "larger than all that is kept");
    }
}
