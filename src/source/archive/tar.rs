//! Tar archives.

use std::io::Read;

use ::tar::{Archive, EntryType};

use super::{Entries, failed};
use crate::error::Result;

pub(super) fn read(archive: impl Read, entries: &mut Entries) -> Result<()> {
    let damaged = |e| failed(e, "it is no tar archive, truncated or damaged");
    let mut tar = Archive::new(archive);
    for entry in tar.entries().map_err(damaged)? {
        let entry = entry.map_err(damaged)?;
        entries.begin(&entry.path_bytes())?;
        match entry.header().entry_type() {
            EntryType::Regular | EntryType::Continuous => entries.file(entry)?,
            // Sparse files are what tar makes of holes, not of images.
            EntryType::Directory | EntryType::XGlobalHeader => {}
            _ => return Err(entries.hostile("is a link, a device or a sparse file")),
        }
    }
    Ok(())
}
