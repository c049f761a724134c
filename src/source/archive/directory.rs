//! The central directory of a zip archive (APPNOTE.TXT sections 4.3.12 to 4.3.16).
//!
//! Parsed here and not by a library, because libraries allocate memory for as many entries as the
//! archive claims before they have seen one. Here nothing is trusted that is not backed by bytes,
//! and archives that deviate from what common programs write are rejected: an archive that can be
//! read in two ways is likely malicious.

use std::io::{self, Read, Seek, SeekFrom};

use super::{Limits, broken, failed};
use crate::error::{Error, ErrorKind, Result};

const ENTRY: [u8; 4] = *b"PK\x01\x02";
const END: [u8; 4] = *b"PK\x05\x06";
const END64: [u8; 4] = *b"PK\x06\x06";
const LOCATOR64: [u8; 4] = *b"PK\x06\x07";
/// Sizes of the end record without its comment, and of the locator before it.
const END_SIZE: usize = 22;
const LOCATOR_SIZE: usize = 20;
const MAX_COMMENT: usize = 65_535;

/// Maximum average size of a directory entry: names, times and owners.
const ENTRY_BYTES: u64 = 1024;

/// File type bits of a Unix mode.
const TYPE: u32 = 0o170_000;
const REGULAR: u32 = 0o100_000;
const FOLDER: u32 = 0o040_000;

/// Kind of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Folder,
    /// A link or a device.
    Other,
}

/// How an entry is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    Stored,
    Deflated,
    /// Encrypted, or compressed by another method.
    Unknown,
}

/// An entry of the directory.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub name: Vec<u8>,
    pub kind: Kind,
    pub method: Method,
    pub crc32: u32,
    pub compressed: u64,
    pub size: u64,
    /// Offset of its local header.
    pub offset: u64,
}

/// Position and size of the directory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Directory {
    pub offset: u64,
    pub bytes: u64,
    pub entries: u64,
}

/// Finds the directory of an archive of `size` bytes.
pub(super) fn find(
    archive: &mut (impl Read + Seek),
    size: u64,
    limits: Limits,
) -> Result<Directory> {
    let tail = size.min((LOCATOR_SIZE + END_SIZE + MAX_COMMENT) as u64);
    let start = size - tail;
    let tail = at(archive, start, tail as usize)?;
    // The last one whose comment extends exactly to the end of the archive.
    let end = (0..=tail.len().saturating_sub(END_SIZE)).rev().find(|&at| {
        tail[at..].starts_with(&END)
            && u16_at(&tail, at + 20).is_some_and(|n| at + END_SIZE + usize::from(n) == tail.len())
    });
    let end = end.ok_or_else(broken)?;
    let word = |offset| u16_at(&tail, end + offset).map(u64::from).ok_or_else(broken);
    let double = |offset| u32_at(&tail, end + offset).map(u64::from).ok_or_else(broken);
    let mut directory = Directory { offset: double(16)?, bytes: double(12)?, entries: word(10)? };
    let mut disks = word(4)? == 0 && word(6)? == 0 && word(8)? == directory.entries;
    let mut ends = start + end as u64;
    if directory.offset == 0xFFFF_FFFF
        || directory.bytes == 0xFFFF_FFFF
        || directory.entries == 0xFFFF
    {
        let locator = end.checked_sub(LOCATOR_SIZE).map(|at| &tail[at..end]);
        if let Some(locator) = locator.filter(|l| l.starts_with(&LOCATOR64)) {
            let position = u64_at(locator, 8).filter(|p| *p < ends).ok_or_else(broken)?;
            (directory, disks) = end64(archive, position)?;
            ends = position;
        }
    }
    let reaches = directory.offset.checked_add(directory.bytes);
    if !disks || reaches.is_none_or(|reaches| reaches > ends) {
        return Err(broken());
    }
    if directory.entries > limits.entries as u64 {
        return Err(limits.too_many());
    }
    if directory.bytes > (directory.entries + 1) * ENTRY_BYTES {
        return Err(broken());
    }
    Ok(directory)
}

