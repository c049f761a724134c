//! The symbolic dimensions of a network's input, and which of them are fixed when a session is opened.
//!
//! OpenVINO compiles a network of known sizes into one that takes up to a fifth less time. Exported networks leave
//! the batch, and often the window, symbolic (`dim_param` in onnx.proto), so the sizes that every run will have are
//! set by name.

use std::fs::File;
use std::io::{Read, Result, Seek};
use std::path::Path;

use super::protobuf::{Content, Reader, malformed};
use super::shape::NetworkShape;

/// Longest name of a dimension, in bytes.
const LONGEST: u64 = 256;

/// Most dimensions of an input that are read.
const MOST: usize = 16;

/// The names of an input's dimensions (N, C, then the spatial ones); `None` for numbers and for nameless dimensions.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Dimensions(Vec<Option<String>>);

impl Dimensions {
    /// Reads those of the network at `path`. Empty if it has several inputs or the file is malformed: then
    /// nothing is fixed, and ONNX Runtime reports what is wrong.
    pub fn read(path: &Path) -> Self {
        let names = File::open(path).and_then(names);
        Self(names.unwrap_or_default())
    }

    /// Returns the names to fix and their sizes, for runs of `batch` windows if that is always so, and windows of
    /// `window` (X, Y, Z; planes use the first two). A name used for different sizes is left out.
    pub fn sizes(&self, batch: Option<usize>, window: Option<[usize; 3]>) -> Vec<(&str, i64)> {
        let spatial = |axis: usize| window.and_then(|window| window.get(axis).copied());
        let mut sizes: Vec<(&str, Option<i64>)> = Vec::new();
        for (index, name) in self.0.iter().enumerate() {
            let Some(name) = name else { continue };
            let size = match index {
                0 => batch,
                1 => None,
                _ => spatial(index - 2),
            };
            let size = size.and_then(|size| i64::try_from(size).ok());
            match sizes.iter_mut().find(|(known, _)| known == name) {
                Some((_, known)) if *known != size => *known = None,
                Some(_) => {}
                None => sizes.push((name, size)),
            }
        }
        sizes.into_iter().filter_map(|(name, size)| Some((name, size?))).collect()
    }

    /// Returns `shape` with the dimensions open that are symbolic in the file: a session reports the sizes that
    /// were fixed for it.
    pub fn open(&self, mut shape: NetworkShape) -> NetworkShape {
        let named = |index: usize| self.0.get(index).is_some_and(Option::is_some);
        if named(0) {
            shape.batch = None;
        }
        let spatial = self.0.len().saturating_sub(2).min(3);
        for axis in (0..spatial).filter(|axis| named(axis + 2)) {
            shape.spatial[axis] = None;
        }
        shape
    }
}

/// Reads the names of the only input's dimensions (ModelProto.graph: 7, GraphProto.input: 11).
fn names(file: impl Read + Seek) -> Result<Vec<Option<String>>> {
    let mut input = Reader::new(file);
    let mut found = None;
    while let Some(field) = input.field(u64::MAX)? {
        let Content::Bytes(length) = field.content else { continue };
        if field.number != 7 {
            input.skip(length)?;
            continue;
        }
        let end = input.at() + length;
        while let Some(field) = input.field(end)? {
            match (field.number, field.content) {
                (11, Content::Bytes(_)) if found.is_some() => return Err(malformed()),
                (11, Content::Bytes(length)) => {
                    let mut names = Vec::new();
                    let end = input.at() + length;
                    dimensions(&mut input, &VALUE_INFO, end, &mut names)?;
                    found = Some(names);
                }
                (_, Content::Bytes(length)) => input.skip(length)?,
                _ => {}
            }
        }
    }
    Ok(found.unwrap_or_default())
}

/// The fields that lead from a ValueInfoProto to its dimensions: type, tensor_type, shape, dim.
const VALUE_INFO: [u64; 4] = [2, 1, 2, 1];

/// Follows `path` in a message that ends at `end`, and reads a Dimension at its end.
fn dimensions<R: Read + Seek>(
    input: &mut Reader<R>,
    path: &[u64],
    end: u64,
    names: &mut Vec<Option<String>>,
) -> Result<()> {
    let Some((&next, rest)) = path.split_first() else {
        if names.len() >= MOST {
            return Err(malformed());
        }
        names.push(name(input, end)?);
        return Ok(());
    };
    while let Some(field) = input.field(end)? {
        let Content::Bytes(length) = field.content else { continue };
        let stop = input.at() + length;
        match field.number == next {
            true => dimensions(input, rest, stop, names)?,
            false => input.skip(length)?,
        }
    }
    Ok(())
}

