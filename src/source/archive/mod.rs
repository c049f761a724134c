//! Archives of DICOM files: zip, tar and tar.gz, read from wherever they are without unpacking them to a disk.
//!
//! Archives come from outside. An entry that would lie outside the folder it was unpacked to, a
//! link or a device refuses the whole archive: who made it meant something else than a series of
//! images. What it expands to is bounded by the settings and by its own size, so that a small
//! archive cannot fill the memory.

mod tar;
mod zip;

use std::io::{Read, Seek};

use crate::error::{Error, ErrorKind, Result};

/// Bytes that tell the forms apart: up to the end of tar's magic number.
pub const HEAD: usize = 512;

/// An archive below this size may expand to [`FREE`] bytes, whatever its ratio.
const FREE: u64 = 64 << 20;

/// CT and MR slices are compressed to a half or a third, segmentations and masks to a hundredth.
const RATIO: u64 = 200;

/// What bytes are, by how they begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A DICOM Part 10 file.
    Dicom,
    /// A zip archive.
    Zip,
    /// A tar archive.
    Tar,
    /// Something compressed with gzip: a tar archive.
    Gzip,
    /// An object in JSON.
    Json,
}

/// What bytes that begin with `head` (at least [`HEAD`] of them, where there are so many) are.
pub fn format(head: &[u8]) -> Option<Format> {
    let starts = |magic: &[u8]| head.starts_with(magic);
    if crate::dicom::p10::is_part10(head) {
        Some(Format::Dicom)
    } else if starts(b"PK\x03\x04") || starts(b"PK\x05\x06") {
        Some(Format::Zip)
    } else if starts(b"\x1f\x8b") {
        Some(Format::Gzip)
    } else if head.get(257..262) == Some(b"ustar") {
        Some(Format::Tar)
    } else if head.trim_ascii_start().first() == Some(&b'{') {
        Some(Format::Json)
    } else {
        None
    }
}

/// How much is taken from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes, as they are after decompression.
    pub bytes: u64,
    /// Files, objects or entries.
    pub entries: usize,
}

impl Limits {
    /// So many bytes, and more files than any study has.
    pub fn of_bytes(bytes: u64) -> Self {
        Self { bytes, entries: 20_000 }
    }

    /// The error beyond the bytes.
    pub fn too_large(&self) -> Error {
        Error::new(
            ErrorKind::PayloadTooLarge,
            format!(
                "the input holds more than {} bytes, the limit of this server (MAX_INPUT_BYTES)",
                self.bytes
            ),
        )
        .with("limit", self.bytes)
    }

    /// The error beyond the entries.
    pub fn too_many(&self) -> Error {
        Error::new(
            ErrorKind::PayloadTooLarge,
            format!("the input holds more than {} files; send one series", self.entries),
        )
        .with("limit", self.entries)
    }
}

/// Takes one file of an archive: its number, counted from one, and its bytes.
pub type Take<'a> = dyn FnMut(usize, Vec<u8>) -> Result<()> + 'a;

/// Hands every file of an archive of `size` bytes to `take`, in the archive's order. Reads and
/// decompresses; not for an asynchronous thread.
///
/// # Errors
/// [`ErrorKind::InvalidRequest`] where it is no such archive, is damaged or encrypted, or holds
/// what it must not; [`ErrorKind::PayloadTooLarge`] beyond `limits`; and what `take` returns.
pub fn read(
    archive: impl Read + Seek,
    size: u64,
    format: Format,
    limits: Limits,
    take: &mut Take,
) -> Result<()> {
    let most = FREE.max(size.saturating_mul(RATIO));
    let (left, by_ratio) = (limits.bytes.min(most), most < limits.bytes);
    let mut entries = Entries { limits, number: 0, left, by_ratio, take };
    match format {
        Format::Zip => zip::read(archive, &mut entries),
        Format::Tar => tar::read(archive, &mut entries),
        // Concatenated members are one stream (RFC 1952 section 2.2).
        Format::Gzip => tar::read(flate2::read::MultiGzDecoder::new(archive), &mut entries),
        Format::Dicom | Format::Json => Err(Error::internal("this is no archive")),
    }
}

/// Where entries go, and what they have left.
struct Entries<'a, 'b> {
    limits: Limits,
    number: usize,
    /// Bytes that may still come.
    left: u64,
    /// Whether it is the archive's own size that bounds them.
    by_ratio: bool,
    take: &'a mut Take<'b>,
}

impl Entries<'_, '_> {
    /// Counts an entry of `name`, which must lie inside.
    fn begin(&mut self, name: &[u8]) -> Result<()> {
        self.number += 1;
        if self.number > self.limits.entries {
            return Err(self.limits.too_many());
        }
        if leads_outside(name) {
            return Err(self.hostile("has a path that leads out of the archive"));
        }
        Ok(())
    }

    /// Reads the entry begun and hands it on.
    fn file(&mut self, data: impl Read) -> Result<()> {
        let mut bytes = Vec::new();
        // One byte more than there may be tells a file that is too large from one that just fits.
        let read = data.take(self.left.saturating_add(1)).read_to_end(&mut bytes);
        read.map_err(|e| failed(e, &format!("entry {} is damaged", self.number)))?;
        let size = bytes.len() as u64;
        if size > self.left {
            return Err(match self.by_ratio {
                true => self.hostile("expands to more than an archive of this size may hold"),
                false => self.limits.too_large(),
            });
        }
        self.left -= size;
        (self.take)(self.number, bytes)
    }

    /// An error about the entry begun, which is not named: names are often those of patients.
    fn hostile(&self, why: &str) -> Error {
        Error::new(ErrorKind::InvalidRequest, format!("the archive's entry {} {why}", self.number))
            .with("entry", self.number)
    }
}

/// Whether a path is absolute, has a drive, or has a step upwards, by the rules of any system.
fn leads_outside(name: &[u8]) -> bool {
    let separator = |b: &u8| matches!(b, b'/' | b'\\');
    let drive = matches!(name, [letter, b':', ..] if letter.is_ascii_alphabetic());
    name.first().is_some_and(separator)
        || drive
        || name.contains(&0)
        || name.split(|b| separator(b)).any(|part| part == b"..")
}

/// A failure to read: our own error where a reader of ours passed it through, else that of a
/// damaged archive.
fn failed(error: std::io::Error, what: &str) -> Error {
    if error.get_ref().is_some_and(|inner| inner.is::<Error>()) {
        let inner = error.into_inner().and_then(|inner| inner.downcast::<Error>().ok());
        return inner.map_or_else(|| Error::internal("an error was lost"), |inner| *inner);
    }
    Error::new(ErrorKind::InvalidRequest, format!("the archive cannot be read: {what}"))
        .caused_by(error)
}

#[cfg(test)]
mod tests;
