//! Reusable buffers.
//!
//! A new buffer of a few hundred kilobytes comes from the system, which maps and clears it page by
//! page on first touch and unmaps it when freed. For frame bodies and decoded frames, that is a
//! considerable part of the work. Buffers on a shelf are handed out again, the latest first,
//! because it may still be in a cache. Unused buffers are bounded in bytes and number and belong to
//! no request; a buffer is empty when handed out, so that no data passes from one request to
//! another.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;

/// Maximum number of unused buffers, which bounds the search.
const KEPT: usize = 32;

/// A buffer more than this many times larger than requested is left for those that need it.
const TOO_LARGE: usize = 2;

/// A thread-safe store for unused buffers of one kind.
#[derive(Debug)]
pub struct Shelf<T> {
    kept: Mutex<Kept<T>>,
    most: usize,
}

/// Unused buffers, the latest at the end.
#[derive(Debug)]
struct Kept<T> {
    buffers: Vec<Vec<T>>,
    bytes: usize,
}

impl<T> Shelf<T> {
    /// Creates a shelf that keeps at most `most` bytes.
    pub const fn new(most: usize) -> Self {
        Self { kept: Mutex::new(Kept { buffers: Vec::new(), bytes: 0 }), most }
    }

    /// Returns an empty buffer with capacity for `count` elements, reused if possible. If memory is
    /// short, the capacity is smaller: call `try_reserve` before filling it, which costs nothing if
    /// the capacity suffices.
    pub fn take(&self, count: usize) -> Vec<T> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).take(count);
        kept.unwrap_or_else(|| {
            let mut fresh = Vec::new();
            // A failure shows when the caller reserves.
            let _ = fresh.try_reserve_exact(count);
            fresh
        })
    }

    /// Keeps `buffer`, cleared, if it fits the limits. Older buffers are freed to make room,
    /// because their size may never be needed again.
    pub fn put(&self, mut buffer: Vec<T>) {
        buffer.clear();
        let freed = self.kept.lock().unwrap_or_else(PoisonError::into_inner).put(buffer, self.most);
        // Frees the memory outside the lock.
        drop(freed);
    }
}

/// Byte capacities are multiples of this, so that buffers of similar size can replace each other.
const ROUND: usize = 64 << 10;

impl Shelf<u8> {
    /// Returns an empty buffer with capacity for `count` bytes, and at most twice that. Small
    /// buffers are not pooled.
    pub fn room(&self, count: usize) -> Vec<u8> {
        if count < ROUND { Vec::new() } else { self.take(count.next_multiple_of(ROUND)) }
    }

    /// Returns the bytes of `buffer`, whose memory returns to the shelf when the last slice is
    /// dropped.
    pub fn lend(&'static self, buffer: Vec<u8>) -> Bytes {
        if buffer.capacity() < ROUND {
            return buffer.into();
        }
        Bytes::from_owner(Lent { buffer, shelf: self })
    }
}

struct Lent {
    buffer: Vec<u8>,
    shelf: &'static Shelf<u8>,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.shelf.put(std::mem::take(&mut self.buffer));
    }
}

fn bytes_of<T>(buffer: &Vec<T>) -> usize {
    buffer.capacity().saturating_mul(size_of::<T>())
}

impl<T> Kept<T> {
    /// Returns the latest buffer with capacity for `count` that is not too large.
    fn take(&mut self, count: usize) -> Option<Vec<T>> {
        let most = count.saturating_mul(TOO_LARGE);
        let fits = |buffer: &Vec<T>| (count..=most).contains(&buffer.capacity());
        let found = self.buffers.iter().rposition(fits)?;
        let buffer = self.buffers.remove(found);
        self.bytes -= bytes_of(&buffer);
        Some(buffer)
    }

    /// Adds a buffer; returns the buffers to free.
    fn put(&mut self, buffer: Vec<T>, most: usize) -> Vec<Vec<T>> {
        let bytes = bytes_of(&buffer);
        if bytes == 0 || bytes > most {
            return vec![buffer];
        }
        let mut freed = Vec::new();
        while self.buffers.len() >= KEPT || self.bytes + bytes > most {
            let oldest = self.buffers.remove(0);
            self.bytes -= bytes_of(&oldest);
            freed.push(oldest);
        }
        self.bytes += bytes;
        self.buffers.push(buffer);
        freed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: usize = 8 << 20;

    impl<T> Shelf<T> {
        /// Number of bytes and buffers kept.
        fn kept(&self) -> (usize, usize) {
            let kept = self.kept.lock().unwrap();
            (kept.bytes, kept.buffers.len())
        }
    }

    fn of(count: usize) -> Vec<u16> {
        Vec::with_capacity(count)
    }

    #[test]
    fn the_latest_that_fits_is_handed_out_and_is_empty() {
        let shelf = Shelf::new(MOST);
        for count in [100, 150, 500] {
            let mut buffer = of(count);
            buffer.resize(count, 7);
            shelf.put(buffer);
        }
        assert_eq!(shelf.kept(), (2 * 750, 3));
        let buffer = shelf.take(100);
        assert_eq!((buffer.capacity(), buffer.len()), (150, 0));
        assert_eq!(shelf.take(200).capacity(), 200, "a fresh one: 500 are too many for 200");
        assert_eq!(shelf.take(300).capacity(), 500);
        assert_eq!(shelf.take(90).capacity(), 100);
        assert_eq!(shelf.kept(), (0, 0));
        assert_eq!(shelf.take(0).capacity(), 0);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let shelf = Shelf::new(MOST);
        shelf.put(of(MOST / 2 + 1));
        shelf.put(of(0));
        assert_eq!(shelf.kept(), (0, 0), "larger than all that is kept, and nothing");
        (0..2 * KEPT).for_each(|_| shelf.put(of(8)));
        assert_eq!(shelf.kept(), (16 * KEPT, KEPT));
        shelf.put(of(MOST / 2));
        assert_eq!(shelf.kept(), (MOST, 1), "older ones make room");
    }

    #[test]
    fn memory_goes_back_with_the_last_slice() {
        static SHELF: Shelf<u8> = Shelf::new(MOST);
        let mut buffer = SHELF.room(3 * ROUND / 2);
        assert_eq!(buffer.capacity(), 2 * ROUND);
        buffer.extend_from_slice(&[7; ROUND]);
        let bytes = SHELF.lend(buffer);
        let slice = bytes.slice(5..7);
        drop(bytes);
        assert_eq!((SHELF.kept(), &slice[..]), ((0, 0), &[7, 7][..]), "a slice of it is there");
        drop(slice);
        assert_eq!(SHELF.kept(), (2 * ROUND, 1));
        let again = SHELF.room(ROUND + 1);
        assert_eq!((again.len(), SHELF.kept()), (0, (0, 0)));
        // Small buffers are not pooled.
        assert_eq!(SHELF.room(ROUND - 1).capacity(), 0);
        drop(SHELF.lend(vec![1, 2, 3]));
        assert_eq!(SHELF.kept(), (0, 0));
    }

    #[test]
    fn memory_that_is_not_there_is_found_out_by_reserving() {
        let mut buffer = Shelf::<u16>::new(MOST).take(usize::MAX / 4);
        assert_eq!(buffer.capacity(), 0);
        assert!(buffer.try_reserve(usize::MAX / 4).is_err());
    }
}
