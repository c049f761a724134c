//! Reads a DICOM file or an archive of DICOM files once, from any source: S3, a request body, a
//! disk.

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

/// Expansion factor assumed for an archive until its content is known.
const EXPANDED: u64 = 2;

/// Resources and limits of reading.
pub(super) struct Bounds {
    /// Limits on the amount of data.
    pub limits: Limits,
    /// The pool that memory is charged to.
    pub memory: Arc<Pool>,
    /// A value that the reading thread holds until it ends.
    pub held: Arc<dyn Any + Send + Sync>,
}

/// Reads a file of `size` bytes on a blocking thread, which is cancelled when the caller stops
/// waiting.
///
/// # Errors
/// Propagates the errors of reading archives and DICOM files; [`ErrorKind::PayloadTooLarge`] beyond
/// the limits.
pub(super) async fn series(
    file: impl Read + Seek + Send + 'static,
    size: u64,
    format: Format,
    bounds: Bounds,
) -> Result<Vec<DicomSeries>> {
    let Bounds { limits, memory, held } = bounds;
    // Acquires up front what most archives expand to, so that few have to wait halfway.
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

/// Parses a DICOM file, or each file of an archive.
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
