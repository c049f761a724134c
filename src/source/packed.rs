//! A DICOM file or an archive of them, read once from wherever it is: S3, the body of a request, a disk.

use std::any::Any;
use std::cell::RefCell;
use std::io::{Read, Seek};
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::archive::{self, Format, Limits};
use super::dicom_objects::{DicomObjects, DicomSeries};
use crate::cpu;
use crate::error::{Error, ErrorKind, Result};
use crate::memory::Pool;

/// How many times its size an archive is taken to expand to, until it is known.
const EXPANDED: u64 = 2;

/// What reading is bound by.
pub(super) struct Bounds {
    /// How much is taken.
    pub limits: Limits,
    /// What the memory is charged to.
    pub memory: Arc<Pool>,
    /// What the thread that reads holds until it has ended.
    pub held: Arc<dyn Any + Send + Sync>,
}

/// Reads a file of `size` bytes on a thread that may block, which is told once nobody waits any more.
///
/// # Errors
/// Those of reading archives and DICOM files; [`ErrorKind::PayloadTooLarge`] beyond the bounds.
pub(super) async fn series(
    file: impl Read + Seek + Send + 'static,
    size: u64,
    format: Format,
    bounds: Bounds,
) -> Result<Vec<DicomSeries>> {
    let Bounds { limits, memory, held } = bounds;
    // What most archives expand to is there before they are read, so that few wait in the middle.
    let usual = if format == Format::Dicom { size } else { size.saturating_mul(EXPANDED) };
    let grant = memory.take(usual.min(memory.largest())).await?;
    let stopped = CancellationToken::new();
    let _stop_on_drop = stopped.clone().drop_guard();
    let span = tracing::Span::current();
    let work = move || {
        let _held = held;
        let read = || read(file, size, format, limits, DicomObjects::new(grant), &stopped);
        span.in_scope(|| cpu::contained(read))
    };
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| Error::internal("reading the input was aborted").caused_by(e))?
}

/// Parses a DICOM file or each file of an archive.
fn read(
    file: impl Read + Seek,
    size: u64,
    format: Format,
    limits: Limits,
    mut objects: DicomObjects,
    stopped: &CancellationToken,
) -> Result<Vec<DicomSeries>> {
    let file = std::io::BufReader::with_capacity(1 << 16, file);
    if format == Format::Dicom {
        objects.hold(size)?;
        objects.read(1, file, size)?;
        return objects.into_series();
    }
    let objects = RefCell::new(objects);
    let mut hold = |bytes| objects.borrow_mut().hold(bytes);
    let mut take = |number, data: Vec<u8>| {
        if stopped.is_cancelled() {
            return Err(Error::new(ErrorKind::Cancelled, "the request was cancelled"));
        }
        objects.borrow_mut().add(number, &data)
    };
    archive::read_held(file, size, format, limits, &mut hold, &mut take)?;
    objects.into_inner().into_series()
}
