//! Keeps the large buffers of requests for the next ones.
//!
//! Memory newly obtained from the system is mapped and cleared on first touch; a virtual machine
//! that returns freed memory to its host even has to get it back from there. For a volume this can
//! take longer than decoding it. A few buffers are kept, together no larger than half of the memory outside the
//! accounts, and only while requests follow each other: see [`release_kept`].

use std::any::Any;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ndarray::{Array, Dim, Dimension, IntoDimension};
use rayon::prelude::*;

use super::zeroed::{Zeroed, zeroed};
use crate::error::{Error, Result};

static KEPT: Kept = Kept::new();

/// Maximum number of bytes kept: half of the memory set aside.
static MOST: LazyLock<u64> =
    LazyLock::new(|| super::limit().map_or(CEILING, |limit| CEILING.min(limit / 32)));
const CEILING: u64 = 2 << 30;

/// Most buffers kept, which bounds the search.
const BUFFERS: usize = 32;

/// A kept buffer more than this many times larger than requested is not reused.
const TOO_LARGE: usize = 2;

/// Smaller buffers are left to the allocator.
const SMALLEST: u64 = 1 << 20;

/// A buffer that was not used again while this many others were kept is freed: images of its size no longer come.
const STALE: u64 = 64;

/// Bytes that one thread clears at a time.
const PART: usize = 1 << 20;

/// Returns `count` numbers of arbitrary value: zeros, or those of an earlier request. The caller must write all of
/// them before reading any. `what` names the buffer in the error.
///
/// # Errors
/// [`OutOfMemory`](crate::error::ErrorKind::OutOfMemory) if the memory cannot be allocated.
pub fn take_kept<T: Zeroed>(count: usize, what: &str) -> Result<Vec<T>> {
    match KEPT.take(count) {
        Some(buffer) => Ok(buffer),
        None => fresh(count, what),
    }
}

/// Returns `count` zeros, in a kept buffer if there is one. `what` names the buffer in the error.
///
/// # Errors
/// Those of [`take_kept`].
fn take_zeroed<T: Zeroed>(count: usize, what: &str) -> Result<Vec<T>> {
    let Some(mut buffer) = KEPT.take(count) else { return fresh(count, what) };
    buffer.par_chunks_mut(PART / size_of::<T>()).for_each(|part| part.fill(T::default()));
    Ok(buffer)
}

/// Returns an array of zeros in standard layout, in a kept buffer if there is one. `what` names it in the error.
///
/// # Errors
/// Those of [`take_kept`]; a size that overflows fails like one that exceeds the memory.
pub fn zeros<T: Zeroed, const N: usize>(shape: [usize; N], what: &str) -> Result<ArrayOf<T, N>>
where
    [usize; N]: IntoDimension<Dim = Dim<[usize; N]>>,
    Dim<[usize; N]>: Dimension,
{
    shaped(shape, take_zeroed(count(shape), what)?)
}

/// Like [`zeros`], but of arbitrary values, as from [`take_kept`].
///
/// # Errors
/// Those of [`zeros`].
pub fn any_values<T: Zeroed, const N: usize>(shape: [usize; N], what: &str) -> Result<ArrayOf<T, N>>
where
    [usize; N]: IntoDimension<Dim = Dim<[usize; N]>>,
    Dim<[usize; N]>: Dimension,
{
    shaped(shape, take_kept(count(shape), what)?)
}

/// An array of `N` axes.
type ArrayOf<T, const N: usize> = Array<T, Dim<[usize; N]>>;

fn count<const N: usize>(shape: [usize; N]) -> usize {
    shape.iter().fold(1, |product: usize, &n| product.saturating_mul(n))
}

fn shaped<T, const N: usize>(shape: [usize; N], values: Vec<T>) -> Result<ArrayOf<T, N>>
where
    [usize; N]: IntoDimension<Dim = Dim<[usize; N]>>,
    Dim<[usize; N]>: Dimension,
{
    Array::from_shape_vec(shape, values)
        .map_err(|e| Error::internal("an array has another shape").caused_by(e))
}

/// Keeps a buffer that is no longer needed, if it fits the limits.
pub fn keep<T: Send + 'static>(buffer: Vec<T>) {
    KEPT.put(buffer, *MOST);
}

/// Returns how long ago a buffer was last kept, if ever.
pub fn last_kept() -> Option<Duration> {
    KEPT.buffers().last.map(|last| last.elapsed())
}

/// Frees the kept buffers when no request follows.
pub fn release_kept() {
    KEPT.release();
}

/// Allocates zeros; if the system has no memory for them, without the kept buffers.
fn fresh<T: Zeroed>(count: usize, what: &str) -> Result<Vec<T>> {
    zeroed(count, what).or_else(|_| {
        release_kept();
        zeroed(count, what)
    })
}

/// Unused buffers of all types.
struct Kept(Mutex<Buffers>);

struct Buffers {
    all: Vec<Buffer>,
    /// Number of buffers put so far.
    put: u64,
    /// When the latest was.
    last: Option<Instant>,
}

struct Buffer {
    bytes: u64,
    /// Its number among the buffers put.
    number: u64,
    /// A `Vec<T>`.
    values: Box<dyn Any + Send>,
}

impl Kept {
    const fn new() -> Self {
        Self(Mutex::new(Buffers { all: Vec::new(), put: 0, last: None }))
    }