/// Reads the name of a Dimension (dim_param: 2).
fn name<R: Read + Seek>(input: &mut Reader<R>, end: u64) -> Result<Option<String>> {
    let mut name = None;
    while let Some(field) = input.field(end)? {
        match (field.number, field.content) {
            (2, Content::Bytes(length)) => name = Some(input.text(length, LONGEST)?),
            (_, Content::Bytes(length)) => input.skip(length)?,
            _ => {}
        }
    }
    // ONNX Runtime takes names as C strings.
    Ok(name.filter(|name| !name.is_empty() && !name.contains('\0')))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;
    use crate::inference::protobuf::{put_bytes, put_varint};

    /// A model whose inputs have these dimensions: a name, or a number.
    fn model(inputs: &[&[&str]]) -> Vec<u8> {
        let bytes = |number, content: &[u8]| {
            let mut out = Vec::new();
            put_bytes(&mut out, number, content);
            out
        };
        let dimension = |text: &&str| match text.parse::<u64>() {
            Ok(number) => {
                let mut out = vec![8];
                put_varint(&mut out, number);
                bytes(1, &out)
            }
            Err(_) => bytes(1, &bytes(2, text.as_bytes())),
        };
        let input = |dims: &&[&str]| {
            let shape: Vec<u8> = dims.iter().flat_map(dimension).collect();
            let tensor = [vec![8, 1], bytes(2, &shape)].concat();
            bytes(11, &[bytes(1, b"image"), bytes(2, &bytes(1, &tensor))].concat())
        };
        // A node and an initializer in between.
        let mut graph = [bytes(1, &bytes(4, b"Conv")), bytes(5, &bytes(9, &[0; 99]))].concat();
        graph.extend(inputs.iter().flat_map(input));
        [vec![8, 8], bytes(7, &graph), bytes(8, &[16, 17])].concat()
    }

    fn read(bytes: &[u8]) -> Dimensions {
        Dimensions(names(Cursor::new(bytes)).unwrap_or_default())
    }

    #[test]
    fn what_every_run_has_is_fixed_by_name() {
        let window = Some([96, 64, 32]);
        let all = read(&model(&[&["batch", "1", "x", "y", "z"]]));
        assert_eq!(all.sizes(Some(1), window), [("batch", 1), ("x", 96), ("y", 64), ("z", 32)]);
        assert_eq!(all.sizes(None, None), []);
        let batch = read(&model(&[&["n", "1", "96", "96", "96"]]));
        assert_eq!(batch.sizes(Some(1), window), [("n", 1)]);
        // One name for two sizes, or for the channels, too.
        let shared = read(&model(&[&["n", "1", "s", "s", "z"]]));
        assert_eq!(shared.sizes(None, window), [("z", 32)]);
        assert_eq!(shared.sizes(None, Some([96, 96, 32])), [("s", 96), ("z", 32)]);
        let channels = read(&model(&[&["n", "n", "x", "y"]]));
        assert_eq!(channels.sizes(Some(1), Some([8, 9, 1])), [("x", 8), ("y", 9)]);
    }

    #[test]
    fn the_file_says_what_is_open() {
        let shape = NetworkShape {
            batch: Some(1),
            input_channels: Some(1),
            spatial: [Some(96), Some(64), Some(32)],
            output_channels: Some(2),
            planar: false,
        };
        let open = read(&model(&[&["batch", "1", "96", "y", "z"]])).open(shape);
        assert_eq!((open.batch, open.spatial), (None, [Some(96), None, None]));
        assert_eq!(read(&model(&[&["2", "1", "96", "64", "32"]])).open(shape), shape);
        assert_eq!(Dimensions::default().open(shape), shape);
        let planar = NetworkShape { spatial: [Some(96), Some(64), Some(1)], planar: true, ..shape };
        let open = read(&model(&[&["batch", "1", "x", "y"]])).open(planar);
        assert_eq!(open.spatial, [None, None, Some(1)]);
    }

    #[test]
    fn what_is_not_understood_fixes_nothing() {
        let bytes = model(&[&["batch", "1", "x", "y", "z"]]);
        for end in 0..bytes.len() {
            let _ = read(&bytes[..end]);
        }
        assert_eq!(read(&model(&[&["n", "1", "x"], &["n"]])), Dimensions::default());
        assert_eq!(read(&model(&[&["n"; 99]])), Dimensions::default());
        assert_eq!(read(&model(&[&[&*"n".repeat(300)]])), Dimensions::default());
        assert_eq!(read(&model(&[&["a\0b"]])), Dimensions(vec![None]));
        assert_eq!(read(b"\x3a\xff\xff\xff\xff\x0f"), Dimensions::default());
        assert_eq!(Dimensions::read(Path::new("/does/not/exist")), Dimensions::default());
    }
}
