//! Gzip with several members, concatenated to one stream (RFC 1952 section 2.2).

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::GzDecoder;

/// Members allowed for any file, and for each kibibyte read: each member costs a new decompressor,
/// even if it is empty. Programs that compress in blocks write at least 20 KiB at a time.
const MEMBERS: (u64, u64) = (64, 1);

/// Reads all members as one stream.
pub(super) struct Members<R> {
    decoder: Option<GzDecoder<Counted<R>>>,
    members: u64,
}

impl<R: Read> Members<R> {
    pub fn new(file: R) -> Self {
        let file = Counted { file: BufReader::with_capacity(32 << 10, file), bytes: 0 };
        Self { decoder: Some(GzDecoder::new(file)), members: 1 }
    }

    /// Advances to the next member, if there is one.
    fn next(&mut self) -> io::Result<bool> {
        let Some(decoder) = self.decoder.take() else { return Ok(false) };
        let mut file = decoder.into_inner();
        if file.fill_buf()?.is_empty() {
            return Ok(false);
        }
        self.members += 1;
        if self.members > MEMBERS.0 + file.bytes / 1024 * MEMBERS.1 {
            return Err(io::Error::other("too many gzip members"));
        }
        self.decoder = Some(GzDecoder::new(file));
        Ok(true)
    }
}

impl<R: Read> Read for Members<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        while let Some(decoder) = &mut self.decoder {
            match decoder.read(buffer)? {
                0 if self.next()? => {}
                count => return Ok(count),
            }
        }
        Ok(0)
    }
}

/// Counts the bytes consumed.
struct Counted<R> {
    file: BufReader<R>,
    bytes: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.bytes += count as u64;
        Ok(count)
    }
}

impl<R: Read> BufRead for Counted<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.file.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        self.bytes += count as u64;
        self.file.consume(count);
    }
}
