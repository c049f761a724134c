//! Finds the external weight files of an ONNX model (`external_data` of `TensorProto` in onnx.proto).
//!
//! Only messages that lead to tensors are parsed; everything else is skipped, so a model of gigabytes
//! needs no memory. For a malformed file, no external files are reported: ONNX Runtime reports the
//! error when it loads the model.

use std::collections::BTreeSet;
use std::io::{Read, Result, Seek};

use super::protobuf::{Content, Reader, malformed};

/// Nesting limit for graphs; real models nest only a few levels deep.
const DEEPEST: usize = 32;

/// Longest accepted file name.
const LONGEST: u64 = 4096;

/// A message of onnx.proto that can lead to tensors.
#[derive(Clone, Copy)]
enum Message {
    Model,
    Function,
    Graph,
    Node,
    Attribute,
    Sparse,
    Tensor,
}

impl Message {
    /// Returns the type of the message in field `number`, if it can lead to tensors.
    fn field(self, number: u64) -> Option<Self> {
        Some(match (self, number) {
            (Self::Model, 7) => Self::Graph,
            (Self::Model, 25) => Self::Function,
            (Self::Function, 7) | (Self::Graph, 1) => Self::Node,
            (Self::Graph, 5) | (Self::Attribute, 5 | 10) | (Self::Sparse, 1 | 2) => Self::Tensor,
            (Self::Graph, 15) | (Self::Attribute, 22 | 23) => Self::Sparse,
            (Self::Node, 5) => Self::Attribute,
            (Self::Attribute, 6 | 11) => Self::Graph,
            _ => return None,
        })
    }
}

/// `external_data` of a tensor: entries with a key (1) and a value (2).
const EXTERNAL_DATA: u64 = 13;

/// Returns the names of the external weight files of the model in `file`, as the model spells them.
pub(super) fn locations(file: impl Read + Seek) -> BTreeSet<String> {
    let mut walk = Walk { input: Reader::new(file), found: BTreeSet::new() };
    match walk.message(Message::Model, u64::MAX, 0) {
        Ok(()) => walk.found,
        Err(_) => BTreeSet::new(),
    }
}

struct Walk<R> {
    input: Reader<R>,
    found: BTreeSet<String>,
}

impl<R: Read + Seek> Walk<R> {
    /// Parses a message that ends at `end`, or at the end of the file.
    fn message(&mut self, message: Message, end: u64, depth: usize) -> Result<()> {
        if depth > DEEPEST {
            return Err(malformed());
        }
        while let Some(field) = self.input.field(end)? {
            let Content::Bytes(length) = field.content else { continue };
            let stop = self.input.at() + length;
            match (message, field.number) {
                (Message::Tensor, EXTERNAL_DATA) => self.entry(stop)?,
                (message, number) => match message.field(number) {
                    Some(inner) => self.message(inner, stop, depth + 1)?,
                    None => self.input.skip(length)?,
                },
            }
        }
        Ok(())
    }

    /// Parses one entry of `external_data`.
    fn entry(&mut self, end: u64) -> Result<()> {
        let (mut name, mut value) = (Vec::new(), Vec::new());
        while let Some(field) = self.input.field(end)? {
            let Content::Bytes(length) = field.content else { continue };
            if length > LONGEST {
                return Err(malformed());
            }
            let mut text = Vec::with_capacity(length as usize);
            self.input.read(length, &mut text)?;
            match field.number {
                1 => name = text,
                2 => value = text,
                _ => {}
            }
        }
        if name == b"location" {
            self.found.extend(String::from_utf8(value).ok());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn field(number: u64, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        for mut value in [number << 3 | 2, bytes.len() as u64] {
            while value >= 0x80 {
                out.push(value as u8 | 0x80);
                value >>= 7;
            }
            out.push(value as u8);
        }
        out.extend_from_slice(bytes);
        out
    }

    fn entry(key: &str, value: &str) -> Vec<u8> {
        field(13, &[field(1, key.as_bytes()), field(2, value.as_bytes())].concat())
    }

    fn external(name: &str) -> Vec<u8> {
        [&[16, 1][..], &entry("offset", "0"), &entry("location", name), &[112, 1]].concat()
    }

    fn of(bytes: &[u8]) -> Vec<String> {
        locations(Cursor::new(bytes)).into_iter().collect()
    }

    #[test]
    fn files_are_found_wherever_tensors_are() {
        let raw = field(9, &[7; 300]);
        let weights = [field(5, &raw), field(5, &external("weights.bin"))].concat();
        let constant = field(1, &field(5, &field(5, &external("constant.bin"))));
        let inner = field(1, &field(5, &field(6, &field(5, &external("inner.bin")))));
        let sparse = field(15, &field(1, &external("sparse.bin")));
        let graph = [weights, constant, inner, sparse, field(5, &external("weights.bin"))].concat();
        let model = [&[8, 8][..], &field(7, &graph), &field(8, &[16, 17])].concat();
        assert_eq!(of(&model), ["constant.bin", "inner.bin", "sparse.bin", "weights.bin"]);
    }

    #[test]
    fn what_is_no_model_names_none() {
        let model = field(7, &field(5, &external("weights.bin")));
        assert_eq!(of(&model), ["weights.bin"]);
        for cut in 1..model.len() {
            assert!(of(&model[..cut]).is_empty(), "{cut}");
        }
        assert!(of(b"").is_empty() && of(&[0xff; 64]).is_empty() && of(&[0x3a, 0x80]).is_empty());
        // Graphs nested without end, and a length beyond any file.
        let deep = (0..200).fold(external("x"), |inner, _| field(1, &field(5, &field(6, &inner))));
        assert!(of(&field(7, &deep)).is_empty());
        let long = [0x3a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
        assert!(of(&long).is_empty());
    }
}
