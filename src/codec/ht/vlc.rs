//! Decodes the codewords of the cleanup pass to the patterns and residuals of each quad (ISO/IEC
//! 15444-15 section 7.3), for several code-blocks of one shape at a time: each step depends on the
//! one before it, and steps of the other blocks fill the latency.

use super::segment::{CODE_BYTES, Codes, Mel};
use super::tables::{self, CODE, CONTEXT, LENGTH, PATTERNS, U_OFF};

/// Size of a code-block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    /// Samples along each axis.
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

    /// Quads from one row to the next: even, with at least two empty quads after the last.
    pub fn stride(&self) -> usize {
        (self.quads() + 3) & !1
    }
}

/// Pairs of quads of the largest block, including an empty pair before the first and those at the
/// ends of rows: two pairs in each of 512 rows.
const PAIRS: usize = 2048 / 2;
/// Pairs that a load may read past the last.
const SLACK: usize = 16;
const BEFORE: usize = 1;
const ALL: usize = BEFORE + PAIRS + SLACK;

/// Decoded codewords of each pair of quads, the first quad in the lower half.
pub(super) struct Quads {
    /// ρ, ε^k and ε^1 of a quad in bits 0 to 3, 4 to 7 and 8 to 11.
    patterns: Box<[u32; ALL]>,
    /// Residuals u.
    residuals: Box<[u16; ALL]>,
    /// What the row above contributes to the contexts of a row, at its bit position in an index.
    above: Box<[u32; 512 / 2 + SLACK]>,
}

impl Quads {
    pub fn new() -> Self {
        Self {
            patterns: Box::new([0; ALL]),
            residuals: Box::new([0; ALL]),
            above: Box::new([0; 512 / 2 + SLACK]),
        }
    }

    /// Returns the pairs of patterns and residuals of a row, and some after it.
    pub fn row(&self, row: usize, shape: &Shape) -> (&[u32], &[u16]) {
        let start = BEFORE + row * shape.stride() / 2;
        (&self.patterns[start..], &self.residuals[start..])
    }

    /// Returns the patterns of one quad.
    pub fn pattern(&self, row: usize, quad: usize, shape: &Shape) -> u32 {
        self.row(row, shape).0[quad / 2] >> (16 * (quad & 1)) & 0xFFFF
    }

    /// Prepares the contexts of the row below the one that begins with pair `start`.
    #[inline(always)]
    fn look_below(&mut self, start: usize, pairs: usize) {
        let row = &self.patterns[start - 1..=start + pairs];
        let (before, this, after) = (&row[..pairs], &row[1..=pairs], &row[2..]);
        for (i, above) in self.above[..pairs].iter_mut().enumerate() {
            // Bottom samples at the left and right of each quad.
            let (left, right) = (this[i] >> 1 & 0x0001_0001, this[i] >> 3 & 0x0001_0001);
            // The two that meet at each quad's left edge and at its right edge.
            let begin = left | right << 16 | before[i] >> 19 & 1;
            let end = right | left >> 16 | (after[i] >> 1 & 1) << 16;
            *above = begin << 7 | end << 9;
        }
    }
}

/// Buffers of one code-block while its codewords are decoded.
pub(super) struct Lane {
    pub codes: Codes,
    pub quads: Quads,
}

impl Lane {
    pub fn new() -> Self {
        Self { codes: Codes::new(), quads: Quads::new() }
    }
}

/// Decoding state of a block.
#[derive(Clone, Copy)]
struct Cursor {
    position: usize,
    /// MEL symbols, the next one in bit 0, and a marker bit above the last.
    symbols: u64,
    /// Entry of the quad at the left.
    last: u32,
}

/// Pairs of quads that MEL symbols are decoded for at once; each pair uses at most three.
const CHUNK: usize = 8;

/// Decodes all quads of the blocks whose codewords are in `lanes` and whose `suffixes` hold their
/// MEL symbols. Returns the number of bits each block consumed, which may exceed the number
/// available.
#[inline(always)]
pub(super) fn decode<const N: usize>(
    lanes: &mut [Lane; N],
    suffixes: [&[u8]; N],
    shape: Shape,
) -> [usize; N] {
    let (whole, is_odd) = (shape.quads() / 2, shape.quads() & 1 == 1);
    let pairs = shape.quads().div_ceil(2);
    let mut cursors = [Cursor { position: 0, symbols: 1, last: 0 }; N];
    let mut mels = suffixes.map(Mel::new);
    for row in 0..shape.rows() {
        let start = BEFORE + row * shape.stride() / 2;
        for lane in lanes.iter_mut() {
            // The first quad has no left neighbour; the quads after the end of a row were cleared.
            lane.quads.patterns[start - 1] = 0;
            if row > 0 {
                lane.quads.look_below(start - shape.stride() / 2, pairs);
            }
        }
        cursors.iter_mut().for_each(|cursor| cursor.last = 0);
        for chunk in (0..whole).step_by(CHUNK) {
            for (cursor, mel) in cursors.iter_mut().zip(&mut mels) {
                mel.ensure(&mut cursor.symbols, 3 * CHUNK as u32);
            }
            let chunk = chunk..whole.min(chunk + CHUNK);
            if row == 0 {
                for pair in chunk {
                    for n in 0..N {
                        first::<false>(&mut lanes[n], &mut cursors[n], pair);
                    }
                }
            } else {
                for pair in chunk {
                    for n in 0..N {
                        others::<false>(&mut lanes[n], &mut cursors[n], start, pair);
                    }
                }
            }
        }
        for n in 0..N {
            let (lane, cursor) = (&mut lanes[n], &mut cursors[n]);
            if is_odd {
                mels[n].ensure(&mut cursor.symbols, 3);
                if row == 0 {
                    first::<true>(lane, cursor, whole);
                } else {
                    others::<true>(lane, cursor, start, whole);
                }
            }
            lane.quads.patterns[start + pairs] = 0;
        }
    }
    cursors.map(|c| c.position)
}

