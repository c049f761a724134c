//! An element decoder that leaves text undecoded.
//!
//! The parser's own decoder applies the first character set it knows to all texts and so loses the
//! bytes of texts in other sets. Here every byte of a text becomes the character with its code; the
//! actual characters are decided once the data set is complete
//! ([`charset`](crate::dicom::charset)).

use std::io::{Seek, Write};

use dicom_core::header::{DataElementHeader, SequenceItemHeader};
use dicom_core::value::PrimitiveValue;
use dicom_dictionary_std::tags;
use dicom_parser::StatefulDecode;
use dicom_parser::stateful::decode::Result;

/// Wraps a decoder and bypasses its handling of character sets.
pub(super) struct Plain<D>(pub D);

impl<D: StatefulDecode> Plain<D> {
    /// Reads the value of Specific Character Set, which the inner decoder must not act on.
    fn character_sets(&mut self, header: &DataElementHeader) -> Result<PrimitiveValue> {
        let value = self.0.read_value_bytes(header)?;
        let PrimitiveValue::U8(bytes) = &value else { return Ok(value) };
        let text = |part: &[u8]| part.iter().copied().map(char::from).collect();
        Ok(PrimitiveValue::Strs(bytes.split(|b| *b == b'\\').map(text).collect()))
    }
}

impl<D: StatefulDecode> StatefulDecode for Plain<D> {
    type Reader = D::Reader;

    fn decode_header(&mut self) -> Result<DataElementHeader> {
        self.0.decode_header()
    }

    fn decode_item_header(&mut self) -> Result<SequenceItemHeader> {
        self.0.decode_item_header()
    }

    fn read_value(&mut self, header: &DataElementHeader) -> Result<PrimitiveValue> {
        if header.tag == tags::SPECIFIC_CHARACTER_SET && header.len.0 > 0 {
            return self.character_sets(header);
        }
        self.0.read_value(header)
    }

    fn read_value_preserved(&mut self, header: &DataElementHeader) -> Result<PrimitiveValue> {
        if header.tag == tags::SPECIFIC_CHARACTER_SET && header.len.0 > 0 {
            return self.character_sets(header);
        }
        self.0.read_value_preserved(header)
    }

    fn read_value_bytes(&mut self, header: &DataElementHeader) -> Result<PrimitiveValue> {
        self.0.read_value_bytes(header)
    }

    fn read_to_vec(&mut self, length: u32, to: &mut Vec<u8>) -> Result<()> {
        self.0.read_to_vec(length, to)
    }

    fn read_u32_to_vec(&mut self, length: u32, to: &mut Vec<u32>) -> Result<()> {
        self.0.read_u32_to_vec(length, to)
    }

    fn read_to<W: Write>(&mut self, length: u32, out: W) -> Result<()> {
        self.0.read_to(length, out)
    }

    fn skip_bytes(&mut self, length: u32) -> Result<()> {
        self.0.skip_bytes(length)
    }

    fn seek(&mut self, position: u64) -> Result<()>
    where
        Self::Reader: Seek,
    {
        self.0.seek(position)
    }

    fn position(&self) -> u64 {
        self.0.position()
    }
}
