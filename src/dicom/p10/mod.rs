//! DICOM Part 10 files (PS3.10 section 7), and those that lack some of what the standard puts before the
//! data set: headers alone, or headers with the encoded frames split apart, and the series a folder
//! holds.
//!
//! Files are not trusted: sizes they state are compared with the bytes there are before anything
//! is allocated for them, what a header takes when it is read is bounded, and errors name the file
//! but nothing of its patient.

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
    /// Transfer syntax UID of the frames, see [`P10Instance::transfer_syntax`].
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
    /// Transfer syntax UID of the frames: that of the file meta information (0002,0010), or Explicit VR
    /// Little Endian where that is big endian or deflated, which the frames no longer are.
    pub transfer_syntax: String,
    /// SOP Instance UID (0008,0018).
    pub sop_instance_uid: String,
    /// SOP Class UID (0008,0016).
    pub sop_class_uid: String,
    /// The frames in order, each with all its fragments; empty for an object without an image.
    pub frames: Vec<Bytes>,
}

/// What a DICOM file holds.
#[derive(Debug, Clone)]
pub enum Content<T> {
    /// An image, or an error of one would have been returned.
    Image(T),
    /// Something without an image, with its SOP class where that is stated: a directory, a report, a plan.
    NoImage(Option<String>),
}

/// Reads the header of a file up to its pixel data.
///
/// Files without preamble, prefix, group length or all of the file meta information are read, too.
///
/// Fails with [`InvalidImage`](ErrorKind::InvalidImage) where the file is no DICOM file or lacks
/// its identifiers, [`UnsupportedPixelData`](ErrorKind::UnsupportedPixelData) where its transfer syntax
/// is not known, [`PayloadTooLarge`](ErrorKind::PayloadTooLarge) where its header would
/// take too much memory, and [`Io`](ErrorKind::Io) where it cannot be read.
pub fn read_header(path: &Path) -> Result<P10Header> {
    let run = || -> Result<P10Header> {
        let (file, length) = open(path)?;
        let Parsed { dataset, transfer_syntax, room, .. } = parse(file, length, false, None)?;
        header(dataset, transfer_syntax, room)
    };
    run().map_err(|e| e.context(path.display()))
}

/// As [`read_header`], of a file that may hold no image. An instance of a class that always has slices,
/// or with Rows, that has no pixel data is an error: it was cut off.
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

/// As [`examine`], with the frames, of a file of `length` bytes wherever it is; `hold` is told of what is
/// taken beyond these (of what was deflated).
///
/// # Errors
/// Those of [`examine`] and [`read`], and what `hold` returns.
pub fn examine_from(file: impl Read, length: u64, hold: &mut Hold) -> Result<Content<P10Instance>> {
    let parsed = parse(file, length, true, Some(hold))?;
    if let Some(class) = parsed.without_image()? {
        return Ok(Content::NoImage(class));
    }
    parsed.into_instance().map(Content::Image)
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

/// As [`read_header`], of the bytes of a file.
///
/// # Errors
/// Those of [`read_header`].
pub fn header_of(data: &[u8]) -> Result<P10Header> {
    let Parsed { dataset, transfer_syntax, room, .. } =
        parse(data, data.len() as u64, false, None)?;
    header(dataset, transfer_syntax, room)
}

/// As [`read`], of the bytes of a file.
pub fn read_bytes(data: &[u8]) -> Result<P10Instance> {
    read_from(data, data.len() as u64)
}

/// Whether a file with these first bytes ([`HEAD`] of them, where there are so many) is a DICOM file, with
/// or without preamble and file meta information.
pub fn is_dicom(head: &[u8]) -> bool {
    start::start(head).is_some()
}

/// As [`read`], of a file of `length` bytes wherever it is. Many small reads are made.
pub fn read_from(file: impl Read, length: u64) -> Result<P10Instance> {
    parse(file, length, true, None)?.into_instance()
}

/// What a file holds, frames not yet told apart.
struct Parsed {
    dataset: Dataset,
    transfer_syntax: String,
    /// Media Storage SOP Class UID of the file meta information.
    stated_class: Option<String>,
    /// Whether there is pixel data, read or not.
    has_pixels: bool,
    pixels: Option<Pixels>,
    /// Bytes that pixel data may have at most: those of the file, more where it is deflated.
    room: u64,
}

impl Parsed {
    /// `Some` where this is no image, with its class, if it has one.
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

/// What is said of an image that should have pixels and has none.
pub const NO_PIXEL_DATA: &str = "the image has no pixel data";

fn no_pixel_data() -> Error {
    Error::new(ErrorKind::CorruptFrame, NO_PIXEL_DATA)
}

/// What deflated data is believed to hold: so much, and so many times its bytes. Images are deflated to a
/// third.
const INFLATED: (u64, u64) = (32 << 20, 200);

/// Parses the file meta information and the data set, with or without pixel data. What follows
/// pixel data (padding, signatures) is not read.
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
        // Frames are compressed once.
        End::Encapsulated if encoding.deflated || encoding.big_endian => return Err(malformed(())),
        End::Encapsulated => Some(pixels::encapsulated(&mut file)?),
    };
    let transfer_syntax = encoding.frames.to_owned();
    Ok(Parsed { dataset, transfer_syntax, stated_class: None, has_pixels, pixels, room })
}

/// Refuses pixels of more than two bytes whose order in big endian their value representation leaves
/// open. Those of integers are words of two bytes (OW), the least significant word first (PS3.5
/// section 8.1.1 and annex D); those of floating-point numbers are turned round as a whole.
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
    Error::new(ErrorKind::InvalidImage, "not a DICOM file")
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
