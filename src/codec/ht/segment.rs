//! The bytes of a code-block's cleanup pass (ISO/IEC 15444-15 section 7.1): three bit streams. Two
//! of them are copied to flat buffers without their stuffing bits, so that the bits at any position
//! are one load away.

use super::fault::Fault;

/// Bytes of the flat codeword stream, a power of two; a suffix has at most 4079 bytes.
pub(super) const CODE_BYTES: usize = 4096;
/// Bytes of the flat stream of magnitudes and signs, a power of two: 4096 samples of 31 bits, plus
/// slack.
pub(super) const MAGNITUDE_BYTES: usize = 16_384;
/// Bytes that a load may read past the end of a flat stream.
pub(super) const SLACK: usize = 64;
/// The flat codeword stream.
pub(super) type Codes = Flat<{ CODE_BYTES + SLACK }>;
/// The flat stream of magnitudes and signs.
pub(super) type Magnitudes = Flat<{ MAGNITUDE_BYTES + SLACK }>;
/// Bytes of a prefix that holds 4096 samples of 31 bits, with a stuffing bit for every seven bits.
const MOST_PREFIX: usize = 4096 * 31 / 7 + 2;

/// A bit stream without stuffing; the first bit is the lowest of the first byte.
pub(super) struct Flat<const BYTES: usize> {
    pub bytes: Box<[u8; BYTES]>,
    /// Number of bits.
    pub bits: usize,
}

impl<const BYTES: usize> Flat<BYTES> {
    pub fn new() -> Self {
        Self { bytes: Box::new([0; BYTES]), bits: 0 }
    }
}

/// Collects bits and writes them 64 at a time.
struct Sink<'a> {
    bytes: &'a mut [u8],
    at: usize,
    pending: u64,
    /// Bits of `pending`, 0 to 63.
    count: u32,
}

impl<'a> Sink<'a> {
    fn new(bytes: &'a mut [u8]) -> Self {
        Self { bytes, at: 0, pending: 0, count: 0 }
    }

    /// Appends the lowest `count` (1 to 64) bits of `word`, whose other bits are zero.
    #[inline(always)]
    fn push(&mut self, word: u64, count: u32) -> Result<(), Fault> {
        self.pending |= word << self.count;
        let sum = self.count + count;
        if sum >= 64 {
            let place = self.bytes.get_mut(self.at..self.at + 8).ok_or(LENGTH)?;
            place.copy_from_slice(&self.pending.to_le_bytes());
            self.at += 8;
            // Shifted in two steps, because a shift by 64 bits, with nothing pending, would
            // overflow.
            self.pending = word >> 1 >> (63 - self.count);
        }
        self.count = sum & 63;
        Ok(())
    }

    /// Writes the pending bits and then at least 64 ones. Returns the number of bits before the
    /// ones.
    fn finish(mut self) -> Result<usize, Fault> {
        let bits = self.at * 8 + self.count as usize;
        self.push(u64::MAX, 64)?;
        self.push(u64::MAX, 64)?;
        Ok(bits)
    }
}

const LENGTH: Fault = Fault("a code-block has a segment of impossible length");
pub(super) const STUFFING: Fault = Fault("a code-block has a marker inside");

/// Bit 7 of every byte.
const TOPS: u64 = 0x8080_8080_8080_8080;
const ONES: u64 = 0x0101_0101_0101_0101;

/// Returns where the suffix of a cleanup segment begins, from its last 12 bits.
pub(super) fn suffix_start(cleanup: &[u8]) -> Result<usize, Fault> {
    let Some(&[.., low, high]) = cleanup.get(..) else { return Err(LENGTH) };
    let suffix = usize::from(high) << 4 | usize::from(low & 0x0F);
    if !(2..=cleanup.len().min(4079)).contains(&suffix) {
        return Err(LENGTH);
    }
    Ok(cleanup.len() - suffix)
}

/// Words of eight bytes, the first byte lowest, and the remaining bytes.
fn words(bytes: &[u8]) -> (impl Iterator<Item = u64>, &[u8]) {
    let (words, rest) = bytes.as_chunks::<8>();
    (words.iter().map(|&w| u64::from_le_bytes(w)), rest)
}

