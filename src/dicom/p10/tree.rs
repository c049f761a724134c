//! Builds the data set of a file from the tokens of the DICOM parser.
//!
//! The parser announces an element, a sequence or an item before it reads the content. All checks
//! happen at that point: a length beyond the end of the file, excessive nesting and a header that
//! would take too much memory are rejected before anything is allocated or entered. The bytes are
//! not parsed twice, so no second pass can come to another result. (The parser's own builder
//! recurses for each nested sequence, as deep as the file says.)

use std::cell::Cell;
use std::io::Read;

use dicom_core::header::{DataElementHeader, Length};
use dicom_core::value::{DataSetSequence, PixelFragmentSequence, PrimitiveValue};
use dicom_core::{DataElement, Tag, VR};
use dicom_dictionary_std::tags;
use dicom_encoding::text::SpecificCharacterSet;
use dicom_encoding::transfer_syntax::TransferSyntax;
use dicom_object::mem::InMemElement;
use dicom_parser::dataset::read::DataSetReaderOptions;
use dicom_parser::dataset::{DataSetReader, DataToken};
use dicom_parser::stateful::decode::DynStatefulDecoder;

use super::malformed;
use super::plain::Plain;
use super::source::Source;
use crate::dicom::Dataset;
use crate::dicom::pixel_data::{self, is_pixel_data};
use crate::error::{Error, ErrorKind, Result};

/// No standard object nests sequences deeper than this.
const MAX_DEPTH: usize = 32;

/// Memory limit of a parsed header: enough for an enhanced multi-frame object of 20,000 frames with
/// eight sequences each. A data set of one element takes as much memory as one of eleven.
pub(super) const MAX_MEMORY: u64 = 288 << 20;

/// Size of an element in the map of a data set, and of a node of that map, which has room for
/// eleven.
const SLOT: u64 = (size_of::<Tag>() + size_of::<InMemElement>()) as u64;
const NODE: u64 = 11 * SLOT + 16;
/// Size of an item in a sequence's list, which grows by doubling.
const ITEM: u64 = 2 * size_of::<Dataset>() as u64;

/// Where the reading of a data set ended.
pub(super) enum End {
    /// At the end of the file: there is no Pixel Data.
    Header,
    /// At Pixel Data or a later element, with pixel data not requested.
    Unwanted {
        /// Whether it is Pixel Data.
        pixels: bool,
    },
    /// After the header of native Pixel Data. The source is at its value.
    Native {
        /// Length of the value in bytes.
        length: u32,
        /// Its value representation.
        vr: VR,
    },
    /// After the header of encapsulated Pixel Data. The source is at its first item.
    Encapsulated,
}

/// Reads the data set up to Pixel Data.
pub(super) fn read<R: Read>(
    file: &mut Source<'_, '_, R>,
    left: &Cell<u64>,
    syntax: &TransferSyntax,
    with_pixels: bool,
) -> Result<(Dataset, End)> {
    let decoder = DynStatefulDecoder::new_with(file, syntax, SpecificCharacterSet::default(), 0);
    let decoder = Plain(decoder.map_err(malformed)?);
    let tokens = DataSetReader::new(decoder, DataSetReaderOptions::default());
    let mut tree = Tree { tokens, left, memory: 0, depth: 0 };
    let mut dataset = Dataset::new_empty();
    let mut elements = 0;
    while let Some(token) = tree.next()? {
        let tag = match &token {
            DataToken::PixelSequenceStart => tags::PIXEL_DATA,
            DataToken::ElementHeader(header) => header.tag,
            DataToken::SequenceStart { tag, .. } => *tag,
            _ => return Err(malformed(())),
        };
        let pixels = is_pixel_data(tag);
        pixel_data::mark(&mut dataset, tag);
        if (pixels || tag > tags::PIXEL_DATA) && !with_pixels {
            return Ok((dataset, End::Unwanted { pixels }));
        }
        if pixels {
            return match token {
                DataToken::PixelSequenceStart => Ok((dataset, End::Encapsulated)),
                DataToken::ElementHeader(header) => {
                    Ok((dataset, End::Native { length: header.len.0, vr: header.vr }))
                }
                _ => Err(Error::new(
                    ErrorKind::CorruptFrame,
                    "pixel data is a sequence of data sets",
                )),
            };
        }
        tree.put(&mut dataset, &mut elements, token)?;
    }
    Ok((dataset, End::Header))
}

struct Tree<'a, 'f, 'h, R: Read> {
    tokens: DataSetReader<Plain<DynStatefulDecoder<&'a mut Source<'f, 'h, R>>>>,
    /// Remaining bytes of the file.
    left: &'a Cell<u64>,
    /// Estimated memory allocated so far.
    memory: u64,
    /// Current nesting depth of sequences.
    depth: usize,
}

