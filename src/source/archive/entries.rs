//! Handles the entries of an archive.

use std::io::Read;

use super::meter::Meter;
use super::{Hold, Take, failed};
use crate::dicom::p10;
use crate::error::{Error, ErrorKind, Result};

/// Bytes needed to recognise a DICOM file.
const BEGINNING: u64 = p10::HEAD as u64;

/// Memory is reserved in steps of half the current size, between this minimum and maximum.
const STEPS: (u64, u64) = (64 << 10, 16 << 20);

/// Receives entries, checks them and accounts for their memory.
pub(super) struct Entries<'a, 'h, 't> {
    meter: &'a Meter,
    hold: &'a mut Hold<'h>,
    take: &'a mut Take<'t>,
}

impl<'a, 'h, 't> Entries<'a, 'h, 't> {
    pub fn new(meter: &'a Meter, hold: &'a mut Hold<'h>, take: &'a mut Take<'t>) -> Self {
        Self { meter, hold, take }
    }

    /// Returns the meter.
    pub fn meter(&self) -> &'a Meter {
        self.meter
    }

    /// Counts an entry named `name`, which must not lead out of the archive.
    pub fn begin(&mut self, name: &[u8]) -> Result<()> {
        let number = self.meter.number.get() + 1;
        self.meter.number.set(number);
        if number > self.meter.limits.entries {
            return Err(self.meter.limits.too_many());
        }
        self.check_name(name)
    }

    /// Rejects a name of the current entry that leads out of the archive.
    pub fn check_name(&self, name: &[u8]) -> Result<()> {
        if leads_outside(name) {
            return Err(self.meter.hostile("has a path that leads out of the archive"));
        }
        Ok(())
    }

    /// Reads the current entry, which claims `size` bytes, and passes it on if `check` accepts its
    /// content.
    pub fn file(
        &mut self,
        mut data: impl Read,
        size: u64,
        check: impl FnOnce(&[u8]) -> bool,
    ) -> Result<()> {
        let number = self.meter.number.get();
        let damaged = |e| failed(e, &format!("entry {number} is damaged"));
        let mut bytes = Vec::new();
        (&mut data).take(BEGINNING).read_to_end(&mut bytes).map_err(damaged)?;
        if !p10::is_dicom(&bytes) {
            return (self.take)(number, bytes);
        }
        loop {
            let there = bytes.len() as u64;
            let step = (there / 2).clamp(STEPS.0, STEPS.1).min(size.saturating_sub(there));
            if step == 0 {
                break;
            }
            (self.hold)(step)?;
            let room = usize::try_from(step).ok().and_then(|n| bytes.try_reserve_exact(n).ok());
            room.ok_or_else(|| no_memory(there + step))?;
            if (&mut data).take(step).read_to_end(&mut bytes).map_err(damaged)? as u64 != step {
                break;
            }
        }
        // Reads to the end, where a decompressor detects damage.
        let more = data.read(&mut [0]).map_err(damaged)?;
        if bytes.len() as u64 != size || more != 0 || !check(&bytes) {
            return Err(self.meter.hostile("is not what the archive says of it"));
        }
        (self.take)(number, bytes)
    }
}

fn no_memory(bytes: u64) -> Error {
    Error::new(ErrorKind::OutOfMemory, format!("there is no memory for a file of {bytes} bytes"))
}

/// Whether a path is absolute, has a drive, or has a `..` component, by the rules of any system.
fn leads_outside(name: &[u8]) -> bool {
    let separator = |b: &u8| matches!(b, b'/' | b'\\');
    let drive = matches!(name, [letter, b':', ..] if letter.is_ascii_alphabetic());
    name.first().is_some_and(separator)
        || drive
        || name.contains(&0)
        || name.split(|b| separator(b)).any(|part| part == b"..")
}
