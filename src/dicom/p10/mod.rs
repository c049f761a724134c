//! Reads DICOM Part 10 files (PS3.10 section 7), including those that lack some of what the
//! standard puts before the data set: headers only, headers with the encoded frames split apart,
//! and the series in a folder.
//!
//! Files are not trusted: stated sizes are compared with the available bytes before anything is
//! allocated for them, the memory of a header is bounded, and errors name the file but contain no
//! patient data.

mod folder;
mod frames;
mod meta;
mod pixels;
mod plain;
mod source;
mod start;
mod tree;
mod write;

use std::cell::Cell;
use std::fs::File;
use std::io::{BufReader, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use bytes::Bytes;
use dicom_core::VR;
use dicom_dictionary_std::tags;
use flate2::read::DeflateDecoder;

use self::meta::{Encoding, Meta};
use self::pixels::Pixels;
use self::source::Source;
use self::start::Start;
use self::tree::End;

pub use folder::{
    Folder, SeriesFiles, described, files_by_series, identical, list_files, series_in,
};
pub use source::Hold;
pub use start::HEAD;
pub use write::{MOST_BYTES, P10Writer, PixelForm};

use super::{Attributes, Dataset, charset, classes, pixel_data};
use crate::error::{Error, ErrorKind, Result};

/// No encapsulated transfer syntax needs fewer bytes per frame than this: items and the shortest
/// headers take more.
const SMALLEST_ENCAPSULATED_FRAME: u64 = 16;

/// Maximum number of frames of one instance. Each takes memory in addition to its pixels.
const MAX_FRAMES: u64 = 100_000;

/// Header of one instance, without its frames.
#[derive(Debug, Clone)]
pub struct P10Header {
    /// All attributes of the data set except pixel data and offset tables.
    pub dataset: Dataset,
    /// Transfer syntax UID of the frames, see [`P10Instance::transfer_syntax`].
    pub transfer_syntax: String,
    /// SOP Instance UID (0008,0018).
    pub sop_instance_uid: String,
    /// SOP Class UID (0008,0016).
    pub sop_class_uid: String,
    /// Number of frames the header promises, at least one; limited by what the file has room for.
    pub number_of_frames: usize,
}

/// One instance with its encoded frames.
#[derive(Debug, Clone)]
pub struct P10Instance {
    /// All attributes of the data set except pixel data and offset tables.
    pub dataset: Dataset,
    /// Transfer syntax UID of the frames: that of the file meta information (0002,0010), or
    /// Explicit VR Little Endian if that is big endian or deflated, because the frames have been
    /// converted.
    pub transfer_syntax: String,
    /// SOP Instance UID (0008,0018).
    pub sop_instance_uid: String,
    /// SOP Class UID (0008,0016).
    pub sop_class_uid: String,
    /// The frames in order, each with all its fragments; empty for an object without an image.
    pub frames: Vec<Bytes>,
}

/// The content of a DICOM file.
#[derive(Debug, Clone)]
pub enum Content<T> {
    /// An image. An incomplete image is returned as an error instead.
    Image(T),
    /// An object without an image, such as a directory, report or plan, with its SOP class if
    /// stated.
    NoImage(Option<String>),
}

/// Reads the header of a file up to its pixel data.
///
/// Also reads files without a preamble, prefix, group length or any file meta information.
///
/// Fails with [`InvalidImage`](ErrorKind::InvalidImage) if the file is not a DICOM file or lacks
/// its identifiers, [`UnsupportedPixelData`](ErrorKind::UnsupportedPixelData) if its transfer
/// syntax is unknown, [`PayloadTooLarge`](ErrorKind::PayloadTooLarge) if its header would take too
/// much memory, and [`Io`](ErrorKind::Io) if it cannot be read.
pub fn read_header(path: &Path) -> Result<P10Header> {
    let run = || -> Result<P10Header> {
        let (file, length) = open(path)?;
        let Parsed { dataset, transfer_syntax, room, .. } = parse(file, length, false, None)?;
        header(dataset, transfer_syntax, room)
    };
    run().map_err(|e| e.context(path.display()))
}

/// Like [`read_header`], for a file that may not hold an image. An instance without pixel data is
/// an error if its class always has slices, or if it has Rows: it was truncated.
pub fn examine(path: &Path) -> Result<Content<P10Header>> {
    let run = || -> Result<Content<P10Header>> {
        let (file, length) = open(path)?;
        let parsed = parse(file, length, false, None)?;
        if let Some(class) = parsed.without_image()? {
            return Ok(Content::NoImage(class));
        }
        header(parsed.dataset, parsed.transfer_syntax, parsed.room).map(Content::Image)
    };
    run().map_err(|e| e.context(path.display()))
}

/// Like [`examine`], with the frames, for a file of `length` bytes from any reader. `hold` is
/// called before memory beyond that length is allocated (for inflated data).
///
/// # Errors
/// Propagates the errors of [`examine`], [`read`] and `hold`.
pub fn examine_from(file: impl Read, length: u64, hold: &mut Hold) -> Result<Content<P10Instance>> {
    let parsed = parse(file, length, true, Some(hold))?;
    if let Some(class) = parsed.without_image()? {
        return Ok(Content::NoImage(class));
    }
    parsed.into_instance().map(Content::Image)
}

/// Reads a file with its frames. Fails like [`read_header`], and with
/// [`CorruptFrame`](ErrorKind::CorruptFrame) if the pixel data cannot be split into as many frames
/// as the header promises.
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

/// Like [`read_header`], for the bytes of a file.
///
/// # Errors
/// The errors of [`read_header`].
pub fn header_of(data: &[u8]) -> Result<P10Header> {
    let Parsed { dataset, transfer_syntax, room, .. } =
        parse(data, data.len() as u64, false, None)?;
    header(dataset, transfer_syntax, room)
}

/// Like [`read`], for the bytes of a file.
pub fn read_bytes(data: &[u8]) -> Result<P10Instance> {
    read_from(data, data.len() as u64)
}

/// Whether a file with these first bytes ([`HEAD`] of them, if it has that many) is a DICOM file,
/// with or without preamble and file meta information.
pub fn is_dicom(head: &[u8]) -> bool {
    start::start(head).is_some()
}

/// Like [`read`], for a file of `length` bytes from any reader. Makes many small reads, so use a
/// buffered reader.
pub fn read_from(file: impl Read, length: u64) -> Result<P10Instance> {
    parse(file, length, true, None)?.into_instance()
}

/// The parsed content of a file, with frames not yet split.
struct Parsed {
    dataset: Dataset,
    transfer_syntax: String,
    /// Media Storage SOP Class UID of the file meta information.
    stated_class: Option<String>,
    /// Whether the file has pixel data, even if it was not read.
    has_pixels: bool,
    pixels: Option<Pixels>,
    /// Maximum number of bytes of pixel data: the file's length, or more if it is deflated.
    room: u64,
}

impl Parsed {
    /// Returns `Some`, with its class if it has one, if this is not an image.
    fn without_image(&self) -> Result<Option<Option<String>>> {
        let class = self.dataset.text(tags::SOP_CLASS_UID).or_else(|| self.stated_class.clone());
        let known = class.as_deref().unwrap_or_default();
        if classes::without_image(known).is_some() {
            return Ok(Some(class));
        }
        if self.has_pixels {
            return Ok(None);
        }
        if classes::has_slices(known) || self.dataset.integer(tags::ROWS).is_some() {
            return Err(no_pixel_data());
        }
        Ok(Some(class))
    }

    fn into_instance(mut self) -> Result<P10Instance> {
        let offsets = frames::ExtendedOffsets::take(&mut self.dataset);
        let header = header(self.dataset, self.transfer_syntax, self.room)?;
        let frames = match self.pixels {
            Some(pixels) => frames::split(&header, pixels, offsets)?,
            None if header.dataset.integer(tags::ROWS).is_some() => return Err(no_pixel_data()),
            None => Vec::new(),
        };
        let P10Header { dataset, transfer_syntax, sop_instance_uid, sop_class_uid, .. } = header;
        Ok(P10Instance { dataset, transfer_syntax, sop_instance_uid, sop_class_uid, frames })
    }
}

/// Error message for an image that should have pixels but has none.
pub const NO_PIXEL_DATA: &str = "the image has no pixel data";

fn no_pixel_data() -> Error {
    Error::new(ErrorKind::CorruptFrame, NO_PIXEL_DATA)
}

/// Limits on inflated data: a constant, plus a multiple of its deflated size. Images typically
/// deflate to a third.
const INFLATED: (u64, u64) = (32 << 20, 200);

/// Parses the file meta information and the data set, with or without pixel data. Elements after
/// pixel data (padding, signatures) are not read.
fn parse(
    mut file: impl Read,
    length: u64,
    with_pixels: bool,
    hold: Option<&mut Hold>,
) -> Result<Parsed> {
    let mut head = Vec::with_capacity(HEAD);
    file.by_ref().take(HEAD as u64).read_to_end(&mut head).map_err(passed)?;
    let start = start::start(&head).ok_or_else(not_dicom)?;
    let (Start::Meta(offset) | Start::DataSet(offset, _)) = start;
    let left = Cell::new(length.saturating_sub(offset as u64));
    let mut file = Source::new(head[offset..].chain(file), &left);
    let Meta { encoding, sop_class } = match start {
        Start::Meta(_) => meta::read(&mut file)?,
        Start::DataSet(_, uid) => Meta { encoding: meta::known(uid)?, sop_class: None },
    };
    let parsed = if encoding.deflated {
        let room = INFLATED.0.saturating_add(INFLATED.1.saturating_mul(length));
        let left = Cell::new(room);
        let inflated = Source::new(DeflateDecoder::new(file), &left);
        let inflated = match hold {
            Some(hold) => inflated.holding(hold),
            None => inflated,
        };
        data_set(inflated, &left, &encoding, with_pixels, room)?
    } else {
        data_set(file, &left, &encoding, with_pixels, length)?
    };
    Ok(Parsed { stated_class: sop_class, ..parsed })
}

/// Parses the data set.
fn data_set(
    mut file: Source<'_, '_, impl Read>,
    left: &Cell<u64>,
    encoding: &Encoding,
    with_pixels: bool,
    room: u64,
) -> Result<Parsed> {
    let read = || tree::read(&mut file, left, encoding.elements, with_pixels);
    let (mut dataset, end) = contained(read)?;
    charset::decode(&mut dataset);
    let has_pixels = !matches!(end, End::Header | End::Unwanted { pixels: false });
    let pixels = match end {
        End::Header | End::Unwanted { .. } => None,
        End::Native { length, vr } => {
            let width = match vr {
                VR::OW => Some(2),
                VR::OF => Some(4),
                VR::OD => Some(8),
                _ => None,
            };
            if encoding.big_endian {
                check_words(&dataset, width)?;
            }
            Some(pixels::native(&mut file, length, width.filter(|_| encoding.big_endian))?)
        }
        // Frames must not be compressed twice.
        End::Encapsulated if encoding.deflated || encoding.big_endian => return Err(malformed(())),
        End::Encapsulated => Some(pixels::encapsulated(&mut file)?),
    };
    let transfer_syntax = encoding.frames.to_owned();
    Ok(Parsed { dataset, transfer_syntax, stated_class: None, has_pixels, pixels, room })
}

/// Rejects pixels of more than two bytes whose byte order in big endian their value representation
/// does not determine. Integer pixels are words of two bytes (OW), the least significant word first
/// (PS3.5 section 8.1.1 and annex D); floating-point pixels are reversed as a whole.
fn check_words(dataset: &Dataset, width: Option<usize>) -> Result<()> {
    let expected = match pixel_data::float_pixels(dataset) {
        Some(float) => usize::from(float.bits / 8),
        None if dataset.integer(tags::BITS_ALLOCATED).is_none_or(|bits| bits <= 16) => {
            return Ok(());
        }
        None => 2,
    };
    if width == Some(expected) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::UnsupportedPixelData,
        "the value representation of its pixel data does not say how their bytes are ordered in big \
         endian; OW for integers, OF and OD for floating-point numbers do",
    ))
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

/// Runs the parser; its panic becomes an error of the file. Silences its logging, which may quote
/// the file.
fn contained<T>(run: impl FnOnce() -> Result<T>) -> Result<T> {
    let quiet = tracing::subscriber::NoSubscriber::default();
    let run = || tracing::subscriber::with_default(quiet, run);
    // The parser's state is dropped with it.
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| {
        Err(Error::new(ErrorKind::InvalidImage, "the data set broke the DICOM parser"))
    })
}

fn not_dicom() -> Error {
    Error::new(ErrorKind::InvalidImage, "not a DICOM file")
}

/// Drops the source error: the parser's own message may quote values, including patient data.
fn malformed<E>(_: E) -> Error {
    Error::new(ErrorKind::InvalidImage, "the DICOM header is malformed or truncated")
}

/// Like [`malformed`], unless reading failed for another reason.
fn malformed_at(e: std::io::Error) -> Error {
    if ended(&e) { malformed(()) } else { passed(e) }
}

fn ended(e: &std::io::Error) -> bool {
    e.kind() == std::io::ErrorKind::UnexpectedEof
}

/// Converts an error of reading; returns the crate's own error if one of its readers passed it
/// through.
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
