//! Reads and writes the Protocol Buffers wire format as a stream. Fields that are not needed are
//! skipped, so a model of gigabytes needs no memory.
//! <https://protobuf.dev/programming-guides/encoding/>

use std::io::{BufReader, Error, ErrorKind, Read, Result, Seek};

/// The header of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Field {
    pub number: u64,
    pub content: Content,
}

/// The content of a field, or its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    /// A number, already read.
    Number(u64),
    /// Four bytes, already read.
    Fixed32([u8; 4]),
    /// Eight bytes, already read.
    Fixed64([u8; 8]),
    /// This many bytes, which follow.
    Bytes(u64),
}

/// Reads fields sequentially.
pub(super) struct Reader<R> {
    input: BufReader<R>,
    at: u64,
}

/// Creates the error for a malformed message.
pub(super) fn malformed() -> Error {
    ErrorKind::InvalidData.into()
}

impl<R: Read + Seek> Reader<R> {
    pub fn new(input: R) -> Self {
        Self { input: BufReader::new(input), at: 0 }
    }

    /// Returns the offset of the next byte.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// Reads the next field of a message that ends at `end` (`u64::MAX`: at the end of the file);
    /// `None` at its end. [`Content::Bytes`] must be read or skipped before the next field.
    pub fn field(&mut self, end: u64) -> Result<Option<Field>> {
        if self.at >= end {
            return Ok(None);
        }
        let key = match self.varint() {
            Ok(key) => key,
            Err(e) if e.kind() == ErrorKind::UnexpectedEof && end == u64::MAX => return Ok(None),
            Err(e) => return Err(e),
        };
        let content = match key & 7 {
            0 => Content::Number(self.varint()?),
            1 => Content::Fixed64(self.array()?),
            2 => {
                let length = self.varint()?;
                let stop = self.at.checked_add(length).filter(|&stop| stop <= end);
                stop.ok_or_else(malformed)?;
                Content::Bytes(length)
            }
            5 => Content::Fixed32(self.array()?),
            _ => return Err(malformed()),
        };
        Ok(Some(Field { number: key >> 3, content }))
    }

    /// Appends the next `length` bytes to `out`, which must have the capacity.
    pub fn read(&mut self, length: u64, out: &mut Vec<u8>) -> Result<()> {
        let read = (&mut self.input).take(length).read_to_end(out)? as u64;
        self.at += read;
        if read == length { Ok(()) } else { Err(ErrorKind::UnexpectedEof.into()) }
    }

    /// Reads the next `length` bytes as text, of at most `longest` bytes.
    pub fn text(&mut self, length: u64, longest: u64) -> Result<String> {
        if length > longest {
            return Err(malformed());
        }
        let mut bytes = Vec::with_capacity(length as usize);
        self.read(length, &mut bytes)?;
        String::from_utf8(bytes).map_err(|_| malformed())
    }

    pub fn skip(&mut self, bytes: u64) -> Result<()> {
        let step = i64::try_from(bytes).map_err(|_| malformed())?;
        self.input.seek_relative(step)?;
        self.at = self.at.checked_add(bytes).ok_or_else(malformed)?;
        Ok(())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.input.read_exact(&mut bytes)?;
        self.at += N as u64;
        Ok(bytes)
    }

    fn varint(&mut self) -> Result<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let mut byte = [0];
            self.input.read_exact(&mut byte)?;
            self.at += 1;
            value |= u64::from(byte[0] & 0x7f) << shift;
            if byte[0] & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(malformed())
    }
}

/// Writes a variable-length integer.
pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Writes the key of a length-delimited field and its length; the caller appends the bytes.
pub(super) fn put_length(out: &mut Vec<u8>, number: u64, length: u64) {
    put_varint(out, number << 3 | 2);
    put_varint(out, length);
}

/// Writes a length-delimited field.
pub(super) fn put_bytes(out: &mut Vec<u8>, number: u64, bytes: &[u8]) {
    put_length(out, number, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Writes a 32-bit field.
pub(super) fn put_fixed32(out: &mut Vec<u8>, number: u64, bytes: [u8; 4]) {
    put_varint(out, number << 3 | 5);
    out.extend(bytes);
}

/// Writes a 64-bit field.
pub(super) fn put_fixed64(out: &mut Vec<u8>, number: u64, bytes: [u8; 8]) {
    put_varint(out, number << 3 | 1);
    out.extend(bytes);
}

/// Writes an integer field.
pub(super) fn put_number(out: &mut Vec<u8>, number: u64, value: u64) {
    put_varint(out, number << 3);
    put_varint(out, value);
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    #[test]
    fn fields_are_read_as_they_are_written() {
        let mut message = Vec::new();
        put_number(&mut message, 1, 300);
        put_bytes(&mut message, 2, b"name");
        put_fixed32(&mut message, 3, [1, 2, 3, 4]);
        put_fixed64(&mut message, 4, [0; 8]);
        put_bytes(&mut message, 1000, &[7; 200]);
        let mut reader = Reader::new(Cursor::new(&message));
        let mut next = || {
            let field = reader.field(u64::MAX).unwrap();
            if let Some(Field { content: Content::Bytes(length), .. }) = field {
                reader.skip(length).unwrap();
            }
            field.map(|f| (f.number, f.content))
        };
        assert_eq!(next(), Some((1, Content::Number(300))));
        assert_eq!(next(), Some((2, Content::Bytes(4))));
        assert_eq!(next(), Some((3, Content::Fixed32([1, 2, 3, 4]))));
        assert_eq!(next(), Some((4, Content::Fixed64([0; 8]))));
        assert_eq!(next(), Some((1000, Content::Bytes(200))));
        assert_eq!(next(), None);
    }

    #[test]
    fn lengths_that_lead_out_of_a_message_are_malformed() {
        for bytes in [
            &[0x0a, 5, 1][..],
            &[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f],
            &[0x0f],
        ] {
            assert!(Reader::new(Cursor::new(bytes)).field(3).is_err(), "{bytes:?}");
        }
        let mut reader = Reader::new(Cursor::new(&[0x0a, 4, b'a']));
        assert!(reader.field(u64::MAX).is_ok());
        assert!(reader.text(4, 10).is_err(), "the file ends before");
        assert!(Reader::new(Cursor::new(b"abc")).text(3, 2).is_err(), "longer than is believed");
    }
}
