//! One level of the wavelet, fed with the rows of its subbands from the top: the horizontal
//! transform of each row, and the vertical transform as far as rows are available (ISO/IEC 15444-1
//! annex F.3.2).

use super::instructions::Instructions;
use super::wavelet::{Bounds, Number};

/// Row buffers of a level.
#[derive(Default)]
pub(super) struct Rows<T> {
    scratch: Vec<T>,
    low: Vec<T>,
    /// Odd rows before the vertical transform: the current one and the one above.
    high: Vec<T>,
    high_above: Vec<T>,
    /// Even rows after the vertical transform.
    even: Vec<T>,
    even_above: Vec<T>,
    odd: Vec<T>,
}

pub(super) struct Columns<'a, T> {
    rows: &'a mut Rows<T>,
    instructions: Instructions,
    width: usize,
    /// Number of rows taken of each kind.
    lows: usize,
    highs: usize,
    /// Bounds of the rows after the horizontal transform only.
    pub inner: Bounds<T>,
    /// Bounds of the emitted rows.
    pub outer: Bounds<T>,
}

impl<'a, T: Number> Columns<'a, T> {
    pub fn new(rows: &'a mut Rows<T>, width: usize, instructions: Instructions) -> Self {
        let Rows { scratch, low, high, high_above, even, even_above, odd } = rows;
        for row in [scratch, low, high, high_above, even, even_above, odd] {
            if row.len() < width {
                row.resize(width, T::default());
            }
        }
        let (inner, outer) = (Bounds::new(), Bounds::new());
        Self { rows, instructions, width, lows: 0, highs: 0, inner, outer }
    }

    /// Takes the next row of LL and HL and, unless the height is odd and this is the last, of LH
    /// and HH. Emits the rows that are then complete.
    #[inline(always)]
    pub fn take(&mut self, low: [&[T]; 2], high: Option<[&[T]; 2]>, emit: &mut impl FnMut(&[T])) {
        let (n, rows, with) = (self.width, &mut *self.rows, self.instructions);
        with.row(low, &mut rows.scratch, &mut rows.low[..n], &mut self.inner);
        let above = self.highs > 0;
        if let Some(high) = high {
            std::mem::swap(&mut rows.high, &mut rows.high_above);
            with.row(high, &mut rows.scratch, &mut rows.high[..n], &mut self.inner);
            self.highs += 1;
        }
        std::mem::swap(&mut rows.even, &mut rows.even_above);
        let even = &mut rows.even[..n];
        match (above, high.is_some()) {
            (true, true) => {
                with.even_row(&rows.low, &rows.high_above, &rows.high, even, &mut self.outer);
            }
            // Mirrored at the first and last row.
            (true, false) | (false, true) => {
                with.even_row(&rows.low, &rows.high, &rows.high, even, &mut self.outer);
            }
            (false, false) => {
                even.copy_from_slice(&rows.low[..n]);
                self.outer.see_all(even);
            }
        }
        if self.lows > 0 {
            // The odd row between the last two even rows; its high part came with the upper one.
            let high = if high.is_some() { &rows.high_above } else { &rows.high };
            let odd = &mut rows.odd[..n];
            with.odd_row(high, &rows.even_above, &rows.even, odd, &mut self.outer);
            emit(odd);
        }
        emit(&rows.even[..n]);
        self.lows += 1;
    }

    /// Emits the last row if the height is even.
    pub fn end(&mut self, emit: &mut impl FnMut(&[T])) {
        if self.highs == self.lows && self.highs > 0 {
            let (rows, odd) = (&mut *self.rows, self.width);
            let (even, out) = (&rows.even, &mut rows.odd[..odd]);
            self.instructions.odd_row(&rows.high, even, even, out, &mut self.outer);
            emit(out);
        }
    }
}
