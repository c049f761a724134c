//! Archives of DICOM files: zip, tar and tar.gz, read from any source without unpacking to disk.
//!
//! Archives are untrusted input. An entry that would be unpacked outside the target folder, a link
//! or a device causes the whole archive to be rejected: it is not a plain series of images. The
//! bytes that count are those that the decompressor outputs, whatever entries claim and whether
//! they are kept or skipped (`meter`): they are bounded by the settings and, at any time, by how
//! much of the archive has been read, so that a bomb is rejected early. Memory is allocated in
//! steps, and each step is announced to the caller's accounting.

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

/// Number of bytes needed to recognise the formats: the end of tar's magic number, and what DICOM
/// files need.
pub const HEAD: usize = crate::dicom::p10::HEAD;

/// Format of an input, recognised by its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A DICOM file.
    Dicom,
    /// A zip archive.
    Zip,
    /// A tar archive.
    Tar,
    /// Gzip-compressed data: a tar archive.
    Gzip,
    /// A JSON object.
    Json,
}

/// Recognises the format of data that begins with `head` (at least [`HEAD`] bytes, if there are
/// that many).
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

/// Limits on an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Maximum number of bytes after decompression.
    pub bytes: u64,
    /// Maximum number of files, objects or entries.
    pub entries: usize,
}

impl Limits {
    /// Limits the bytes to `bytes`, and the number of files to more than any study has.
    pub fn of_bytes(bytes: u64) -> Self {
        Self { bytes, entries: 20_000 }
    }

    /// Returns the error for too many bytes.
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

    /// Returns the error for too many entries.
    pub fn too_many(&self) -> Error {
        Error::new(
            ErrorKind::PayloadTooLarge,
            format!("the input holds more than {} files; send one series", self.entries),
        )
        .with("limit", self.entries)
    }
}

/// Receives one file of an archive: its number, counted from one, and its bytes. If the file does
/// not begin like a DICOM file, only the beginning is passed.
pub type Take<'a> = dyn FnMut(usize, Vec<u8>) -> Result<()> + 'a;

/// Called with a number of bytes before they are allocated. A file's bytes belong to the receiver
/// once passed on.
pub type Hold<'a> = dyn FnMut(u64) -> Result<()> + 'a;

/// Passes every file of an archive of `size` bytes to `take`, in the archive's order. Reads and
/// decompresses; do not call it on an asynchronous thread.
///
/// # Errors
/// [`ErrorKind::InvalidRequest`] if it is not such an archive, is damaged or encrypted, or has
/// forbidden entries; [`ErrorKind::PayloadTooLarge`] beyond `limits`; propagates the errors of
/// `take`.
pub fn read(
    archive: impl Read + Seek,
    size: u64,
    format: Format,
    limits: Limits,
    take: &mut Take,
) -> Result<()> {
    read_held(archive, size, format, limits, &mut |_| Ok(()), take)
}

/// Like [`read`], accounting for the memory of files.
///
/// # Errors
/// Propagates the errors of [`read`] and `hold`.
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
    // Libraries wrap the errors of their readers, and some lose them.
    meter.refusal().map_or(read, Err)
}

/// Creates the error of a damaged archive. (The meter keeps this crate's own errors.)
fn failed(error: std::io::Error, what: &str) -> Error {
    Error::new(ErrorKind::InvalidRequest, format!("the archive cannot be read: {what}"))
        .caused_by(error)
}

fn broken() -> Error {
    Error::new(ErrorKind::InvalidRequest, "the zip archive is incomplete or malformed")
}

#[cfg(test)]
mod tests;
