//! Planes of a mask with one bit per voxel, so that 64 cells without a surface are skipped at once.

/// One plane of a mask, with a rim of outside voxels around it: column 0 and row 0 belong to the rim.
#[derive(Debug, Clone)]
pub struct Plane {
    words: Vec<u64>,
    per_row: usize,
    rows: usize,
}

impl Plane {
    /// Creates an empty plane for masks of `columns` by `rows` voxels.
    pub fn new(columns: usize, rows: usize) -> Self {
        // The rim on both sides, plus a trailing word that is always empty.
        let per_row = (columns + 2).div_ceil(64) + 1;
        let rows = rows + 2;
        Self { words: vec![0; per_row * rows], per_row, rows }
    }

    /// Removes all voxels.
    pub fn clear(&mut self) {
        self.words.fill(0);
    }

    /// Sets the voxels of a row of the mask from `inside`; `row` is counted without the rim.
    pub fn set_row(&mut self, row: usize, inside: impl Iterator<Item = bool>) {
        let start = (row + 1) * self.per_row;
        let Some(words) = self.words.get_mut(start..start + self.per_row) else { return };
        // Whole words are assembled in a register.
        let (mut word, mut at) = (0_u64, 1_usize);
        for inside in inside {
            word |= u64::from(inside) << (at % 64);
            at += 1;
            if at % 64 == 0 {
                if let Some(place) = words.get_mut(at / 64 - 1) {
                    *place = word;
                }
                word = 0;
            }
        }
        if let Some(place) = words.get_mut(at / 64) {
            *place = word;
        }
    }

    /// Returns the number of rows, including the rim.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Returns the number of columns, including the rim, rounded up.
    pub fn columns(&self) -> usize {
        self.per_row * 64
    }

    /// Returns a row, counted with the rim; empty beyond the last.
    pub fn row(&self, row: usize) -> &[u64] {
        let start = row.saturating_mul(self.per_row);
        self.words.get(start..start + self.per_row).unwrap_or(&[])
    }

    /// Returns the number of voxels.
    pub fn count(&self) -> u64 {
        self.words.iter().map(|word| u64::from(word.count_ones())).sum()
    }
}

/// Returns word `at` of a row, shifted by one voxel: bit `i` is voxel `i + 1`.
pub(super) fn following(row: &[u64], at: usize) -> u64 {
    let word = |at: usize| row.get(at).copied().unwrap_or(0);
    word(at) >> 1 | word(at + 1) << 63
}

/// Returns the positions of set bits, counted from `64 · at`.
pub(super) fn ones(mut word: u64, at: usize) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let bit = word.trailing_zeros();
        (bit < 64).then(|| {
            word &= word - 1;
            64 * at + bit as usize
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn voxels_are_at_their_places() {
        for columns in [1, 61, 62, 63, 64, 65, 127, 200] {
            let mut plane = Plane::new(columns, 2);
            let inside = |x: usize| x.is_multiple_of(3) || x + 1 == columns;
            plane.set_row(1, (0..columns).map(inside));
            let row = plane.row(2);
            let found: Vec<usize> =
                row.iter().enumerate().flat_map(|(at, &word)| ones(word, at)).collect();
            let expected: Vec<usize> = (0..columns).filter(|&x| inside(x)).map(|x| x + 1).collect();
            assert_eq!(found, expected, "{columns}");
            let moved: Vec<usize> =
                (0..row.len()).flat_map(|at| ones(following(row, at), at)).collect();
            assert_eq!(moved, expected.iter().map(|x| x - 1).collect::<Vec<_>>());
            assert_eq!(plane.count(), expected.len() as u64);
            assert_eq!(plane.rows(), 4);
            plane.clear();
            assert_eq!(plane.count(), 0);
        }
    }
}