/// Parses the zip64 end record; also returns whether the archive is a single file.
fn end64(archive: &mut (impl Read + Seek), position: u64) -> Result<(Directory, bool)> {
    let record = at(archive, position, 56)?;
    let word = |at| u64_at(&record, at).ok_or_else(broken);
    if !record.starts_with(&END64) {
        return Err(broken());
    }
    let directory = Directory { offset: word(48)?, bytes: word(40)?, entries: word(32)? };
    let disks = u64_at(&record, 16) == Some(0) && word(24)? == directory.entries;
    Ok((directory, disks))
}

/// Reads `count` bytes at a position; fails if any are missing.
pub(super) fn at(archive: &mut (impl Read + Seek), position: u64, count: usize) -> Result<Vec<u8>> {
    let damaged = |e: io::Error| failed(e, "it is truncated or damaged");
    archive.seek(SeekFrom::Start(position)).map_err(damaged)?;
    let mut bytes = vec![0; count];
    archive.read_exact(&mut bytes).map_err(damaged)?;
    Ok(bytes)
}

impl Entry {
    /// Parses the entry at the start of `rest` and advances past it.
    pub fn parse(rest: &mut &[u8]) -> Result<Self> {
        let (fixed, after) = rest.split_at_checked(46).ok_or_else(broken)?;
        let word = |at| u16_at(fixed, at).ok_or_else(broken);
        let double = |at| u32_at(fixed, at).ok_or_else(broken);
        if !fixed.starts_with(&ENTRY) || word(34)? != 0 {
            return Err(broken());
        }
        let (name, after) = after.split_at_checked(word(28)?.into()).ok_or_else(broken)?;
        let (extra, after) = after.split_at_checked(word(30)?.into()).ok_or_else(broken)?;
        *rest = after.get(usize::from(word(32)?)..).ok_or_else(broken)?;
        let mut large = Large::find(extra);
        let size = large.or(double(24)?)?;
        let compressed = large.or(double(20)?)?;
        let offset = large.or(double(42)?)?;
        let (system, flags) = (word(4)? >> 8, word(8)?);
        let method = match (flags & 0x2041, word(10)?) {
            (0, 0) => Method::Stored,
            (0, 8) => Method::Deflated,
            _ => Method::Unknown,
        };
        // Unix and OS X.
        let mode = if matches!(system, 3 | 19) { double(38)? >> 16 } else { 0 };
        let kind = match mode & TYPE {
            FOLDER => Kind::Folder,
            0 | REGULAR if name.ends_with(b"/") || name.ends_with(b"\\") => Kind::Folder,
            0 | REGULAR => Kind::File,
            _ => Kind::Other,
        };
        let name = name.to_owned();
        Ok(Self { name, kind, method, crc32: double(16)?, compressed, size, offset })
    }
}

/// The zip64 extra field (4.5.3), which holds the numbers that do not fit elsewhere.
struct Large<'a>(&'a [u8]);

impl<'a> Large<'a> {
    fn find(mut extra: &'a [u8]) -> Self {
        while let Some((head, after)) = extra.split_first_chunk::<4>() {
            let length = usize::from(u16::from_le_bytes([head[2], head[3]]));
            let Some((body, next)) = after.split_at_checked(length) else { break };
            if head[..2] == [1, 0] {
                return Self(body);
            }
            extra = next;
        }
        Self(&[])
    }

    fn or(&mut self, number: u32) -> Result<u64> {
        if number != u32::MAX {
            return Ok(number.into());
        }
        let (number, rest) = self.0.split_first_chunk::<8>().ok_or_else(broken)?;
        self.0 = rest;
        Ok(u64::from_le_bytes(*number))
    }
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|b| u16::from_le_bytes(*b))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|b| u32::from_le_bytes(*b))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|b| u64::from_le_bytes(*b))
}

/// The error for an unsupported form of entry.
pub(super) fn unreadable() -> Error {
    Error::new(
        ErrorKind::InvalidRequest,
        "the archive cannot be read: an entry is encrypted or not compressed by deflate; \
         use plain deflate without a password",
    )
}
