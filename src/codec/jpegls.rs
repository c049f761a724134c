//! JPEG-LS (ITU-T T.87, ISO/IEC 14495-1), lossless and near-lossless: one component of 2 to 16 bits
//! in one scan.

use super::jpegls_header::{EOI, Header, Parameters, truncated};
use super::plausible::{self, Family, room};
use super::samples::from_words;
use super::{FrameFormat, Samples, corrupt};
use crate::error::Result;

/// Number of contexts: those of regular samples, by quantised gradients (A.3.3), and those of the
/// two kinds of samples that end a run.
const CONTEXTS: usize = 365 + 2;

/// Decodes one JPEG-LS image.
pub(super) fn decode(data: &[u8], format: &FrameFormat) -> Result<Samples> {
    let header = Header::read(data, format)?;
    plausible::check(Family::JpegLs, format, data.len())?;
    let mut words = room::<u16>(format.pixels())?;
    let mut scan = Scan::new(&header);
    let width = format.columns as usize;
    // Lines have a padding sample before the first and one after the last (A.2.1).
    let mut above = blank(width + 2)?;
    let mut line = blank(width + 2)?;
    for _ in 0..format.rows {
        line[0] = above[1];
        above[width + 1] = above[width];
        scan.line(&above, &mut line)?;
        words.extend_from_slice(&line[1..=width]);
        std::mem::swap(&mut above, &mut line);
    }
    scan.bits.end()?;
    from_words(words.into_iter(), format)
}

fn blank(count: usize) -> Result<Vec<u16>> {
    let mut values = room(count)?;
    values.resize(count, 0);
    Ok(values)
}

/// Orders of the run-length codes (A.2.1).
const RUN_ORDERS: [u32; 32] = [
    0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 9, 10, 11, 12, 13,
    14, 15,
];

/// Counters of a context (A.2.1).
#[derive(Clone, Copy)]
struct Context {
    /// Sum of the error magnitudes.
    a: i64,
    /// Bias; for samples that end a run, the number of negative errors.
    b: i32,
    /// Correction of the prediction.
    c: i32,
    /// Occurrences.
    n: i32,
}

impl Context {
    /// Returns the order of the Golomb code for a sum of errors `a` (A.5.1).
    fn order(self, a: i64) -> u32 {
        (0..24).find(|k| i64::from(self.n) << k >= a).unwrap_or(24)
    }
}

struct Scan<'a> {
    bits: Bits<'a>,
    parameters: Parameters,
    /// RANGE, qbpp and LIMIT (A.2.1).
    range: i32,
    quantised_bits: u32,
    limit: u32,
    contexts: [Context; CONTEXTS],
    run_index: usize,
}

impl<'a> Scan<'a> {
    fn new(header: &Header<'a>) -> Self {
        let parameters = header.parameters;
        let Parameters { max, near, .. } = parameters;
        let range = (max + 2 * near) / (2 * near + 1) + 1;
        let bits_of = |values: i32| i32::BITS - (values - 1).leading_zeros();
        let bits = bits_of(max + 1).max(2);
        let context = Context { a: i64::from(2.max((range + 32) / 64)), b: 0, c: 0, n: 1 };
        Self {
            bits: Bits::new(header.scan),
            parameters,
            range,
            quantised_bits: bits_of(range),
            limit: 2 * (bits + bits.max(8)),
            contexts: [context; CONTEXTS],
            run_index: 0,
        }
    }

    /// Decodes one line; both lines have a padding sample before the first and one after the last.
    fn line(&mut self, above: &[u16], line: &mut [u16]) -> Result<()> {
        let end = line.len() - 1;
        let near = self.parameters.near;
        let mut x = 1;
        while x < end {
            let at = |line: &[u16], x: usize| i32::from(line[x]);
            let (a, b, c, d) = (at(line, x - 1), at(above, x), at(above, x - 1), at(above, x + 1));
            let gradients = [d - b, b - c, c - a];
            if gradients.iter().all(|g| g.abs() <= near) {
                x = self.run(above, line, x, end)?;
            } else {
                line[x] = self.regular(a, b, c, gradients)?;
                x += 1;
            }
        }
        Ok(())
    }

