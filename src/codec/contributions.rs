//! What packet headers say about one code-block (ISO/IEC 15444-1 annex B.10.6 and B.10.7, and
//! ISO/IEC 15444-15): its coding passes and the lengths of their segments, which may be spread over
//! several quality layers.

use std::borrow::Cow;

use super::packet_bits::Bits;

/// A code-block that packets contribute to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Block {
    /// Offset of its first byte.
    pub start: usize,
    /// Bytes of the cleanup pass.
    pub cleanup: usize,
    /// Bytes of the significance propagation and magnitude refinement passes, which follow the
    /// cleanup pass.
    pub refinement: usize,
    /// Number of coding passes, 1 to 3.
    pub passes: u32,
    /// Bit-planes above the one that the cleanup pass codes.
    pub skipped_bit_planes: u32,
}

/// A code-block while its packets are parsed.
#[derive(Debug)]
pub(super) struct Growing {
    missing_bit_planes: u32,
    /// Lblock: the base number of bits of a length field.
    length_bits: u32,
    /// Coding passes so far, including placeholders: sets of one cleanup pass and two refinement
    /// passes.
    passes: u32,
    segments: Vec<Segment>,
    /// Index of the first segment whose bytes have not been located yet.
    placed: usize,
}

/// The bytes of one or two passes in one packet.
#[derive(Debug, Clone, Copy)]
struct Segment {
    set: u32,
    passes: u32,
    is_refinement: bool,
    start: usize,
    length: usize,
}

impl Growing {
    pub fn new(missing_bit_planes: u32) -> Self {
        let segments = Vec::with_capacity(2);
        Self { missing_bit_planes, length_bits: 3, passes: 0, segments, placed: 0 }
    }

    /// Parses what a packet header says about the block.
    pub fn read(&mut self, bits: &mut Bits<'_>) -> Option<()> {
        let mut new = passes(bits)?;
        while bits.bit()? == 1 {
            self.length_bits += 1;
        }
        if self.segments.is_empty() {
            new = self.begin(bits, new)?;
        }
        while new > 0 {
            // The cleanup pass has its own segment; the passes after it share one.
            let (set, kind) = (self.passes / 3, self.passes % 3);
            let is_refinement = kind > 0;
            let passes = if is_refinement { new.min(3 - kind) } else { 1 };
            let length = bits.number(self.length_bits + passes.ilog2())? as usize;
            self.segments.push(Segment { set, passes, is_refinement, start: 0, length });
            self.passes = self.passes.checked_add(passes)?;
            new -= passes;
        }
        Some(())
    }

    /// Reads `new` passes of a block that has no bytes so far, up to the first cleanup pass with
    /// bytes: the passes before it are placeholders and share its length field. Returns how many
    /// passes are left.
    fn begin(&mut self, bits: &mut Bits<'_>, new: u32) -> Option<u32> {
        let last = self.passes.checked_add(new)?;
        // Trailing refinement passes, after the last cleanup pass.
        let refining = (last - 1) % 3;
        let first = new.checked_sub(refining).filter(|&first| first > 0).unwrap_or(1);
        let length = bits.number(self.length_bits + first.ilog2())? as usize;
        if length > 0 {
            let cleaned = last.checked_sub(refining).filter(|&cleaned| cleaned > self.passes)?;
            let set = (cleaned - 1) / 3;
            self.segments.push(Segment { set, passes: 1, is_refinement: false, start: 0, length });
            self.passes = cleaned;
            return Some(refining);
        }
        // All passes are placeholders: the length is zero, in as many bits as that many passes
        // require.
        (bits.number(new.ilog2() - first.ilog2())? == 0).then_some(())?;
        self.passes = last;
        Some(0)
    }

    /// Sets the offsets of the new segments, the first at `at`. Returns where the next block's
    /// bytes begin.
    pub fn place(&mut self, mut at: usize) -> Option<usize> {
        for segment in self.segments.iter_mut().skip(self.placed) {
            segment.start = at;
            at = at.checked_add(segment.length)?;
        }
        self.placed = self.segments.len();
        Some(at)
    }

    /// Returns the block as coded by its last set of passes. Copies its bytes to the end of `data`
    /// if they are not contiguous. `Some(None)` if all passes are placeholders, `None` if the block
    /// is invalid.
    pub fn end(&self, data: &mut Cow<'_, [u8]>) -> Option<Option<Block>> {
        if self.segments.is_empty() {
            return Some(None);
        }
        let mut sets = self.segments.iter().filter(|s| !s.is_refinement && s.length > 0);
        let set = sets.next_back()?.set;
        let of = |is_refinement: bool| {
            let segments = self.segments.iter().filter(move |s| s.set == set);
            segments.filter(move |s| s.is_refinement == is_refinement)
        };
        let length = |is_refinement: bool| of(is_refinement).map(|s| s.length).sum::<usize>();
        let mut next = None;
        let mut is_whole = true;
        for segment in of(false).chain(of(true)) {
            is_whole &= next.is_none_or(|next| next == segment.start);
            next = Some(segment.start + segment.length);
        }
        let mut block = Block {
            start: of(false).next()?.start,
            cleanup: length(false),
            refinement: length(true),
            passes: 1 + of(true).map(|s| s.passes).sum::<u32>(),
            skipped_bit_planes: self.missing_bit_planes.checked_add(set)?,
        };
        if !is_whole {
            block.start = data.len();
            for segment in of(false).chain(of(true)) {
                let end = segment.start.checked_add(segment.length)?;
                data.get(segment.start..end)?;
                own(data, segment.length)?.extend_from_within(segment.start..end);
            }
        }
        block.is_sound(data).then_some(Some(block))
    }
}

impl Block {
    /// Whether the block decoder can read it in full (ISO/IEC 15444-15 section 7.1.1: the last two
    /// bytes of the cleanup pass hold the length of its suffix).
    fn is_sound(&self, data: &[u8]) -> bool {
        let last_plane = if self.passes > 1 { 28 } else { 29 };
        let Some(bytes) = data.get(self.start..) else { return false };
        let Some((cleanup, rest)) = bytes.split_at_checked(self.cleanup) else { return false };
        if rest.len() < self.refinement {
            return false;
        }
        let &[.., low, high] = cleanup else { return false };
        let suffix = usize::from(high) << 4 | usize::from(low & 0x0F);
        self.skipped_bit_planes <= last_plane
            && (self.passes == 1 || self.refinement > 0)
            && (2..=self.cleanup.min(4079)).contains(&suffix)
    }
}

/// Returns the bytes as a vector with room for `more`, or `None` if memory is short.
fn own<'a>(data: &'a mut Cow<'_, [u8]>, more: usize) -> Option<&'a mut Vec<u8>> {
    if let Cow::Borrowed(bytes) = data {
        let mut list = Vec::new();
        list.try_reserve_exact(bytes.len().checked_add(more)?).ok()?;
        list.extend_from_slice(bytes);
        *data = Cow::Owned(list);
    }
    let list = data.to_mut();
    list.try_reserve(more).ok()?;
    Some(list)
}

/// Number of coding passes (annex B.10.6, table B.4).
fn passes(bits: &mut Bits<'_>) -> Option<u32> {
    if bits.bit()? == 0 {
        return Some(1);
    }
    if bits.bit()? == 0 {
        return Some(2);
    }
    Some(match bits.number(2)? {
        3 => match bits.number(5)? {
            31 => 37 + bits.number(7)?,
            n => 6 + n,
        },
        n => 3 + n,
    })
}