    fn buffers(&self) -> MutexGuard<'_, Buffers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes `count` numbers of the smallest buffer that fits.
    fn take<T: 'static>(&self, count: usize) -> Option<Vec<T>> {
        let fitting = count..=count.saturating_mul(TOO_LARGE);
        let length = |buffer: &Buffer| buffer.values.downcast_ref::<Vec<T>>().map(Vec::len);
        let mut buffers = self.buffers();
        let lengths = buffers.all.iter().enumerate().filter_map(|(i, b)| Some((length(b)?, i)));
        let (_, index) = lengths.filter(|(length, _)| fitting.contains(length)).min()?;
        let buffer = buffers.all.swap_remove(index);
        drop(buffers);
        let mut values = *buffer.values.downcast::<Vec<T>>().ok()?;
        values.truncate(count);
        Some(values)
    }

    /// Puts a buffer. Beyond the limits, those not used for long are freed, then the smallest.
    fn put<T: Send + 'static>(&self, values: Vec<T>, most: u64) {
        let bytes = values.capacity() as u64 * size_of::<T>() as u64;
        // Of one cut short, the rest could never be used.
        if !(SMALLEST..=most).contains(&bytes) || values.len() < values.capacity() / TOO_LARGE {
            return;
        }
        let mut buffers = self.buffers();
        buffers.put += 1;
        buffers.last = Some(Instant::now());
        let number = buffers.put;
        buffers.all.push(Buffer { bytes, number, values: Box::new(values) });
        buffers.all.sort_by_key(|buffer| std::cmp::Reverse(buffer.bytes));
        let mut total = 0;
        let mut count = 0;
        let beyond: Vec<Buffer> = buffers
            .all
            .extract_if(.., |buffer| {
                let stays = number - buffer.number <= STALE
                    && total + buffer.bytes <= most
                    && count < BUFFERS;
                if stays {
                    (total, count) = (total + buffer.bytes, count + 1);
                }
                !stays
            })
            .collect();
        // Frees the memory outside the lock.
        drop(buffers);
        drop(beyond);
    }

    fn release(&self) {
        let all = std::mem::take(&mut self.buffers().all);
        drop(all);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Numbers in a buffer of the smallest size.
    const COUNT: usize = SMALLEST as usize / size_of::<f32>();

    fn lengths(kept: &Kept) -> Vec<usize> {
        let length = |b: &Buffer| b.values.downcast_ref::<Vec<f32>>().map_or(0, Vec::len);
        kept.buffers().all.iter().map(length).collect()
    }

    #[test]
    fn buffers_are_kept_and_used_where_they_fit() {
        let most = 8 * SMALLEST;
        let kept = Kept::new();
        kept.put(vec![1f32; 2 * COUNT], most);
        kept.put(vec![2f32; COUNT - 1], most);
        assert_eq!(lengths(&kept), [2 * COUNT], "too small a one is not kept");
        assert_eq!(kept.take::<u16>(2 * COUNT), None, "of another type");
        assert_eq!(kept.take::<f32>(2 * COUNT + 1), None);
        assert_eq!(kept.take::<f32>(COUNT - 1), None, "far too large a one is not used");
        assert_eq!(kept.take(2 * COUNT - 7), Some(vec![1f32; 2 * COUNT - 7]));
        assert_eq!(kept.take::<f32>(COUNT), None, "it was taken");
        // The smallest that fits first.
        kept.put(vec![3f32; 2 * COUNT], most);
        kept.put(vec![4u16; 4 * COUNT], most);
        kept.put(vec![5f32; 2 * COUNT - 1], most);
        assert_eq!(kept.take(2 * COUNT - 1), Some(vec![5f32; 2 * COUNT - 1]));
        assert_eq!(kept.take(2 * COUNT - 1), Some(vec![3f32; 2 * COUNT - 1]));
        kept.release();
        assert_eq!(kept.take::<u16>(4 * COUNT), None, "it was released");
        kept.put(vec![0f32; 8 * COUNT + 1], most);
        assert!(lengths(&kept).is_empty(), "larger than all that is kept");
        let mut cut = vec![0f32; 4 * COUNT];
        cut.truncate(COUNT);
        kept.put(cut, most);
        assert!(lengths(&kept).is_empty(), "most of it could not be used");
    }

    #[test]
    fn the_smallest_and_the_oldest_are_freed_beyond_the_limits() {
        let kept = Kept::new();
        for times in [2, 4, 3, 5] {
            kept.put(vec![0f32; times * COUNT], 10 * SMALLEST);
        }
        assert_eq!(lengths(&kept), [5 * COUNT, 4 * COUNT], "ten times the smallest together");
        for _ in 0..2 * BUFFERS {
            kept.put(vec![0f32; COUNT], u64::MAX);
        }
        assert_eq!(lengths(&kept).len(), BUFFERS);
        for _ in 0..STALE {
            let used = kept.take::<f32>(COUNT).unwrap();
            kept.put(used, u64::MAX);
        }
        assert!(!lengths(&kept).contains(&(5 * COUNT)), "of a size that no longer comes");
    }

    proptest! {
        #[test]
        fn buffers_have_the_length_asked_for(counts in prop::collection::vec(0usize..3 << 20, 1..8)) {
            for count in counts {
                let bytes = take_kept::<u8>(count, "a test").unwrap();
                prop_assert_eq!(bytes.len(), count);
                keep(vec![7u8; bytes.len()]);
                let zeros = take_zeroed::<u8>(count, "a test").unwrap();
                prop_assert!(zeros.len() == count && zeros.iter().all(|v| *v == 0));
                keep(bytes);
                keep(zeros);
            }
        }
    }
}
