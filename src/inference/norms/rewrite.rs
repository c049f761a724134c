//! Rewrites a model with its norms replaced.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::Path;

use super::nodes;
use super::survey::Survey;
use crate::error::{Error, ErrorKind, Result};
use crate::inference::protobuf::{
    Content, Field, Reader, malformed, put_fixed32, put_fixed64, put_length, put_number, put_varint,
};
use crate::memory::reserve;

/// Generous bound on the bytes of one norm's nodes, and of the shared constants.
const BYTES_OF_NORM: usize = 32 << 10;

/// Bytes of a length that is only known afterwards.
const LENGTH: usize = 5;

/// Size limit of a message.
const LARGEST: usize = i32::MAX as usize;

/// Returns the bytes of the model at `path` with the norms replaced that `survey` found in it.
///
/// # Errors
/// [`ErrorKind::OutOfMemory`] if there is no memory for it; [`ErrorKind::InvalidModel`] if the file
/// cannot be read or is too large.
pub(in crate::inference) fn rewritten(path: &Path, survey: &Survey) -> Result<Vec<u8>> {
    let unreadable = |e: io::Error| {
        let message = format!("{} cannot be read: {}", path.display(), e.kind());
        Error::new(ErrorKind::InvalidModel, message).caused_by(e)
    };
    let file = File::open(path).map_err(unreadable)?;
    let bytes = file.metadata().map_err(unreadable)?.len();
    let more = survey.rewritable().saturating_add(8).saturating_mul(BYTES_OF_NORM);
    let room = usize::try_from(bytes).unwrap_or(usize::MAX).saturating_add(more);
    let mut out = Vec::new();
    reserve(&mut out, room, "the network's file")?;
    let mut rewrite = Rewrite { input: Reader::new(file), survey, out, done: 0, index: 0 };
    rewrite.model().map_err(unreadable)?;
    if rewrite.out.len() > LARGEST || rewrite.out.len() > room {
        let message = format!("{} is too large for its norms to be replaced", path.display());
        return Err(Error::new(ErrorKind::InvalidModel, message));
    }
    Ok(rewrite.out)
}

struct Rewrite<'a, R> {
    input: Reader<R>,
    survey: &'a Survey,
    out: Vec<u8>,
    /// Number of norms replaced so far.
    done: usize,
    /// Number of graph nodes so far. A message may come in several parts.
    index: u64,
}

impl<R: Read + Seek> Rewrite<'_, R> {
    fn model(&mut self) -> io::Result<()> {
        while let Some(field) = self.input.field(u64::MAX)? {
            match field {
                Field { number: 7, content: Content::Bytes(length) } => self.graph(length)?,
                other => self.copy(other)?,
            }
        }
        Ok(())
    }

    fn graph(&mut self, length: u64) -> io::Result<()> {
        let end = self.input.at() + length;
        put_varint(&mut self.out, 7 << 3 | 2);
        let start = self.out.len();
        self.out.extend([0; LENGTH]);
        while let Some(field) = self.input.field(end)? {
            let norm = match field.number {
                1 => {
                    self.index += 1;
                    self.survey.norms.get(&(self.index - 1))
                }
                _ => None,
            };
            match (norm, field.content) {
                (Some(norm), Content::Bytes(length)) => {
                    self.input.skip(length)?;
                    if self.done == 0 {
                        nodes::shared(&mut self.out, self.survey.opset);
                    }
                    nodes::replacement(&mut self.out, self.survey.opset, self.done, norm);
                    self.done += 1;
                }
                _ => self.copy(field)?,
            }
        }
        let length = self.out.len() - start - LENGTH;
        let bytes: [u8; LENGTH] = std::array::from_fn(|i| {
            let more = if i + 1 < LENGTH { 0x80 } else { 0 };
            (length >> (7 * i)) as u8 & 0x7f | more
        });
        self.out[start..start + LENGTH].copy_from_slice(&bytes);
        Ok(())
    }

    fn copy(&mut self, field: Field) -> io::Result<()> {
        let Field { number, content } = field;
        match content {
            Content::Number(value) => put_number(&mut self.out, number, value),
            Content::Fixed32(bytes) => put_fixed32(&mut self.out, number, bytes),
            Content::Fixed64(bytes) => put_fixed64(&mut self.out, number, bytes),
            Content::Bytes(length) => {
                put_length(&mut self.out, number, length);
                // The file may have grown since the buffer was allocated.
                if length > (self.out.capacity() - self.out.len()) as u64 {
                    return Err(malformed());
                }
                self.input.read(length, &mut self.out)?;
            }
        }
        Ok(())
    }
}
