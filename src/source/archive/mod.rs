//! Archives of DICOM files: zip, tar and tar.gz, read from wherever they are without unpacking them to a disk.
//!
//! Archives come from outside. An entry that would lie outside the folder it was unpacked to, a
//! link or a device refuses the whole archive: who made it meant something else than a series of
//! images. What counts is what the decompressor gives out, whatever entries say of themselves and
//! whether it is kept or passed over (`meter`): it is bounded by the settings and, at every moment,
//! by what was read of the archive until then, so that a bomb is refused soon. Memory is asked for
//! step by step, each step announced to whoever keeps account of it.

mod directory;
mod entries;
mod gzip;
mod meter;
mod tar;
mod zip;

use std::io::{Read, Seek};

use self::entries::Entries;
use self::meter::{In, Meter, Out};
use crate::error::{Error, ErrorKind, Result};

/// Bytes that tell the forms apart: to the end of tar's magic number, and what tells DICOM files.
pub const HEAD: usize = crate::dicom::p10::HEAD;

/// What bytes are, by how they begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A DICOM file.
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
    if crate::dicom::p10::is_dicom(&head[..head.len().min(HEAD)]) {
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
                "the input holds more than {} bytes, the limit that MAX_INPUT_BYTES sets",
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

/// Takes one file of an archive: its number, counted from one, and its bytes. Of a file that is no
/// DICOM file by its beginning, that beginning is all there is.
pub type Take<'a> = dyn FnMut(usize, Vec<u8>) -> Result<()> + 'a;

/// Is told of so many bytes before they are asked of the allocator. The bytes of a file are its
/// taker's once it has been handed on.
pub type Hold<'a> = dyn FnMut(u64) -> Result<()> + 'a;

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
    read_held(archive, size, format, limits, &mut |_| Ok(()), take)
}

/// As [`read`], with an account of the memory that files take.
///
/// # Errors
/// Those of [`read`], and what `hold` returns.
pub fn read_held(
    archive: impl Read + Seek,
    size: u64,
    format: Format,
    limits: Limits,
    hold: &mut Hold,
    take: &mut Take,
) -> Result<()> {
    let meter = Meter::new(size, limits);
    let archive = In::new(archive, &meter);
    let mut entries = Entries::new(&meter, hold, take);
    let read = match format {
        Format::Zip => zip::read(archive, size, &mut entries),
        Format::Tar => tar::read(Out::new(archive, &meter), &mut entries),
        Format::Gzip => tar::read(Out::new(gzip::Members::new(archive), &meter), &mut entries),
        Format::Dicom | Format::Json => Err(Error::internal("this is no archive")),
    };
    // Libraries wrap the errors of what they read from, and some lose them.
    meter.refusal().map_or(read, Err)
}

/// A failure to read: that of a damaged archive. (Errors of our own are kept by the meter.)
fn failed(error: std::io::Error, what: &str) -> Error {
    Error::new(ErrorKind::InvalidRequest, format!("the archive cannot be read: {what}"))
        .caused_by(error)
}

fn broken() -> Error {
    Error::new(ErrorKind::InvalidRequest, "the archive is no whole zip archive")
}

#[cfg(test)]
mod tests;
