//! DICOM Part 10 files (PS3.10 section 7): headers alone, or headers with the encoded frames
//! split apart, and the series a folder holds.
//!
//! Files are not trusted: sizes they state are compared with the bytes there are before anything
//! is allocated for them, and errors name the file but nothing of its patient.

mod folder;
mod frames;
mod structure;

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use bytes::Bytes;
use dicom_dictionary_std::tags;
use dicom_object::{FileMetaTable, OpenFileOptions, file::ReadPreamble};

pub use folder::{DIRECTORY_CLASS, SeriesFiles, described, files_by_series, list_files, series_in};

use super::{Attributes, Dataset};
use crate::error::{Error, ErrorKind, Result};

/// Length of the preamble before the prefix `DICM` (PS3.10 section 7.1).
const PREAMBLE: usize = 128;
const PREFIX: &[u8; 4] = b"DICM";

/// Pixel data of fewer bytes a frame than this exists in no encapsulated transfer syntax: items
/// and the shortest of headers take more.
const SMALLEST_ENCAPSULATED_FRAME: u64 = 16;

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
/// big endian or deflated, and [`Io`](ErrorKind::Io) where it cannot be read.
pub fn read_header(path: &Path) -> Result<P10Header> {
    let run = || -> Result<P10Header> {
        let file = File::open(path).map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        let (dataset, meta) = parse(BufReader::new(file), false)?;
        header(dataset, &meta, length)
    };
    run().map_err(|e| e.context(path.display()))
}

/// Reads a file with its frames; fails as [`read_header`], and with
/// [`CorruptFrame`](ErrorKind::CorruptFrame) where the pixel data cannot be split into as many
/// frames as the header promises.
pub fn read(path: &Path) -> Result<P10Instance> {
    std::fs::read(path)
        .map_err(io)
        .and_then(|data| read_bytes(&data))
        .map_err(|e| e.context(path.display()))
}

/// As [`read`], of the bytes of a file.
pub fn read_bytes(data: &[u8]) -> Result<P10Instance> {
    read_from(std::io::Cursor::new(data), data.len() as u64)
}

/// Whether bytes begin as a Part 10 file does.
pub fn is_part10(data: &[u8]) -> bool {
    data.get(PREAMBLE..PREAMBLE + PREFIX.len()) == Some(PREFIX)
}

/// As [`read`], of a file of `length` bytes wherever it is.
pub fn read_from(file: impl Read + Seek, length: u64) -> Result<P10Instance> {
    let (mut dataset, meta) = parse(file, true)?;
    let pixel_data = dataset.take(tags::PIXEL_DATA);
    let offsets = frames::ExtendedOffsets::take(&mut dataset);
    let header = header(dataset, &meta, length)?;
    let frames = match pixel_data {
        Some(element) => frames::split(&header, element, offsets)?,
        None if header.dataset.integer(tags::ROWS).is_some() => {
            return Err(Error::new(ErrorKind::CorruptFrame, "the image has no pixel data"));
        }
        None => Vec::new(),
    };
    let P10Header { dataset, transfer_syntax, sop_instance_uid, sop_class_uid, .. } = header;
    Ok(P10Instance { dataset, transfer_syntax, sop_instance_uid, sop_class_uid, frames })
}

/// Parses the file meta information and the data set, with or without what starts at Pixel Data.
fn parse(mut file: impl Read + Seek, with_pixels: bool) -> Result<(Dataset, FileMetaTable)> {
    let mut start = [0; PREAMBLE + PREFIX.len()];
    file.read_exact(&mut start).map_err(|_| not_dicom())?;
    if !start.ends_with(PREFIX) {
        return Err(not_dicom());
    }
    structure::check(&mut file, with_pixels)?;
    let rewind = SeekFrom::Start(PREAMBLE as u64);
    file.seek(rewind).map_err(io)?;
    let meta = contained("file meta information", || {
        FileMetaTable::from_reader(&mut file).map_err(malformed)
    })?;
    refuse_data_set_encoding(meta.transfer_syntax())?;
    file.seek(rewind).map_err(io)?;
    let options = OpenFileOptions::new().read_preamble(ReadPreamble::Never);
    let options = if with_pixels { options } else { options.read_until(tags::PIXEL_DATA) };
    let object = contained("data set", || options.from_reader(file).map_err(malformed))?;
    Ok((object.into_inner(), meta))
}

/// Refuses the two ways to encode a data set that nothing here reads.
fn refuse_data_set_encoding(transfer_syntax: &str) -> Result<()> {
    let what = match transfer_syntax {
        "1.2.840.10008.1.2.2" => "big endian (retired)",
        "1.2.840.10008.1.2.1.99" => "deflated",
        _ => return Ok(()),
    };
    Err(Error::new(
        ErrorKind::UnsupportedPixelData,
        format!(
            "transfer syntax {transfer_syntax} is {what} and is not supported; \
             convert the file to explicit little endian"
        ),
    )
    .with("transferSyntaxUID", transfer_syntax))
}

fn header(mut dataset: Dataset, meta: &FileMetaTable, file_length: u64) -> Result<P10Header> {
    frames::ExtendedOffsets::take(&mut dataset);
    let number_of_frames = frames::promised(&dataset, file_length)?;
    Ok(P10Header {
        transfer_syntax: meta.transfer_syntax().to_owned(),
        sop_instance_uid: dataset.required_text(tags::SOP_INSTANCE_UID)?,
        sop_class_uid: dataset.required_text(tags::SOP_CLASS_UID)?,
        number_of_frames,
        dataset,
    })
}

/// Runs the parser; its panic becomes an error of the file.
fn contained<T>(what: &str, run: impl FnOnce() -> Result<T>) -> Result<T> {
    // The parser's state dies with it.
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| {
        Err(Error::new(ErrorKind::InvalidImage, format!("the {what} broke the DICOM parser")))
    })
}

fn not_dicom() -> Error {
    Error::new(ErrorKind::InvalidImage, "not a DICOM Part 10 file (no DICM prefix)")
}

/// The parser's own message may quote values, patients' among them: its source chain is dropped.
fn malformed<E>(_: E) -> Error {
    Error::new(ErrorKind::InvalidImage, "the DICOM header is malformed or truncated")
}

fn io(e: std::io::Error) -> Error {
    let kind = match e.kind() {
        std::io::ErrorKind::NotFound => ErrorKind::NotFound,
        _ => ErrorKind::Io,
    };
    Error::new(kind, format!("cannot be read: {}", e.kind())).caused_by(e)
}
