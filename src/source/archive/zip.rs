//! Zip archives.

use std::io::{Read, Seek};

use ::zip::ZipArchive;
use ::zip::result::ZipError;

use super::{Entries, failed};
use crate::error::{Error, ErrorKind, Result};

/// Type bits of a Unix mode, and the two types that are files as one thinks of them.
const TYPE: u32 = 0o170_000;
const REGULAR: u32 = 0o100_000;
const FOLDER: u32 = 0o040_000;

pub(super) fn read(archive: impl Read + Seek, entries: &mut Entries) -> Result<()> {
    let mut zip = ZipArchive::new(archive).map_err(broken)?;
    if zip.len() > entries.limits.entries {
        return Err(entries.limits.too_many());
    }
    for index in 0..zip.len() {
        let entry = zip.by_index(index).map_err(broken)?;
        entries.begin(entry.name_raw())?;
        match entry.unix_mode().map_or(REGULAR, |mode| mode & TYPE) {
            FOLDER => continue,
            REGULAR | 0 if entry.is_dir() => continue,
            REGULAR | 0 => entries.file(entry)?,
            _ => return Err(entries.hostile("is a link or a device")),
        }
    }
    Ok(())
}

fn broken(error: ZipError) -> Error {
    match error {
        ZipError::Io(e) => failed(e, "it is truncated or damaged"),
        ZipError::UnsupportedArchive(what) => Error::new(
            ErrorKind::InvalidRequest,
            format!("the archive cannot be read: {what}; use plain deflate without a password"),
        ),
        other => Error::new(ErrorKind::InvalidRequest, "the archive is no whole zip archive")
            .caused_by(other),
    }
}