/// Loads at least 57 bits from a position. Positions past the buffer wrap around.
#[inline(always)]
fn load(codes: &Codes, position: usize) -> u64 {
    let at = (position >> 3) & (CODE_BYTES - 1);
    let bytes = codes.bytes[at..at + 8].first_chunk().copied().unwrap_or_default();
    u64::from_le_bytes(bytes) >> (position & 7)
}

/// Returns the entry of one quad. A quad with an empty context has a codeword only if a MEL symbol
/// says so.
#[inline(always)]
fn quad(table: &[u32; 1024], above: u32, window: &mut u64, cursor: &mut Cursor) -> u32 {
    let context = above | cursor.last & CONTEXT;
    let entry = table[(context | (*window & CODE) as u32) as usize];
    let empty = u32::from(context == 0);
    // 1 if there is no codeword; the entry then becomes zero.
    let absent = empty & !(cursor.symbols as u32);
    let entry = entry & absent.wrapping_sub(1);
    cursor.symbols >>= empty;
    *window >>= entry & LENGTH;
    cursor.last = entry;
    entry
}

/// Stores a pair of quads and advances past its codewords and the `length` bits of its residuals.
#[inline(always)]
fn store(
    quads: &mut Quads,
    cursor: &mut Cursor,
    pair: usize,
    [a, b]: [u32; 2],
    residuals: u16,
    length: u32,
) {
    quads.patterns[pair] = a >> PATTERNS | b & !((1 << PATTERNS) - 1);
    quads.residuals[pair] = residuals;
    cursor.position += (((a + b) & LENGTH) + length) as usize;
}

/// Decodes a pair of quads of the first row; if it is a lone quad, the second is empty.
#[inline(always)]
fn first<const LONE: bool>(lane: &mut Lane, cursor: &mut Cursor, pair: usize) {
    let mut window = load(&lane.codes, cursor.position);
    let table = &tables::FIRST_LINES;
    let a = quad(table, 0, &mut window, cursor);
    let b = if LONE { 0 } else { quad(table, 0, &mut window, cursor) };
    let mut raised = false;
    if a & b & U_OFF != 0 {
        // Both have residuals: a MEL symbol says whether both are above 2 (section 7.3.6).
        raised = cursor.symbols & 1 == 1;
        cursor.symbols >>= 1;
    }
    let (residuals, length) = long_residuals(a & U_OFF != 0, b & U_OFF != 0, window, Some(raised));
    store(&mut lane.quads, cursor, BEFORE + pair, [a, b], residuals, length);
}

/// Decodes a pair of quads of another row, which begins with pair `start`.
#[inline(always)]
fn others<const LONE: bool>(lane: &mut Lane, cursor: &mut Cursor, start: usize, pair: usize) {
    let mut window = load(&lane.codes, cursor.position);
    let above = lane.quads.above[pair];
    let table = &tables::OTHER_LINES;
    let a = quad(table, above & CONTEXT, &mut window, cursor);
    let b = if LONE { 0 } else { quad(table, above >> 16 & CONTEXT, &mut window, cursor) };
    let index = (a & U_OFF) | (b & U_OFF) << 1 | (window & 0xFF) as u32;
    let entry = tables::RESIDUALS[index as usize];
    let (mut residuals, mut length) =
        (entry >> 4 & 0x0707, u32::from(entry) & tables::RESIDUAL_LENGTH);
    if entry & tables::RESIDUAL_LONG != 0 {
        (residuals, length) = long_residuals(a & U_OFF != 0, b & U_OFF != 0, window, None);
    }
    store(&mut lane.quads, cursor, start + pair, [a, b], residuals, length);
}

/// Decodes residuals of any length (section 7.3.6). Returns them, the first quad's in the lower
/// byte, and the number of bits they take. `raised` is for the first row only: whether both
/// residuals are above 2.
#[cold]
#[inline(never)]
fn long_residuals(a: bool, b: bool, window: u64, raised: Option<bool>) -> (u16, u32) {
    let mut bits = Window { bits: window, taken: 0 };
    let base = if raised == Some(true) { 2 } else { 0 };
    let (mut u, mut v) = (0, 0);
    if a {
        u = bits.prefix();
    }
    // In the first row, if only the first can be above 2, a single bit holds the second.
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