    /// Decodes a sample outside of runs (A.4 to A.6).
    fn regular(&mut self, a: i32, b: i32, c: i32, gradients: [i32; 3]) -> Result<u16> {
        let [q1, q2, q3] = gradients.map(|g| self.quantise(g));
        let index = 81 * q1 + 9 * q2 + q3;
        let (sign, index) = if index < 0 { (-1, -index) } else { (1, index) };
        // Quantised gradients range from -4 to 4, so the index is 364 at most.
        let index = index as usize;
        let context = self.contexts[index];
        let predicted = if c >= a.max(b) {
            a.min(b)
        } else if c <= a.min(b) {
            a.max(b)
        } else {
            a + b - c
        };
        let predicted = (predicted + sign * context.c).clamp(0, self.parameters.max);
        let order = context.order(context.a);
        let mapped = self.code(order, self.limit)?;
        let inverted = self.parameters.near == 0 && order == 0 && 2 * context.b <= -context.n;
        let error = match (inverted, mapped % 2 == 0) {
            (false, true) => mapped / 2,
            (false, false) => -(mapped + 1) / 2,
            (true, false) => (mapped - 1) / 2,
            (true, true) => -mapped / 2 - 1,
        };
        self.contexts[index] = self.updated(context, error);
        Ok(self.sample(predicted, sign * error))
    }

    fn quantise(&self, gradient: i32) -> i32 {
        let [t1, t2, t3] = self.parameters.thresholds;
        let size = gradient.abs();
        let level = if size <= self.parameters.near {
            0
        } else if size < t1 {
            1
        } else if size < t2 {
            2
        } else if size < t3 {
            3
        } else {
            4
        };
        level * gradient.signum()
    }

    /// Updates a context (A.6.1 and A.6.2).
    fn updated(&self, mut context: Context, error: i32) -> Context {
        context.b += error * (2 * self.parameters.near + 1);
        context.a += i64::from(error.abs());
        if context.n == self.parameters.reset {
            context.a >>= 1;
            context.b >>= 1;
            context.n >>= 1;
        }
        context.n += 1;
        if context.b <= -context.n {
            context.b = (context.b + context.n).max(1 - context.n);
            context.c = (context.c - 1).max(-128);
        } else if context.b > 0 {
            context.b = (context.b - context.n).min(0);
            context.c = (context.c + 1).min(127);
        }
        context
    }

    /// Reconstructs a sample from its prediction and error (A.4.5).
    fn sample(&self, predicted: i32, error: i32) -> u16 {
        let Parameters { max, near, .. } = self.parameters;
        let step = 2 * near + 1;
        let mut value = predicted + error * step;
        if value < -near {
            value += self.range * step;
        } else if value > max + near {
            value -= self.range * step;
        }
        value.clamp(0, max) as u16
    }

    /// Decodes a run of samples and the sample that ends it (A.7). Returns the position of the next
    /// sample.
    fn run(&mut self, above: &[u16], line: &mut [u16], start: usize, end: usize) -> Result<usize> {
        let value = line[start - 1];
        let mut x = start;
        while self.bits.read(1)? == 1 {
            let length = 1 << RUN_ORDERS[self.run_index];
            let filled = length.min(end - x);
            line[x..x + filled].fill(value);
            x += filled;
            if filled == length {
                self.run_index = (self.run_index + 1).min(31);
            }
            if x == end {
                return Ok(end);
            }
        }
        let rest = self.bits.read(RUN_ORDERS[self.run_index])? as usize;
        if rest >= end - x {
            return Err(corrupt("JPEG-LS image has a run beyond its line"));
        }
        line[x..x + rest].fill(value);
        x += rest;
        line[x] = self.interruption(value.into(), above[x].into())?;
        self.run_index = self.run_index.saturating_sub(1);
        Ok(x + 1)
    }

    /// Decodes the sample that ends a run (A.7.2).
    fn interruption(&mut self, a: i32, b: i32) -> Result<u16> {
        let same = (a - b).abs() <= self.parameters.near;
        let kind = i32::from(same);
        let index = CONTEXTS - 2 + usize::from(same);
        let mut context = self.contexts[index];
        let mean = if same { context.a + i64::from(context.n >> 1) } else { context.a };
        let order = context.order(mean);
        let limit = self.limit - RUN_ORDERS[self.run_index] - 1;
        let mapped = self.code(order, limit)?;
        let odd = (mapped + kind) % 2;
        let size = (mapped + kind + odd) / 2;
        let negative_is_odd = order != 0 || 2 * context.b >= context.n;
        let error = if negative_is_odd == (odd == 1) { -size } else { size };
        if error < 0 {
            context.b += 1;
        }
        context.a += i64::from((mapped + 1 - kind) >> 1);
        if context.n == self.parameters.reset {
            context.a >>= 1;
            context.b >>= 1;
            context.n >>= 1;
        }
        context.n += 1;
        self.contexts[index] = context;
        let (predicted, sign) = match (same, a > b) {
            (true, _) => (a, 1),
            (false, true) => (b, -1),
            (false, false) => (b, 1),
        };
        Ok(self.sample(predicted, sign * error))
    }