impl<R: Read> Tree<'_, '_, '_, R> {
    fn next(&mut self) -> Result<Option<DataToken>> {
        self.tokens.next().transpose().map_err(malformed)
    }

    fn required(&mut self) -> Result<DataToken> {
        self.next()?.ok_or_else(|| malformed(()))
    }

    /// Accounts for memory that is about to be allocated.
    fn take(&mut self, bytes: u64) -> Result<()> {
        self.memory = self.memory.saturating_add(bytes);
        self.fits(0)
    }

    /// Checks that this many more bytes may be allocated.
    fn fits(&self, bytes: u64) -> Result<()> {
        if self.memory.saturating_add(bytes) <= MAX_MEMORY {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::PayloadTooLarge,
            format!(
                "the DICOM header would take more than {} MiB of memory when it is read",
                MAX_MEMORY >> 20
            ),
        ))
    }

    /// Rejects a length beyond the end of the file.
    fn is_there(&self, length: Length) -> Result<()> {
        match length.get() {
            Some(length) if u64::from(length) > self.left.get() => Err(malformed(())),
            _ => Ok(()),
        }
    }

    /// Reads the element that begins with `token` into a data set that has `elements` elements so
    /// far.
    fn put(&mut self, to: &mut Dataset, elements: &mut u64, token: DataToken) -> Result<()> {
        self.take(match *elements {
            0 => NODE,
            1..11 => 0,
            // Nodes are at least half full.
            _ => 2 * SLOT,
        })?;
        *elements += 1;
        to.put(self.element(token)?);
        Ok(())
    }

    fn element(&mut self, token: DataToken) -> Result<InMemElement> {
        match token {
            DataToken::ElementHeader(header) => self.value(header),
            DataToken::SequenceStart { tag, len } => {
                self.is_there(len)?;
                self.depth += 1;
                if self.depth > MAX_DEPTH {
                    return Err(Error::new(
                        ErrorKind::InvalidImage,
                        format!("the DICOM header nests more than {MAX_DEPTH} sequences"),
                    ));
                }
                let items = self.items()?;
                self.depth -= 1;
                // Stated lengths would have to be recomputed whenever this is written.
                let sequence = DataSetSequence::new(items, Length::UNDEFINED);
                Ok(DataElement::new(tag, VR::SQ, sequence))
            }
            DataToken::PixelSequenceStart => self.fragments(),
            _ => Err(malformed(())),
        }
    }

    fn value(&mut self, header: DataElementHeader) -> Result<InMemElement> {
        self.is_there(header.len)?;
        self.fits(most_memory(header.vr, header.len.0.into()))?;
        let DataToken::PrimitiveValue(value) = self.required()? else { return Err(malformed(())) };
        self.take(memory(&value))?;
        Ok(DataElement::new_with_len(header.tag, header.vr, header.len, value))
    }

    /// Reads the items of the sequence just entered.
    fn items(&mut self) -> Result<Vec<Dataset>> {
        let mut items = Vec::new();
        loop {
            match self.required()? {
                DataToken::ItemStart { len } => {
                    self.is_there(len)?;
                    self.take(ITEM)?;
                    items.push(self.item()?);
                }
                DataToken::SequenceEnd => return Ok(items),
                _ => return Err(malformed(())),
            }
        }
    }

    fn item(&mut self) -> Result<Dataset> {
        let mut dataset = Dataset::new_empty();
        let mut elements = 0;
        loop {
            match self.required()? {
                DataToken::ItemEnd => return Ok(dataset),
                token => self.put(&mut dataset, &mut elements, token)?,
            }
        }
    }

    /// Reads the fragments of pixel data within an item: an icon, which is not used.
    fn fragments(&mut self) -> Result<InMemElement> {
        let mut offsets = None;
        let mut fragments = Vec::new();
        loop {
            match self.required()? {
                DataToken::ItemStart { len } => {
                    self.is_there(len)?;
                    // The parser reserves four bytes for each byte of an offset table.
                    self.take(64 + 4 * u64::from(len.get().ok_or_else(|| malformed(()))?))?;
                }
                DataToken::OffsetTable(table) => offsets = Some(table),
                DataToken::ItemValue(data) => fragments.push(data),
                DataToken::ItemEnd => {
                    offsets.get_or_insert_default();
                }
                DataToken::SequenceEnd => break,
                _ => return Err(malformed(())),
            }
        }
        let sequence = PixelFragmentSequence::new(offsets.unwrap_or_default(), fragments);
        Ok(DataElement::new(tags::PIXEL_DATA, VR::OB, sequence))
    }
}

/// Maximum memory that reading a value of `length` bytes may take: text takes a string for each
/// value, in a list that grows by doubling, plus the buffer it is read into.
fn most_memory(vr: VR, length: u64) -> u64 {
    use VR::{AE, AS, CS, DA, DS, DT, IS, LO, LT, PN, SH, ST, TM, UC, UI, UR, UT};
    match vr {
        AE | AS | CS | DA | DS | DT | IS | LO | PN | SH | TM | UC | UI => 64 * length,
        LT | ST | UR | UT => 5 * length,
        _ => length,
    }
}

/// Memory of a value in addition to its element.
fn memory(value: &PrimitiveValue) -> u64 {
    /// Size of a string object and the smallest allocation.
    const TEXT: u64 = size_of::<String>() as u64 + 32;
    match value {
        PrimitiveValue::Strs(texts) => {
            let capacity = (texts.capacity() - texts.len()) * size_of::<String>();
            capacity as u64 + texts.iter().map(|text| TEXT + text.capacity() as u64).sum::<u64>()
        }
        PrimitiveValue::Str(text) => 32 + text.capacity() as u64,
        other => 32 + u64::try_from(other.calculate_byte_len()).unwrap_or(u64::MAX),
    }
}
