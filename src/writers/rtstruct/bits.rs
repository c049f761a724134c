//! A binary mask of one slice, one bit per pixel.

use std::ops::Range;

/// A mask of `columns` by `rows` pixels. Pixels outside this area do not belong to the mask.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bits {
    columns: usize,
    rows: usize,
    /// Words per row.
    stride: usize,
    /// Row by row, the first pixel in the least significant bit.
    words: Vec<u64>,
}

/// Pixels per word.
const WORD: usize = u64::BITS as usize;

impl Bits {
    /// Resets the mask to an empty one of the given size, reusing its memory.
    pub fn clear(&mut self, columns: usize, rows: usize) {
        let stride = columns.div_ceil(WORD);
        self.words.clear();
        self.words.resize(stride * rows, 0);
        (self.columns, self.rows, self.stride) = (columns, rows, stride);
    }

    /// Adds the pixels `columns` of row `y` that lie within the mask's area.
    pub fn add_run(&mut self, y: usize, columns: Range<usize>) {
        let columns = columns.start..columns.end.min(self.columns);
        if columns.is_empty() || y >= self.rows {
            return;
        }
        let (first, last) = (columns.start / WORD, (columns.end - 1) / WORD);
        let words = self.words.iter_mut().skip(y * self.stride + first);
        for (word, index) in words.zip(first..=last) {
            let start = columns.start.saturating_sub(index * WORD);
            let end = (columns.end - index * WORD).min(WORD);
            *word |= (u64::MAX << start) & (u64::MAX >> (WORD - end));
        }
    }

    /// Whether a pixel belongs to the mask.
    pub fn has(&self, x: i32, y: i32) -> bool {
        let (Ok(x), Ok(y)) = (usize::try_from(x), usize::try_from(y)) else { return false };
        x < self.columns && y < self.rows && self.word(y, x / WORD) >> (x % WORD) & 1 == 1
    }

    fn word(&self, y: usize, index: usize) -> u64 {
        self.words.get(y * self.stride + index).copied().unwrap_or(0)
    }
}

/// The pixels of a mask whose upper neighbour does not belong to it, numbered from 0 row by row.
#[derive(Debug, Default)]
pub struct UpperEdges {
    stride: usize,
    words: Vec<u64>,
    /// For each word, the number of these pixels before it.
    before: Vec<u32>,
    /// Pixels that have not been [taken](Self::take).
    left: Vec<u64>,
    count: usize,
}

impl UpperEdges {
    /// Finds the upper edges of another mask, reusing memory.
    pub fn find(&mut self, mask: &Bits) {
        self.stride = mask.stride;
        let above = std::iter::repeat_n(&0, mask.stride).chain(&mask.words);
        self.words.clear();
        self.words.extend(mask.words.iter().zip(above).map(|(word, above)| word & !above));
        self.left.clone_from(&self.words);
        self.before.clear();
        let mut count = 0_u32;
        self.before.extend(self.words.iter().map(|word| {
            let before = count;
            count += word.count_ones();
            before
        }));
        self.count = count as usize;
    }

    /// Returns the number of upper edges.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Returns the number of a pixel, if it is an upper edge.
    pub fn number(&self, x: i32, y: i32) -> Option<usize> {
        let (index, bit) = self.place(x, y)?;
        let (word, before) = (self.words.get(index)?, self.before.get(index)?);
        (word & bit != 0).then(|| *before as usize + (word & (bit - 1)).count_ones() as usize)
    }

    /// Removes a pixel from those that are left.
    pub fn take(&mut self, x: i32, y: i32) {
        if let Some((index, bit)) = self.place(x, y)
            && let Some(word) = self.left.get_mut(index)
        {
            *word &= !bit;
        }
    }

    /// Returns the first pixel left at or after the word `from`, which advances to its word.
    pub fn first_left(&self, from: &mut usize) -> Option<(i32, i32)> {
        let word = loop {
            match self.left.get(*from)? {
                0 => *from += 1,
                word => break word,
            }
        };
        let x = *from % self.stride * WORD + word.trailing_zeros() as usize;
        Some((i32::try_from(x).ok()?, i32::try_from(*from / self.stride).ok()?))
    }

    fn place(&self, x: i32, y: i32) -> Option<(usize, u64)> {
        let (x, y) = (usize::try_from(x).ok()?, usize::try_from(y).ok()?);
        Some((y * self.stride + x / WORD, 1 << (x % WORD)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_cross_words_and_end_at_the_edge() {
        for (start, end) in [(0, 1), (3, 70), (63, 64), (64, 128), (60, 131), (129, 500), (0, 130)]
        {
            let mut bits = Bits::default();
            bits.clear(130, 3);
            bits.add_run(1, start..end);
            bits.add_run(7, 0..5);
            for y in -1..4 {
                for x in -1..140 {
                    let inside = y == 1 && (start as i32..end.min(130) as i32).contains(&x);
                    assert_eq!(bits.has(x, y), inside, "{start}..{end} at {x}, {y}");
                }
            }
        }
    }

    #[test]
    fn upper_edges_are_numbered_in_order() {
        let mut bits = Bits::default();
        bits.clear(100, 3);
        bits.add_run(0, 90..95);
        bits.add_run(1, 10..92);
        let mut edges = UpperEdges::default();
        edges.find(&bits);
        assert_eq!(edges.len(), 5 + 80);
        assert_eq!(edges.number(90, 0), Some(0));
        assert_eq!(edges.number(10, 1), Some(5));
        assert_eq!(edges.number(89, 1), Some(5 + 79));
        assert_eq!(edges.number(90, 1), None);
        let mut from = 0;
        assert_eq!(edges.first_left(&mut from), Some((90, 0)));
        (90..95).for_each(|x| edges.take(x, 0));
        assert_eq!(edges.first_left(&mut from), Some((10, 1)));
    }
}
