//! Elements of packet headers (ISO/IEC 15444-1 annex B.10.1 and B.10.2): stuffed bits and tag
//! trees.

/// A tag tree (annex B.10.2): a quad tree of minima.
pub(super) struct TagTree {
    /// From the leaves to the root: the width, and for each node its value so far and whether that
    /// is final.
    levels: Vec<(u32, Vec<(u32, bool)>)>,
}

impl TagTree {
    pub fn new(columns: u32, rows: u32) -> Self {
        let (mut w, mut h) = (columns, rows);
        let mut levels = vec![(w, vec![(0, false); (w * h) as usize])];
        while w * h > 1 {
            (w, h) = (w.div_ceil(2), h.div_ceil(2));
            levels.push((w, vec![(0, false); (w * h) as usize]));
        }
        Self { levels }
    }

    /// Reads the value of a leaf, only as far as needed to know whether it is below `threshold`.
    pub fn value(&mut self, bits: &mut Bits<'_>, x: u32, y: u32, threshold: u32) -> Option<u32> {
        let mut least = 0;
        for (depth, (width, nodes)) in self.levels.iter_mut().enumerate().rev() {
            let index = (y >> depth) * *width + (x >> depth);
            let (value, is_final) = nodes.get_mut(index as usize)?;
            *value = least.max(*value);
            while !*is_final && *value < threshold {
                if bits.bit()? == 1 {
                    *is_final = true;
                } else {
                    *value += 1;
                }
            }
            least = *value;
        }
        Some(least)
    }
}

/// Bits of a packet header, with a zero bit stuffed after each byte of ones (annex B.10.1).
pub(super) struct Bits<'a> {
    data: &'a [u8],
    position: usize,
    byte: u8,
    left: u32,
    stuffed: bool,
}

impl<'a> Bits<'a> {
    pub fn new(data: &'a [u8]) -> Self {
        Self { data, position: 0, byte: 0, left: 0, stuffed: false }
    }

    pub fn bit(&mut self) -> Option<u32> {
        if self.left == 0 {
            self.byte = *self.data.get(self.position)?;
            self.position += 1;
            self.left = if self.stuffed { 7 } else { 8 };
            self.stuffed = self.byte == 0xFF;
        }
        self.left -= 1;
        Some(u32::from(self.byte >> self.left & 1))
    }

    pub fn number(&mut self, bits: u32) -> Option<u32> {
        (bits <= 31).then_some(())?;
        (0..bits).try_fold(0, |n, _| Some(n << 1 | self.bit()?))
    }

    /// Length of the header in bytes. It ends on a byte boundary, after the stuffed byte that
    /// follows a final FF.
    pub fn length(&self) -> usize {
        self.position + usize::from(self.stuffed)
    }
}