/// Copies the magnitudes and signs: a byte after FF has seven bits (section 7.1.2). `without` is
/// the function [`without`] or an equivalent.
#[inline(always)]
pub(super) fn magnitudes(
    prefix: &[u8],
    flat: &mut Magnitudes,
    without: impl Fn(u64, u64) -> u64,
) -> Result<(), Fault> {
    if prefix.len() > MOST_PREFIX {
        return Err(LENGTH);
    }
    let mut sink = Sink::new(&mut flat.bytes[..]);
    let (words, rest) = words(prefix);
    // 0x80 if the last byte was FF.
    let mut carried = 0;
    for word in words {
        let inverse = !word;
        // Bit 7 of every byte that is FF.
        let full = !(((inverse & !TOPS) + !TOPS) | inverse) & TOPS;
        let stuffed = full << 8 | carried;
        carried = full >> 56;
        append(&mut sink, word, stuffed, &without)?;
    }
    for &byte in rest {
        let stuffed = carried as u8;
        if byte & stuffed != 0 {
            return Err(STUFFING);
        }
        sink.push(byte.into(), 8 - u32::from(stuffed >> 7))?;
        carried = if byte == 0xFF { 0x80 } else { 0 };
    }
    flat.bits = sink.finish()?;
    Ok(())
}

/// Copies the codewords, which run backwards: a byte whose low seven bits are ones, after one above
/// 8F, has no eighth bit (section 7.1.4).
#[inline(always)]
pub(super) fn codewords(
    suffix: &[u8],
    flat: &mut Codes,
    without: impl Fn(u64, u64) -> u64,
) -> Result<(), Fault> {
    let Some(&[ref bytes @ .., low, _]) = suffix.get(..) else { return Err(LENGTH) };
    let mut sink = Sink::new(&mut flat.bytes[..]);
    // The last 12 bits are the length; codewords begin in the upper half of the second last byte.
    let first = u64::from(low >> 4);
    if first == 0xF {
        return Err(STUFFING);
    }
    let count = if first == 7 { 3 } else { 4 };
    sink.push(first, count)?;
    let mut carried = if low | 0x0F > 0x8F { 0x80 } else { 0 };
    let (rest, words) = bytes.as_rchunks::<8>();
    for &word in words.iter().rev() {
        let word = u64::from_be_bytes(word);
        let low = word & !TOPS;
        let above = (low + 0x70 * ONES) & word & TOPS;
        let stuffed = (low + ONES) & TOPS & (above << 8 | carried);
        carried = above >> 56;
        append(&mut sink, word, stuffed, &without)?;
    }
    for &byte in rest.iter().rev() {
        let stuffed = byte & 0x7F == 0x7F && carried != 0;
        if stuffed && byte & 0x80 != 0 {
            return Err(STUFFING);
        }
        sink.push(byte.into(), 8 - u32::from(stuffed))?;
        carried = if byte > 0x8F { 0x80 } else { 0 };
    }
    flat.bits = sink.finish()?;
    Ok(())
}

/// Appends a word without its stuffing bits, which must be zero.
#[inline(always)]
fn append(
    sink: &mut Sink<'_>,
    word: u64,
    stuffed: u64,
    without: &impl Fn(u64, u64) -> u64,
) -> Result<(), Fault> {
    // Most words have none, and the fast path lets the CPU compute positions early, independent of
    // the data.
    if stuffed == 0 {
        return sink.push(word, 64);
    }
    if word & stuffed != 0 {
        return Err(STUFFING);
    }
    sink.push(without(word, stuffed), 64 - stuffed.count_ones())
}

/// Removes the bits of a word that are set in `stuffed`; higher bits move down.
pub(super) fn without(word: u64, stuffed: u64) -> u64 {
    let (mut word, mut left) = (word, stuffed);
    while left != 0 {
        // From the top, so that the remaining positions stay valid.
        let bit = 63 - left.leading_zeros();
        let below = (1 << bit) - 1;
        word = word & below | (word >> 1) & !below;
        left &= below;
    }
    word
}

