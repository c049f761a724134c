//! Codewords of the cleanup pass to patterns and residuals of each quad (ISO/IEC 15444-15 section
//! 7.3), of several code-blocks of one shape at a time: each step waits for the one before it, and steps of
//! other blocks fill the wait.

use super::segment::{CODE_BYTES, Codes, Mel};
use super::tables::{self, CODE, CONTEXT, LENGTH, PATTERNS, U_OFF};

/// Rows and columns of quads of a code-block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    /// Samples.
    pub width: usize,
    pub height: usize,
}

impl Shape {
    pub fn quads(&self) -> usize {
        self.width.div_ceil(2)
    }

    pub fn rows(&self) -> usize {
        self.height.div_ceil(2)
    }

    /// From a row of quads to the next: even, with two quads or more after the last that are empty.
    pub fn stride(&self) -> usize {
        (self.quads() + 3) & !1
    }
}

/// Quads of the largest block with the empty ones at the ends of rows: two quads in each of 512 rows.
const MOST_QUADS: usize = 2048;
/// Quads that a load may reach beyond the last.
const SLACK: usize = 32;
/// Quads before the first, so that there is one at its left.
const BEFORE: usize = 2;

/// What codewords say of each quad.
pub(super) struct Quads {
    /// ρ, ε^k and ε^1 in bits 0 to 3, 4 to 7 and 8 to 11.
    patterns: Vec<u16>,
    /// Residuals u.
    residuals: Vec<u8>,
}

impl Quads {
    pub fn new() -> Self {
        Self {
            patterns: vec![0; BEFORE + MOST_QUADS + SLACK],
            residuals: vec![0; BEFORE + MOST_QUADS + SLACK],
        }
    }

    /// Patterns and residuals of a row, and of some quads after it.
    pub fn row(&self, row: usize, shape: &Shape) -> (&[u16], &[u8]) {
        let start = BEFORE + row * shape.stride();
        (&self.patterns[start..], &self.residuals[start..])
    }
}

/// Buffers of a code-block whose codewords are decoded.
pub(super) struct Lane {
    pub codes: Codes,
    pub quads: Quads,
}

impl Lane {
    pub fn new() -> Self {
        Self { codes: Codes::new(), quads: Quads::new() }
    }
}

/// Where a block is in its codewords.
#[derive(Clone, Copy)]
struct Cursor {
    position: usize,
    symbols: u64,
    left: u32,
    /// Entry of the quad at the left.
    last: u32,
}

/// Decodes all quads, of blocks whose codewords are in `lanes` and whose suffixes hold their MEL symbols; the
/// number of bits each block took, which may be more than there are.
#[inline(always)]
pub(super) fn decode<const N: usize>(
    lanes: &mut [Lane; N],
    suffixes: [&[u8]; N],
    shape: Shape,
) -> [usize; N] {
    let (quads, stride) = (shape.quads(), shape.stride());
    let mut cursors = [Cursor { position: 0, symbols: 0, left: 0, last: 0 }; N];
    let mut mels = suffixes.map(Mel::new);
    for lane in lanes.iter_mut() {
        lane.quads.patterns[..BEFORE].fill(0);
    }
    let whole = quads & !1;
    for row in 0..shape.rows() {
        let start = BEFORE + row * stride;
        cursors.iter_mut().for_each(|cursor| cursor.last = 0);
        if row == 0 {
            for pair in (start..start + whole).step_by(2) {
                for n in 0..N {
                    first::<false>(&mut lanes[n], &mut mels[n], &mut cursors[n], pair);
                }
            }
        } else {
            for pair in (start..start + whole).step_by(2) {
                for n in 0..N {
                    others::<false>(&mut lanes[n], &mut mels[n], &mut cursors[n], pair, stride);
                }
            }
        }
        for n in 0..N {
            let (lane, mel, cursor) = (&mut lanes[n], &mut mels[n], &mut cursors[n]);
            if quads != whole && row == 0 {
                first::<true>(lane, mel, cursor, start + whole);
            } else if quads != whole {
                others::<true>(lane, mel, cursor, start + whole, stride);
            }
            lane.quads.patterns[start + quads..start + stride].fill(0);
        }
    }
    cursors.map(|c| c.position)
}

/// The 57 bits or more at a position; of positions beyond the buffer, others.
#[inline(always)]
fn load(codes: &Codes, position: usize) -> u64 {
    let at = (position >> 3) & (CODE_BYTES - 1);
    let bytes = codes.bytes[at..at + 8].first_chunk().copied().unwrap_or_default();
    u64::from_le_bytes(bytes) >> (position & 7)
}

/// Ensures that there are MEL symbols for a pair of quads: three at most.
#[inline(always)]
fn ensure_symbols(mel: &mut Mel<'_>, cursor: &mut Cursor) {
    if cursor.left < 3 {
        (mel.symbols, mel.left) = (cursor.symbols, cursor.left);
        mel.refill();
        (cursor.symbols, cursor.left) = (mel.symbols, mel.left);
    }
}

/// The entry of one quad. A quad of an empty context has a codeword only where a MEL symbol says so.
#[inline(always)]
fn quad(table: &[u32; 1024], above: u32, window: &mut u64, cursor: &mut Cursor) -> u32 {
    let context = above | cursor.last & CONTEXT;
    let entry = table[(context | (*window & CODE) as u32) as usize];
    let empty = u32::from(context == 0);
    // 1 where there is no codeword, which leaves nothing of the entry.
    let absent = empty & !(cursor.symbols as u32);
    let entry = entry & absent.wrapping_sub(1);
    cursor.symbols >>= empty;
    cursor.left -= empty;
    *window >>= entry & LENGTH;
    cursor.last = entry;
    entry
}