    /// Decodes a number in the length-limited Golomb code (A.5.3).
    fn code(&mut self, order: u32, limit: u32) -> Result<i32> {
        let escape = limit - self.quantised_bits - 1;
        let zeros = self.bits.zeros(escape)?;
        let code = if zeros < escape {
            u64::from(zeros) << order | u64::from(self.bits.read(order)?)
        } else {
            u64::from(self.bits.read(self.quantised_bits)?) + 1
        };
        // Errors are at most half the range. Larger codes, which no encoder writes, must not enter
        // the sums.
        let code = i32::try_from(code).ok().filter(|code| *code <= 2 * self.range);
        code.ok_or_else(|| corrupt("JPEG-LS image has an error beyond its range"))
    }
}

/// Bits of the coded samples: after a byte of ones, the next byte has seven bits (A.1).
struct Bits<'a> {
    rest: &'a [u8],
    /// Buffered bits, the next one highest.
    bits: u64,
    count: u32,
    /// Whether the last byte taken was FF.
    stuffed: bool,
}

impl<'a> Bits<'a> {
    fn new(rest: &'a [u8]) -> Self {
        Self { rest, bits: 0, count: 0, stuffed: false }
    }

    fn fill(&mut self) {
        while self.count <= 56
            && let Some((&byte, rest)) = self.rest.split_first()
        {
            if self.stuffed && byte >= 0x80 {
                // A marker.
                return;
            }
            let width = if self.stuffed { 7 } else { 8 };
            self.bits |= u64::from(byte) << (64 - width) >> self.count;
            self.count += width;
            self.stuffed = byte == 0xFF;
            self.rest = rest;
        }
    }

    /// Reads the next `count` bits, 32 at most.
    fn read(&mut self, count: u32) -> Result<u32> {
        if count == 0 {
            return Ok(0);
        }
        if self.count < count {
            self.fill();
        }
        if self.count < count {
            return Err(truncated());
        }
        let value = (self.bits >> (64 - count)) as u32;
        self.bits <<= count;
        self.count -= count;
        Ok(value)
    }

    /// Counts the zero bits before the next one bit, at most `most`, and consumes them all.
    fn zeros(&mut self, most: u32) -> Result<u32> {
        let mut zeros = 0;
        loop {
            self.fill();
            let leading = self.bits.leading_zeros().min(self.count);
            zeros += leading;
            if leading < self.count {
                if zeros > most {
                    return Err(corrupt("JPEG-LS image has a code beyond its limit"));
                }
                self.bits = self.bits << leading << 1;
                self.count -= leading + 1;
                return Ok(zeros);
            }
            if self.count == 0 {
                return Err(truncated());
            }
            (self.bits, self.count) = (0, 0);
        }
    }

    /// Checks that nothing remains but the padding bits and the end marker.
    fn end(&mut self) -> Result<()> {
        self.fill();
        // The last FF read is the first byte of the marker: no sample may have used its bits.
        let marker = self.stuffed && self.rest == [EOI];
        match self.count {
            8..24 if marker => Ok(()),
            0..8 => Err(truncated()),
            _ => Err(corrupt("JPEG-LS image has data after its last line")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stuffed_bit_is_no_sample() {
        let mut bits = Bits::new(&[0xFF, 0x7F, 0x80, 0xFF, 0xD9]);
        assert_eq!(bits.read(8).unwrap(), 0xFF);
        assert_eq!(bits.read(7).unwrap(), 0x7F);
        assert_eq!(bits.zeros(5).unwrap(), 0);
        assert_eq!(bits.read(7).unwrap(), 0);
        assert!(bits.read(9).is_err());
    }

    /// The example of annex H: 4 × 4 pixels of 8 bits.
    #[test]
    fn the_standards_example_decodes() {
        let data = [
            0xFF, 0xD8, 0xFF, 0xF7, 0x00, 0x0B, 0x08, 0x00, 0x04, 0x00, 0x04, 0x01, 0x01, 0x11,
            0x00, 0xFF, 0xDA, 0x00, 0x08, 0x01, 0x01, 0x00, 0x00, 0x00, 0x00, 0xC0, 0x00, 0x00,
            0x6C, 0x80, 0x20, 0x8E, 0x01, 0xC0, 0x00, 0x00, 0x57, 0x40, 0x00, 0x00, 0x6E, 0xE6,
            0x00, 0x00, 0x01, 0xBC, 0x18, 0x00, 0x00, 0x05, 0xD8, 0x00, 0x00, 0x91, 0x60, 0xFF,
            0xD9,
        ];
        let format = FrameFormat {
            rows: 4,
            columns: 4,
            bits_allocated: 8,
            bits_stored: 8,
            signed: false,
            float: false,
        };
        let expected = vec![0, 0, 90, 74, 68, 50, 43, 205, 64, 145, 145, 145, 100, 145, 145, 145];
        assert_eq!(decode(&data, &format).unwrap(), Samples::U16(expected));
        for cut in 0..data.len() {
            assert!(decode(&data[..cut], &format).is_err(), "cut at {cut}");
        }
    }
}
