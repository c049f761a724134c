//! Counts the bytes read of an archive and the bytes that come out of it.

use std::cell::{Cell, RefCell};
use std::io::{self, Read, Seek, SeekFrom};

use super::Limits;
use crate::error::{Error, ErrorKind, Result};

/// Bytes that any archive may expand to, whatever its size.
const FREE: u64 = 32 << 20;

/// Bytes that may come out for each byte read: CT and MR slices compress to a half or a third,
/// segmentations and masks to a hundredth. Deflate can reach 1032.
const RATIO: u64 = 200;

/// Both counts and their limits.
pub(super) struct Meter {
    /// Size of the whole archive. Bytes read twice count only once.
    size: u64,
    pub limits: Limits,
    /// Number of the current entry, counted from one.
    pub number: Cell<usize>,
    read: Cell<u64>,
    given: Cell<u64>,
    refusal: RefCell<Option<Error>>,
}

impl Meter {
    pub fn new(size: u64, limits: Limits) -> Self {
        Self {
            size,
            limits,
            number: Cell::new(0),
            read: Cell::new(0),
            given: Cell::new(0),
            refusal: RefCell::new(None),
        }
    }

    /// Counts bytes that come out.
    fn give(&self, bytes: u64) -> Result<()> {
        let given = self.given.get().saturating_add(bytes);
        self.given.set(given);
        if given > self.limits.bytes {
            return Err(self.limits.too_large());
        }
        let paid = self.read.get().min(self.size);
        if given > FREE.saturating_add(paid.saturating_mul(RATIO)) {
            return Err(self.hostile("expands to more than an archive of this size may hold"));
        }
        Ok(())
    }

    /// Creates an error about the current entry, by number: names often contain patient names.
    pub fn hostile(&self, why: &str) -> Error {
        let number = self.number.get();
        Error::new(ErrorKind::InvalidRequest, format!("the archive's entry {number} {why}"))
            .with("entry", number)
    }

    /// Keeps an error for the end and returns it as an I/O error.
    fn refuse(&self, error: Error) -> io::Error {
        let message = error.to_string();
        self.refusal.borrow_mut().get_or_insert(error);
        io::Error::other(message)
    }

    /// Returns the first error kept.
    pub fn refusal(&self) -> Option<Error> {
        self.refusal.borrow_mut().take()
    }
}

/// Reader of the archive, counting its bytes.
pub(super) struct In<'a, R> {
    archive: R,
    meter: &'a Meter,
}

impl<'a, R> In<'a, R> {
    pub fn new(archive: R, meter: &'a Meter) -> Self {
        Self { archive, meter }
    }
}

impl<R: Read> Read for In<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = match self.archive.read(buffer) {
            Ok(count) => count,
            // One of this crate's errors, for example from S3.
            Err(e) if e.get_ref().is_some_and(|inner| inner.is::<Error>()) => {
                return Err(e.downcast().map_or_else(|e| e, |own| self.meter.refuse(own)));
            }
            Err(e) => return Err(e),
        };
        self.meter.read.set(self.meter.read.get().saturating_add(count as u64));
        Ok(count)
    }
}

impl<R: Seek> Seek for In<'_, R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.archive.seek(to)
    }
}

/// Reader of decompressed data, counting its bytes.
pub(super) struct Out<'a, R> {
    data: R,
    meter: &'a Meter,
}

impl<'a, R> Out<'a, R> {
    pub fn new(data: R, meter: &'a Meter) -> Self {
        Self { data, meter }
    }
}

impl<R: Read> Read for Out<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.data.read(buffer)?;
        self.meter.give(count as u64).map_err(|e| self.meter.refuse(e))?;
        Ok(count)
    }
}
