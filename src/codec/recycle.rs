//! Buffers of decoded frames, used again.
//!
//! A fresh buffer of half a megabyte comes from the system, which maps and clears it page by page at
//! the first touch and takes it back when it is freed: for a fast decoder that is a good part of the
//! work. Buffers that were given back here are handed out once more, the latest first, for it is the
//! one that a cache may still hold. What lies here unused is bounded in bytes and number, and belongs
//! to nobody: a buffer is empty when it is handed out, so that no frame's pixels reach another's.

use std::sync::{Mutex, PoisonError};

use super::Samples;

/// Bytes of unused buffers that are kept of each kind.
const KEPT_BYTES: usize = 8 << 20;

/// Unused buffers that are kept of each kind, so that many small ones are not searched through.
const KEPT: usize = 32;

/// A buffer so many times as large as what is asked for is left to larger frames.
const TOO_LARGE: usize = 4;

static UNSIGNED: Mutex<Shelf<u16>> = Mutex::new(Shelf::new());
static SIGNED: Mutex<Shelf<i16>> = Mutex::new(Shelf::new());

/// Unused buffers, the latest at the end.
struct Shelf<T> {
    buffers: Vec<Vec<T>>,
    bytes: usize,
}

impl<T> Shelf<T> {
    const fn new() -> Self {
        Self { buffers: Vec::new(), bytes: 0 }
    }

    fn bytes_of(buffer: &Vec<T>) -> usize {
        buffer.capacity().saturating_mul(size_of::<T>())
    }

    /// The latest buffer that has room for `count` and not far too much.
    fn take(&mut self, count: usize) -> Option<Vec<T>> {
        let most = count.saturating_mul(TOO_LARGE);
        let fits = |buffer: &Vec<T>| (count..=most).contains(&buffer.capacity());
        let found = self.buffers.iter().rposition(fits)?;
        let buffer = self.buffers.remove(found);
        self.bytes -= Self::bytes_of(&buffer);
        Some(buffer)
    }

    /// Keeps `buffer` where there is room; older ones make room for it, for frames of their size may
    /// never come again. Returns what is to be freed.
    fn put(&mut self, mut buffer: Vec<T>) -> Vec<Vec<T>> {
        buffer.clear();
        let bytes = Self::bytes_of(&buffer);
        if bytes == 0 || bytes > KEPT_BYTES {
            return vec![buffer];
        }
        let mut freed = Vec::new();
        while self.buffers.len() >= KEPT || self.bytes + bytes > KEPT_BYTES {
            let oldest = self.buffers.remove(0);
            self.bytes -= Self::bytes_of(&oldest);
            freed.push(oldest);
        }
        self.bytes += bytes;
        self.buffers.push(buffer);
        freed
    }
}

fn taken<T>(shelf: &Mutex<Shelf<T>>, count: usize) -> Vec<T> {
    let kept = shelf.lock().unwrap_or_else(PoisonError::into_inner).take(count);
    kept.unwrap_or_else(|| {
        let mut fresh = Vec::new();
        // Where the memory is not there, whoever fills the buffer finds that out by reserving it.
        let _ = fresh.try_reserve_exact(count);
        fresh
    })
}

fn put<T>(shelf: &Mutex<Shelf<T>>, buffer: Vec<T>) {
    let freed = shelf.lock().unwrap_or_else(PoisonError::into_inner).put(buffer);
    // Memory goes back to the system without the lock.
    drop(freed);
}

/// An empty list with room for `count` pixels, one that was used before if there is one. Where the
/// system has no memory it has less room: reserve before filling it (`try_reserve`), which costs
/// nothing where the room is there.
#[cfg_attr(not(test), allow(dead_code))]
pub(crate) fn buffer_u16(count: usize) -> Vec<u16> {
    taken(&UNSIGNED, count)
}

/// As [`buffer_u16`], for two's complement pixels.
#[cfg_attr(not(test), allow(dead_code))]
pub(crate) fn buffer_i16(count: usize) -> Vec<i16> {
    taken(&SIGNED, count)
}

/// Takes a decoded frame's memory back for the next one. Pixels of more than 16 bits are just freed.
pub fn recycle(samples: Samples) {
    match samples {
        Samples::I16(buffer) => put(&SIGNED, buffer),
        Samples::U16(buffer) => put(&UNSIGNED, buffer),
        Samples::I32(_) | Samples::U32(_) | Samples::F32(_) | Samples::F64(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(count: usize) -> Vec<u16> {
        Vec::with_capacity(count)
    }

    #[test]
    fn the_latest_that_fits_is_handed_out_and_is_empty() {
        let mut shelf = Shelf::new();
        for count in [100, 150, 1000] {
            let mut buffer = of(count);
            buffer.resize(count, 7);
            assert!(shelf.put(buffer).is_empty());
        }
        assert_eq!(shelf.bytes, 2 * 1250);
        let buffer = shelf.take(100).unwrap();
        assert_eq!((buffer.capacity(), buffer.len()), (150, 0));
        assert!(shelf.take(200).is_none(), "1000 are too many for 200");
        assert_eq!(shelf.take(300).unwrap().capacity(), 1000);
        assert_eq!(shelf.take(90).unwrap().capacity(), 100);
        assert_eq!((shelf.bytes, shelf.buffers.len()), (0, 0));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut shelf = Shelf::new();
        assert_eq!(shelf.put(of(KEPT_BYTES / 2 + 1)).len(), 1, "larger than all that is kept");
        assert_eq!(shelf.put(of(0)).len(), 1);
        for _ in 0..2 * KEPT {
            shelf.put(of(8));
        }
        assert_eq!(shelf.buffers.len(), KEPT);
        assert_eq!(shelf.put(of(KEPT_BYTES / 2)).len(), KEPT, "older ones make room");
        assert_eq!((shelf.bytes, shelf.buffers.len()), (KEPT_BYTES, 1));
    }

    #[test]
    fn frames_give_their_memory_back() {
        // Of a size that no other test has, for the shelves are the process's.
        let count = 12_347;
        recycle(Samples::I16(vec![1; count]));
        let signed = buffer_i16(count);
        assert!(signed.is_empty() && signed.capacity() >= count);
        recycle(Samples::U16(vec![1; count]));
        let unsigned = buffer_u16(count);
        assert!(unsigned.is_empty() && unsigned.capacity() >= count);
        recycle(Samples::F32(vec![1.0; count]));
        assert!(buffer_u16(count).capacity() >= count, "a fresh one");
    }
}
