//! Buffers that are used again.
//!
//! A fresh buffer of some hundred kilobytes comes from the system, which maps and clears it page by page
//! at the first touch and takes it back when it is freed: for bodies of frames and for what is decoded
//! of them that is a good part of the work. Buffers that were put on a shelf are handed out once more,
//! the latest first, for it is the one that a cache may still hold. What lies there unused is bounded
//! in bytes and number and belongs to nobody; a buffer is empty when it is handed out, so that nothing
//! of one request reaches another.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;

/// Unused buffers that are kept, so that many small ones are not searched through.
const KEPT: usize = 32;

/// A buffer so many times as large as what is asked for is left to those that need it.
const TOO_LARGE: usize = 2;

/// A place for unused buffers of one kind, shared by threads.
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
    /// Keeps at most `most` bytes.
    pub const fn new(most: usize) -> Self {
        Self { kept: Mutex::new(Kept { buffers: Vec::new(), bytes: 0 }), most }
    }

    /// An empty buffer with room for `count` elements, one that was used before if there is one. Where the
    /// system has no memory it has less room: reserve before filling it (`try_reserve`), which costs
    /// nothing where the room is there.
    pub fn take(&self, count: usize) -> Vec<T> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).take(count);
        kept.unwrap_or_else(|| {
            let mut fresh = Vec::new();
            // Whoever fills the buffer finds out by reserving.
            let _ = fresh.try_reserve_exact(count);
            fresh
        })
    }

    /// Keeps `buffer`, without what is in it, where there is room. Older ones make room for it, for what
    /// is of their size may never come again.
    pub fn put(&self, mut buffer: Vec<T>) {
        buffer.clear();
        let freed = self.kept.lock().unwrap_or_else(PoisonError::into_inner).put(buffer, self.most);
        // Memory goes back to the system without the lock.
        drop(freed);
    }
}

/// Rooms for bytes are multiples of so many, so that one has the memory of another of about its size.
const ROUND: usize = 64 << 10;

impl Shelf<u8> {
    /// An empty buffer with room for `count` bytes and at most twice as many. Few bytes are none of the
    /// shelf's business.
    pub fn room(&self, count: usize) -> Vec<u8> {
        if count < ROUND { Vec::new() } else { self.take(count.next_multiple_of(ROUND)) }
    }

    /// The bytes of `buffer`, whose memory is put on the shelf once nobody has a slice of them.
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
    /// The latest buffer that has room for `count` and not far too much.
    fn take(&mut self, count: usize) -> Option<Vec<T>> {
        let most = count.saturating_mul(TOO_LARGE);
        let fits = |buffer: &Vec<T>| (count..=most).contains(&buffer.capacity());
        let found = self.buffers.iter().rposition(fits)?;
        let buffer = self.buffers.remove(found);
        self.bytes -= bytes_of(&buffer);
        Some(buffer)
    }

    /// Returns what is to be freed.
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
        /// Bytes and buffers that are kept.
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
        // Small ones are left alone.
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
