//! Tar archives.

use std::io::Read;

use ::tar::{Archive, EntryType};

use super::entries::Entries;
use super::failed;
use crate::error::Result;

/// Maximum number of extension headers before one entry: a name, a link's name, and records for it
/// and for all.
const MAX_EXTENSIONS: usize = 8;

/// Maximum size of an extension header, which the library would read whole.
const MAX_EXTENSION: u64 = 1 << 20;

pub(super) fn read(archive: impl Read, entries: &mut Entries) -> Result<()> {
    let damaged = |e| failed(e, "it is no tar archive, truncated or damaged");
    let mut tar = Archive::new(archive);
    let mut extensions = Extensions::default();
    for entry in tar.entries().map_err(damaged)?.raw(true) {
        let mut entry = entry.map_err(damaged)?;
        let size = entry.header().entry_size().map_err(damaged)?;
        let kind = entry.header().entry_type();
        match kind {
            EntryType::GNULongName
            | EntryType::GNULongLink
            | EntryType::XHeader
            | EntryType::XGlobalHeader => {
                if !extensions.add(kind, &mut entry, size).map_err(damaged)? {
                    return Err(entries.meter().hostile("has extension headers beyond reason"));
                }
                continue;
            }
            _ => {}
        }
        entries.begin(&entry.path_bytes())?;
        let said = std::mem::take(&mut extensions);
        for name in &said.names {
            entries.check_name(name)?;
        }
        // Tar readers disagree on which of two sizes counts.
        if said.size.is_some_and(|stated| stated != size) {
            return Err(entries.meter().hostile("has two sizes"));
        }
        match kind {
            EntryType::Regular | EntryType::Continuous => entries.file(entry, size, |_| true)?,
            EntryType::Directory => {}
            // Sparse files result from files with holes, which images are not.
            _ => return Err(entries.meter().hostile("is a link, a device or a sparse file")),
        }
    }
    Ok(())
}

/// Content of the extension headers of the next entry.
#[derive(Default)]
struct Extensions {
    count: usize,
    names: Vec<Vec<u8>>,
    size: Option<u64>,
}

impl Extensions {
    /// Reads an extension header; returns false if there are too many or it is too large.
    fn add(&mut self, kind: EntryType, data: &mut impl Read, size: u64) -> std::io::Result<bool> {
        self.count += 1;
        if self.count > MAX_EXTENSIONS || size > MAX_EXTENSION {
            return Ok(false);
        }
        let mut bytes = Vec::new();
        data.read_to_end(&mut bytes)?;
        match kind {
            EntryType::GNULongName => {
                bytes.truncate(bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len()));
                self.names.push(bytes);
            }
            EntryType::XHeader | EntryType::XGlobalHeader => {
                for record in ::tar::PaxExtensions::new(&bytes) {
                    let record = record?;
                    match record.key_bytes() {
                        b"path" => self.names.push(record.value_bytes().to_owned()),
                        b"size" => self.size = record.value().ok().and_then(|n| n.parse().ok()),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
        Ok(true)
    }
}
