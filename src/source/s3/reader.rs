//! Reads one S3 object as a seekable file: blocks by ranged reads, some of them ahead of the
//! reader.

use std::collections::VecDeque;
use std::io::{self, Read, Seek, SeekFrom};

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio_util::task::AbortOnDropHandle;

use super::S3Input;
use super::object::{BLOCK, Object};
use crate::error::{Error, Result};

/// Blocks fetched ahead of the current one.
const AHEAD: u64 = 3;

/// Blocks kept: those ahead, the current one, and the end of the object, which holds the directory
/// of a zip archive.
const KEPT: usize = AHEAD as usize + 3;

/// Reads an object from a blocking thread.
pub(super) struct ObjectReader {
    input: S3Input,
    object: Object,
    runtime: Handle,
    position: u64,
    blocks: VecDeque<(u64, Block)>,
    last: Option<u64>,
}

enum Block {
    Coming(AbortOnDropHandle<Result<Bytes>>),
    There(Bytes),
}

impl ObjectReader {
    /// Created on a thread of `runtime`, used on another one.
    pub fn new(input: S3Input, object: Object, runtime: Handle) -> Self {
        Self { input, object, runtime, position: 0, blocks: VecDeque::new(), last: None }
    }

    fn start(&mut self, index: u64) {
        let begins = index * BLOCK;
        if begins >= self.object.size || self.blocks.iter().any(|(i, _)| *i == index) {
            return;
        }
        let (input, object) = (self.input.clone(), self.object.clone());
        let length = BLOCK.min(object.size - begins);
        let task = self.runtime.spawn(async move { input.range(&object, begins, length).await });
        self.blocks.push_back((index, Block::Coming(AbortOnDropHandle::new(task))));
    }

    /// Returns block `index`, waiting for it if necessary.
    fn block(&mut self, index: u64) -> Result<Bytes> {
        self.start(index);
        // Fetches ahead only for sequential reads: a zip archive is read from its end first.
        if self.last.is_some_and(|last| last == index || last + 1 == index) {
            (index + 1..=index + AHEAD).for_each(|next| self.start(next));
        }
        self.last = Some(index);
        let place = self.blocks.iter_mut().find(|(i, _)| *i == index);
        let (_, block) = place.ok_or_else(|| Error::internal("a block was not begun"))?;
        if let Block::Coming(task) = block {
            let arrived = self
                .runtime
                .block_on(task)
                .map_err(|e| Error::internal("reading an object was aborted").caused_by(e))??;
            *block = Block::There(arrived);
        }
        let Block::There(bytes) = block else { return Err(Error::internal("no block")) };
        let bytes = bytes.clone();
        while self.blocks.len() > KEPT {
            let oldest = self.blocks.iter().position(|(i, _)| *i < index || *i > index + AHEAD);
            match oldest {
                Some(oldest) => drop(self.blocks.remove(oldest)),
                None => break,
            }
        }
        Ok(bytes)
    }
}

impl Read for ObjectReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.position >= self.object.size || buffer.is_empty() {
            return Ok(0);
        }
        let (index, within) = (self.position / BLOCK, (self.position % BLOCK) as usize);
        let block = self.block(index).map_err(io::Error::other)?;
        let rest = block.get(within..).unwrap_or_default();
        let length = rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&rest[..length]);
        self.position += length as u64;
        Ok(length)
    }
}

impl Seek for ObjectReader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(n) => Some(n),
            SeekFrom::End(n) => self.object.size.checked_add_signed(n),
            SeekFrom::Current(n) => self.position.checked_add_signed(n),
        };
        self.position = target.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}