/// Decoder of MEL, the adaptive run-length code that says which quads with an empty context are
/// significant (section 7.3.3).
pub(super) struct Mel<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Bits not yet decoded, the next one on top.
    window: u64,
    count: u32,
    full: bool,
    state: usize,
}

/// Run length exponents by state (table 2).
const EXPONENTS: [u32; 13] = [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 4, 5];

impl<'a> Mel<'a> {
    pub fn new(suffix: &'a [u8]) -> Self {
        Self { bytes: suffix, at: 0, window: 0, count: 0, full: false, state: 0 }
    }

    /// Ensures that `symbols` holds at least `count` symbols, 32 at most: the next one in bit 0,
    /// and a marker bit above the last.
    #[inline(always)]
    pub fn ensure(&mut self, symbols: &mut u64, count: u32) {
        if *symbols >> count == 0 {
            self.refill(symbols);
        }
    }

    /// Decodes until there are at least 32 symbols, 63 at most.
    #[inline(never)]
    fn refill(&mut self, symbols: &mut u64) {
        let mut left = symbols.checked_ilog2().unwrap_or(0);
        let mut list = *symbols & !(1 << left);
        while left < 32 {
            while self.count <= 56 {
                self.byte();
            }
            let exponent = EXPONENTS[self.state.min(12)];
            if self.window >> 63 == 1 {
                self.take(1);
                left += 1 << exponent;
                self.state = (self.state + 1).min(12);
            } else {
                // A zero, then the run in `exponent` bits.
                let run = (self.window >> (63 - exponent)) as u32;
                self.take(1 + exponent);
                list |= 1 << ((left + run) & 63);
                left += run + 1;
                self.state = self.state.saturating_sub(1);
            }
        }
        *symbols = list | 1 << (left & 63);
    }

    fn take(&mut self, count: u32) {
        self.window <<= count;
        self.count -= count;
    }

    /// Appends the next byte. The low 12 bits of the last two hold a length that reads as ones,
    /// like everything after the end.
    fn byte(&mut self) {
        let byte = match self.bytes.len().wrapping_sub(self.at) {
            2 => self.bytes[self.at] | 0x0F,
            left if left > 2 && self.at < self.bytes.len() => self.bytes[self.at],
            _ => 0xFF,
        };
        self.at += 1;
        let bits = if self.full { 7 } else { 8 };
        self.full = byte == 0xFF;
        let value = u64::from(byte) & ((1 << bits) - 1);
        self.window |= value << (64 - bits - self.count);
        self.count += bits;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Byte strings in which stuffed bytes and their triggers are frequent.
    fn bytes(most: usize) -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![3 => any::<u8>(), 1 => Just(0xFF), 1 => Just(0x7F), 1 => Just(0x90)];
        prop::collection::vec(byte, 0..most)
    }

    fn bit(flat: &[u8], n: usize) -> u8 {
        flat[n / 8] >> (n % 8) & 1
    }

