//! DICOM Part 10 files (PS3.10 section 7): headers alone, or headers with the encoded frames
//! split apart, and the series a folder holds.
//!
//! Files are not trusted: sizes they state are compared with the bytes there are before anything
//! is allocated for them, what a header takes when it is read is bounded, and errors name the file
//! but nothing of its patient.

mod folder;
mod frames;
mod meta;
mod pixels;
mod source;
mod tree;

use std::cell::Cell;
use std::fs::File;
use std::io::{BufReader, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use bytes::Bytes;
use dicom_dictionary_std::tags;

use self::pixels::Pixels;
use self::source::Source;
use self::tree::End;

pub use folder::{DIRECTORY_CLASS, SeriesFiles, described, files_by_series, list_files, series_in};

use super::{Attributes, Dataset};
use crate::error::{Error, ErrorKind, Result};

/// Length of the preamble before the prefix `DICM` (PS3.10 section 7.1).
const PREAMBLE: usize = 128;
const PREFIX: &[u8; 4] = b"DICM";

/// Pixel data of fewer bytes a frame than this exists in no encapsulated transfer syntax: items
/// and the shortest of headers take more.
const SMALLEST_ENCAPSULATED_FRAME: u64 = 16;

/// Frames of one instance. Each costs memory of its own, beside its pixels.
const MAX_FRAMES: u64 = 100_000;

/// Header of one instance, without its frames.
#[derive(Debug, Clone)]
pub struct P10Header {
    /// Every attribute of the data set but pixel data and offset tables.
    pub dataset: Dataset,
    /// Transfer syntax UID of the file meta information (0002,0010).
    pub transfer_syntax: String,
    /// SOP Instance UID (0008,0018).
    pub sop_instance_uid: String,
    /// SOP Class UID (0008,0016).
    pub sop_class_uid: String,
    /// Frames the header promises, at least one; bounded by what the file has room for.
    pub number_of_frames: usize,
}

/// One instance with its encoded frames.
#[derive(Debug, Clone)]
pub struct P10Instance {
    /// Every attribute of the data set but pixel data and offset tables.
    pub dataset: Dataset,
    /// Transfer syntax UID of the file meta information (0002,0010), and of the frames.
    pub transfer_syntax: String,
    /// SOP Instance UID (0008,0018).
    pub sop_instance_uid: String,
    /// SOP Class UID (0008,0016).
    pub sop_class_uid: String,
    /// The frames in order, each with all its fragments; empty for an object without an image.
    pub frames: Vec<Bytes>,
}

/// Reads the header of a file up to its pixel data.
///
/// Fails with [`InvalidImage`](ErrorKind::InvalidImage) where the file is no DICOM file or lacks
/// its identifiers, [`UnsupportedPixelData`](ErrorKind::UnsupportedPixelData) where its data set is
/// big endian or deflated, [`PayloadTooLarge`](ErrorKind::PayloadTooLarge) where its header would
/// take too much memory, and [`Io`](ErrorKind::Io) where it cannot be read.
pub fn read_header(path: &Path) -> Result<P10Header> {
    let run = || -> Result<P10Header> {
        let (file, length) = open(path)?;
        let Parsed { dataset, transfer_syntax, .. } = parse(file, length, false)?;
        header(dataset, transfer_syntax, length)
    };
    run().map_err(|e| e.context(path.display()))
}

/// Reads a file with its frames; fails as [`read_header`], and with
/// [`CorruptFrame`](ErrorKind::CorruptFrame) where the pixel data cannot be split into as many
/// frames as the header promises.
pub fn read(path: &Path) -> Result<P10Instance> {
    open(path)
        .and_then(|(file, length)| read_from(file, length))
        .map_err(|e| e.context(path.display()))
}

fn open(path: &Path) -> Result<(BufReader<File>, u64)> {
    let file = File::open(path).map_err(io)?;
    let length = file.metadata().map_err(io)?.len();
    Ok((BufReader::new(file), length))
}

/// As [`read`], of the bytes of a file.
pub fn read_bytes(data: &[u8]) -> Result<P10Instance> {
    read_from(data, data.len() as u64)
}

/// Whether bytes begin as a Part 10 file does.
pub fn is_part10(data: &[u8]) -> bool {
    data.get(PREAMBLE..PREAMBLE + PREFIX.len()) == Some(PREFIX)
}

/// As [`read`], of a file of `length` bytes wherever it is. Many small reads are made.
pub fn read_from(file: impl Read, length: u64) -> Result<P10Instance> {
    let Parsed { mut dataset, transfer_syntax, pixels } = parse(file, length, true)?;
    let offsets = frames::ExtendedOffsets::take(&mut dataset);
    let header = header(dataset, transfer_syntax, length)?;
    let frames = match pixels {
        Some(pixels) => frames::split(&header, pixels, offsets)?,
        None if header.dataset.integer(tags::ROWS).is_some() => {
            return Err(Error::new(ErrorKind::CorruptFrame, "the image has no pixel data"));
        }
        None => Vec::new(),
    };
    let P10Header { dataset, transfer_syntax, sop_instance_uid, sop_class_uid, .. } = header;
    Ok(P10Instance { dataset, transfer_syntax, sop_instance_uid, sop_class_uid, frames })
}

/// What a file holds, frames not yet told apart.
struct Parsed {
    dataset: Dataset,
    transfer_syntax: String,
    pixels: Option<Pixels>,
}

/// Parses the file meta information and the data set, with or without pixel data. What follows
/// pixel data (padding, signatures) is not read.
fn parse(file: impl Read, length: u64, with_pixels: bool) -> Result<Parsed> {
    let left = Cell::new(length);
    let mut file = Source::new(file, &left);
    let mut start = [0; PREAMBLE + PREFIX.len()];
    file.read_exact(&mut start).map_err(|e| if ended(&e) { not_dicom() } else { passed(e) })?;
    if !start.ends_with(PREFIX) {
        return Err(not_dicom());
    }
    let syntax = meta::transfer_syntax(&mut file)?;
    let (dataset, end) = contained(|| tree::read(&mut file, &left, syntax, with_pixels))?;
    let pixels = match end {
        End::Header => None,
        End::Native(length) => Some(pixels::native(&mut file, length)?),
        End::Encapsulated => Some(pixels::encapsulated(&mut file)?),
    };
    Ok(Parsed { dataset, transfer_syntax: syntax.uid().to_owned(), pixels })
}

fn header(mut dataset: Dataset, transfer_syntax: String, file_length: u64) -> Result<P10Header> {
    frames::ExtendedOffsets::take(&mut dataset);
    let number_of_frames = frames::promised(&dataset, file_length)?;
    Ok(P10Header {
        transfer_syntax,
        sop_instance_uid: dataset.required_text(tags::SOP_INSTANCE_UID)?,
        sop_class_uid: dataset.required_text(tags::SOP_CLASS_UID)?,
        number_of_frames,
        dataset,
    })
}

/// Runs the parser; its panic becomes an error of the file. What it would log may quote the file.
fn contained<T>(run: impl FnOnce() -> Result<T>) -> Result<T> {
    let quiet = tracing::subscriber::NoSubscriber::default();
    let run = || tracing::subscriber::with_default(quiet, run);
    // The parser's state dies with it.
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| {
        Err(Error::new(ErrorKind::InvalidImage, "the data set broke the DICOM parser"))
    })
}

fn not_dicom() -> Error {
    Error::new(ErrorKind::InvalidImage, "not a DICOM Part 10 file (no DICM prefix)")
}

/// The parser's own message may quote values, patients' among them: its source chain is dropped.
fn malformed<E>(_: E) -> Error {
    Error::new(ErrorKind::InvalidImage, "the DICOM header is malformed or truncated")
}

/// As [`malformed`], where reading may have failed for a reason of its own.
fn malformed_at(e: std::io::Error) -> Error {
    if ended(&e) { malformed(()) } else { passed(e) }
}

fn ended(e: &std::io::Error) -> bool {
    e.kind() == std::io::ErrorKind::UnexpectedEof
}

/// An error of reading: our own where a reader of ours passed it through.
fn passed(e: std::io::Error) -> Error {
    match e.downcast::<Error>() {
        Ok(own) => own,
        Err(e) => io(e),
    }
}

fn io(e: std::io::Error) -> Error {
    let kind = match e.kind() {
        std::io::ErrorKind::NotFound => ErrorKind::NotFound,
        _ => ErrorKind::Io,
    };
    Error::new(kind, format!("cannot be read: {}", e.kind())).caused_by(e)
}
