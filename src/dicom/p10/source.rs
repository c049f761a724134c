//! The input of a file: counts the remaining bytes, so that no length in the file is trusted beyond
//! them, and appends bytes without an intermediate copy.

use std::cell::Cell;
use std::io::{self, Read};

use super::{malformed, malformed_at};
use crate::error::{Error, ErrorKind, Result};

/// Called with a number of bytes before they are allocated.
pub type Hold<'h> = dyn FnMut(u64) -> Result<()> + 'h;

/// A file that is read once, from start to end.
pub(super) struct Source<'a, 'h, R> {
    file: R,
    left: &'a Cell<u64>,
    /// Bytes of a tag that were pushed back, and how many of them are still to be read.
    back: ([u8; 4], usize),
    /// Called before memory is allocated that is not yet accounted for.
    hold: Option<&'a mut Hold<'h>>,
}

impl<'a, 'h, R: Read> Source<'a, 'h, R> {
    /// `left` is the number of available bytes and is kept up to date.
    pub fn new(file: R, left: &'a Cell<u64>) -> Self {
        Self { file, left, back: ([0; 4], 0), hold: None }
    }

    /// Calls `hold` before memory for values is allocated.
    pub fn holding(self, hold: &'a mut Hold<'h>) -> Self {
        Self { hold: Some(hold), ..self }
    }

    /// Pushes back the four bytes just read, which are then read next.
    pub fn give_back(&mut self, bytes: [u8; 4]) {
        self.back = (bytes, 4);
        self.left.set(self.left().saturating_add(4));
    }

    /// Returns the number of remaining bytes.
    pub fn left(&self) -> u64 {
        self.left.get()
    }

    /// Reads the next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.read_exact(&mut bytes).map_err(malformed_at)?;
        Ok(bytes)
    }

    /// Skips `length` bytes.
    pub fn skip(&mut self, length: u64) -> Result<()> {
        let passed = io::copy(&mut self.by_ref().take(length), &mut io::sink());
        if passed.map_err(malformed_at)? == length { Ok(()) } else { Err(malformed(())) }
    }

    /// Reads the next `length` bytes and appends them.
    pub fn append(&mut self, length: u64, to: &mut Vec<u8>) -> Result<()> {
        if length > self.left() {
            return Err(malformed(()));
        }
        if let Some(hold) = &mut self.hold {
            hold(length)?;
        }
        reserve(to, length)?;
        let read = self.by_ref().take(length).read_to_end(to).map_err(malformed_at)?;
        if read as u64 == length { Ok(()) } else { Err(malformed(())) }
    }
}

/// Reserves room for `length` more bytes, or returns an error if memory is short.
pub(super) fn reserve(to: &mut Vec<u8>, length: u64) -> Result<()> {
    let room = usize::try_from(length).ok().and_then(|n| to.try_reserve_exact(n).ok());
    room.ok_or_else(|| {
        Error::new(ErrorKind::OutOfMemory, format!("there is no memory for {length} bytes"))
    })
}

impl<R: Read> Read for Source<'_, '_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (bytes, rest) = self.back;
        if rest > 0 {
            let count = rest.min(buffer.len());
            buffer[..count].copy_from_slice(&bytes[4 - rest..4 - rest + count]);
            self.back.1 -= count;
            self.left.set(self.left().saturating_sub(count as u64));
            return Ok(count);
        }
        let most = usize::try_from(self.left()).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.file.read(&mut buffer[..most])?;
        self.left.set(self.left().saturating_sub(read as u64));
        Ok(read)
    }
}
