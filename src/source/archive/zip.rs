//! Zip archives.

use std::collections::BTreeMap;
use std::io::{Read, Seek, SeekFrom};

use flate2::read::DeflateDecoder;

use super::directory::{self, Entry, Kind, Method};
use super::entries::Entries;
use super::meter::Out;
use super::{broken, failed};
use crate::error::Result;

/// Size of a local header without name and extra field.
const LOCAL: usize = 30;

pub(super) fn read(mut archive: impl Read + Seek, size: u64, entries: &mut Entries) -> Result<()> {
    let found = directory::find(&mut archive, size, entries.meter().limits)?;
    // Bounded by a kibibyte for each allowed entry.
    let bytes = directory::at(&mut archive, found.offset, found.bytes as usize)?;
    let mut rest = &bytes[..];
    let mut taken = Taken::default();
    for _ in 0..found.entries {
        let entry = Entry::parse(&mut rest)?;
        entries.begin(&entry.name)?;
        match entry.kind {
            Kind::Folder => continue,
            Kind::Other => return Err(entries.meter().hostile("is a link or a device")),
            Kind::File => {}
        }
        let start = data_start(&mut archive, &entry)?;
        let end = start.checked_add(entry.compressed).filter(|end| *end <= found.offset);
        let end = end.ok_or_else(broken)?;
        if !taken.add(entry.offset, end) {
            return Err(entries.meter().hostile("shares its bytes with another"));
        }
        file(&mut archive, &entry, start, entries)?;
    }
    Ok(())
}

/// Returns where an entry's data starts: after its local header, which is checked.
fn data_start(archive: &mut (impl Read + Seek), entry: &Entry) -> Result<u64> {
    let header = directory::at(archive, entry.offset, LOCAL)?;
    let word = |at| directory::u16_at(&header, at).map(u64::from).ok_or_else(broken);
    if !header.starts_with(b"PK\x03\x04") {
        return Err(broken());
    }
    entry.offset.checked_add(LOCAL as u64 + word(26)? + word(28)?).ok_or_else(broken)
}

fn file(
    archive: &mut (impl Read + Seek),
    entry: &Entry,
    start: u64,
    entries: &mut Entries,
) -> Result<()> {
    let damaged = |e| failed(e, "it is truncated or damaged");
    archive.seek(SeekFrom::Start(start)).map_err(damaged)?;
    let data = archive.take(entry.compressed);
    let meter = entries.meter();
    let sound = |bytes: &[u8]| crc32fast::hash(bytes) == entry.crc32;
    match entry.method {
        Method::Stored => entries.file(Out::new(data, meter), entry.size, sound),
        Method::Deflated => {
            entries.file(Out::new(DeflateDecoder::new(data), meter), entry.size, sound)
        }
        Method::Unknown => Err(directory::unreadable()),
    }
}

/// The byte ranges of the archive that entries occupy, by start.
#[derive(Default)]
struct Taken(BTreeMap<u64, u64>);

impl Taken {
    /// Adds a range; returns whether it overlaps no other.
    fn add(&mut self, start: u64, end: u64) -> bool {
        let before = self.0.range(..=start).next_back().is_none_or(|(_, end)| *end <= start);
        let after = self.0.range(start..).next().is_none_or(|(next, _)| *next >= end);
        self.0.insert(start, end);
        before && after
    }
}