    proptest! {
        /// Compared with procedure importMagSgnBit, which reads bit by bit.
        #[test]
        fn magnitudes_are_what_is_read_bit_by_bit(bytes in bytes(300)) {
            let mut expected = Some(Vec::new());
            let mut last = 0;
            for &byte in &bytes {
                let count = if last == 0xFF { 7 } else { 8 };
                if count == 7 && byte & 0x80 != 0 {
                    expected = None;
                }
                if let Some(bits) = &mut expected {
                    bits.extend((0..count).map(|n| byte >> n & 1));
                }
                last = byte;
            }
            let mut flat = Magnitudes::new();
            let result = super::magnitudes(&bytes, &mut flat, without);
            prop_assert_eq!(result.is_ok(), expected.is_some());
            if let Some(expected) = expected {
                prop_assert_eq!(flat.bits, expected.len());
                prop_assert!(expected.iter().enumerate().all(|(n, &b)| bit(&flat.bytes[..], n) == b));
                // An encoder may omit a final byte of all ones.
                prop_assert!((0..64).all(|n| bit(&flat.bytes[..], flat.bits + n) == 1));
            }
        }

        /// Compared with procedure importVLCBit, which reads bit by bit from the end.
        #[test]
        fn codewords_are_what_is_read_bit_by_bit(bytes in bytes(300), end: [u8; 2]) {
            let suffix = [&bytes[..], &end].concat();
            let mut last = end[0] | 0x0F;
            let first = last >> 4;
            let count = if first & 7 == 7 { 3 } else { 4 };
            let sound = first != 0xF;
            let mut expected = sound.then(|| (0..count).map(|n| first >> n & 1).collect::<Vec<_>>());
            for &byte in bytes.iter().rev() {
                let count = if last > 0x8F && byte & 0x7F == 0x7F { 7 } else { 8 };
                if count == 7 && byte & 0x80 != 0 {
                    expected = None;
                }
                if let Some(bits) = &mut expected {
                    bits.extend((0..count).map(|n| byte >> n & 1));
                }
                last = byte;
            }
            let mut flat = Codes::new();
            let result = super::codewords(&suffix, &mut flat, without);
            prop_assert_eq!(result.is_ok(), expected.is_some());
            if let Some(expected) = expected {
                prop_assert_eq!(flat.bits, expected.len());
                prop_assert!(expected.iter().enumerate().all(|(n, &b)| bit(&flat.bytes[..], n) == b));
            }
        }

        /// Compared with procedure decodeMELSym, which decodes symbol by symbol.
        #[test]
        fn runs_are_what_is_decoded_symbol_by_symbol(suffix in prop::collection::vec(any::<u8>(), 2..40)) {
            let mut bits = {
                let (mut at, mut last) = (0, 0);
                let length = suffix.len();
                let suffix = suffix.clone();
                std::iter::from_fn(move || {
                    let byte = match suffix.get(at) {
                        Some(byte) if at + 2 == length => byte | 0x0F,
                        Some(_) if at + 1 == length => 0xFF,
                        Some(&byte) => byte,
                        None => 0xFF,
                    };
                    let count = if last == 0xFF { 7 } else { 8 };
                    (at, last) = (at + 1, byte);
                    Some((0..count).rev().map(move |n| byte >> n & 1))
                })
                .flatten()
            };
            let mut mel = Mel::new(&suffix);
            let mut symbols = 1;
            let (mut state, mut run, mut one) = (0_usize, 0, false);
            for _ in 0..500 {
                if run == 0 && !one {
                    let exponent = EXPONENTS[state];
                    if bits.next() == Some(1) {
                        run = 1 << exponent;
                        state = (state + 1).min(12);
                    } else {
                        run = (0..exponent).fold(0, |n, _| 2 * n + u32::from(bits.next().unwrap()));
                        one = true;
                        state = state.saturating_sub(1);
                    }
                }
                let expected = if run > 0 {
                    run -= 1;
                    0
                } else {
                    one = false;
                    1
                };
                mel.ensure(&mut symbols, 3);
                prop_assert_eq!(symbols & 1, expected);
                symbols >>= 1;
            }
        }
    }

    #[test]
    fn lengths_that_cannot_be_are_refused() {
        assert_eq!(suffix_start(&[0, 0, 3, 0]), Ok(1));
        for cleanup in [&[][..], &[2], &[1, 0], &[0, 5, 0], &[0xFF; 6]] {
            assert_eq!(suffix_start(cleanup), Err(LENGTH), "{cleanup:?}");
        }
        let mut flat = Magnitudes::new();
        assert_eq!(super::magnitudes(&vec![0; MOST_PREFIX + 1], &mut flat, without), Err(LENGTH));
        assert_eq!(super::magnitudes(&vec![0; MOST_PREFIX], &mut flat, without), Err(LENGTH));
        assert_eq!(super::magnitudes(&[0; 4096 * 31 / 8], &mut flat, without), Ok(()));
        assert_eq!(super::codewords(&[0; 4079], &mut Codes::new(), without), Ok(()));
    }
}