#[inline(always)]
fn store(quads: &mut Quads, pair: usize, entries: [u32; 2], residuals: u16) {
    let patterns = [(entries[0] >> PATTERNS) as u16, (entries[1] >> PATTERNS) as u16];
    quads.patterns[pair..pair + 2].copy_from_slice(&patterns);
    quads.residuals[pair..pair + 2].copy_from_slice(&residuals.to_le_bytes());
}

/// A pair of quads of the first row; of a lone one, the second is empty.
#[inline(always)]
fn first<const LONE: bool>(lane: &mut Lane, mel: &mut Mel<'_>, cursor: &mut Cursor, pair: usize) {
    ensure_symbols(mel, cursor);
    let mut window = load(&lane.codes, cursor.position);
    let table = &tables::FIRST_LINES;
    let a = quad(table, 0, &mut window, cursor);
    let b = if LONE { 0 } else { quad(table, 0, &mut window, cursor) };
    let mut raised = false;
    if a & b & U_OFF != 0 {
        // Both have residuals: a symbol says whether both are above 2 (section 7.3.6).
        raised = cursor.symbols & 1 == 1;
        cursor.symbols >>= 1;
        cursor.left -= 1;
    }
    let (residuals, length) = long_residuals(a & U_OFF != 0, b & U_OFF != 0, window, Some(raised));
    store(&mut lane.quads, pair, [a, b], residuals);
    cursor.position += (a & LENGTH) as usize + (b & LENGTH) as usize + length as usize;
}

/// A pair of quads of another row.
#[inline(always)]
fn others<const LONE: bool>(
    lane: &mut Lane,
    mel: &mut Mel<'_>,
    cursor: &mut Cursor,
    pair: usize,
    stride: usize,
) {
    ensure_symbols(mel, cursor);
    let mut window = load(&lane.codes, cursor.position);
    // The bottom samples of the quads above, from the one at the left of the pair to the one at its right:
    // bit 0 of every 16 is set where one of the two that meet there is significant.
    let above = pair - stride - 1;
    let around = lane.quads.patterns[above..above + 4].first_chunk::<4>().copied();
    let around = around.unwrap_or_default();
    let around = u64::from(around[0])
        | u64::from(around[1]) << 16
        | u64::from(around[2]) << 32
        | u64::from(around[3]) << 48;
    let edges = around >> 3 | around >> 17;
    let table = &tables::OTHER_LINES;
    let above = ((edges << 7) as u32 & 0x80) | ((edges >> 7) as u32 & 0x200);
    let a = quad(table, above, &mut window, cursor);
    let above = ((edges >> 9) as u32 & 0x80) | ((edges >> 23) as u32 & 0x200);
    let b = if LONE { 0 } else { quad(table, above, &mut window, cursor) };
    let index = (a & U_OFF) << 2 | (b & U_OFF) << 3 | (window & 0xFF) as u32;
    let entry = tables::RESIDUALS[index as usize];
    let (mut residuals, mut length) =
        (entry >> 4 & 0x0707, u32::from(entry) & tables::RESIDUAL_LENGTH);
    if entry & tables::RESIDUAL_LONG != 0 {
        (residuals, length) = long_residuals(a & U_OFF != 0, b & U_OFF != 0, window, None);
    }
    store(&mut lane.quads, pair, [a, b], residuals);
    cursor.position += (a & LENGTH) as usize + (b & LENGTH) as usize + length as usize;
}

/// Residuals of any length (section 7.3.6), that of the first quad in the lower byte, and the bits they
/// take. `raised` is of the first row: whether two residuals are both above 2.
#[cold]
#[inline(never)]
fn long_residuals(a: bool, b: bool, window: u64, raised: Option<bool>) -> (u16, u32) {
    let mut bits = Window { bits: window, taken: 0 };
    let base = if raised == Some(true) { 2 } else { 0 };
    let (mut u, mut v) = (0, 0);
    if a {
        u = bits.prefix();
    }
    // In the first row, where the first is above 2 and the second is not, one bit tells the second.
    if raised == Some(false) && b && u > 2 {
        v = 1 + bits.take(1);
    } else if b {
        v = bits.prefix();
    }
    let u_suffix = bits.suffix(u);
    let v_suffix = bits.suffix(v);
    let u = u + u_suffix + 4 * bits.extension(u_suffix);
    let v = v + v_suffix + 4 * bits.extension(v_suffix);
    let of = |u: u32, there: bool| if there { (u + base) as u16 } else { 0 };
    (of(u, a) | of(v, b) << 8, bits.taken)
}

struct Window {
    bits: u64,
    taken: u32,
}

impl Window {
    fn take(&mut self, count: u32) -> u32 {
        let value = self.bits & ((1 << count) - 1);
        self.bits >>= count;
        self.taken += count;
        value as u32
    }

    fn prefix(&mut self) -> u32 {
        let (prefix, length) = tables::prefix(self.bits as u32);
        self.take(length);
        prefix
    }

    fn suffix(&mut self, prefix: u32) -> u32 {
        match prefix {
            3 => self.take(1),
            5 => self.take(5),
            _ => 0,
        }
    }

    fn extension(&mut self, suffix: u32) -> u32 {
        if suffix >= 28 { self.take(4) } else { 0 }
    }
}
