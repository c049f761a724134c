//! The inverse of the reversible 5/3 wavelet (ISO/IEC 15444-1 annex F.3), row by row. All signals begin at
//! an even place: the image and its only tile begin at the origin.

/// Coefficients of 16 or 32 bits. Arithmetic wraps around; [`Bounds`] tells whether it did.
pub(super) trait Number: Copy + Default + Ord + 'static {
    const MIN: Self;
    const MAX: Self;
    fn plus(self, other: Self) -> Self;
    fn minus(self, other: Self) -> Self;
    /// Divided by 2^`bits`, rounded down.
    fn shifted(self, bits: u32) -> Self;
    fn two() -> Self;
    fn wide(self) -> i32;
    /// The lowest bits.
    fn wrapped(value: i32) -> Self;
    /// Copies coefficients of 16 bits.
    fn copy_narrow(from: &[i16], to: &mut [Self]);

    /// Values that two of, and 2, can be added without wrapping around.
    const LIMITS: (i32, i32);

    /// The value, or `None` where it is not within [`LIMITS`](Self::LIMITS).
    fn within_limits(value: i32) -> Option<Self> {
        (Self::LIMITS.0..=Self::LIMITS.1).contains(&value).then(|| Self::wrapped(value))
    }
}

macro_rules! number {
    ($t:ty) => {
        impl Number for $t {
            const MIN: Self = Self::MIN;
            const MAX: Self = Self::MAX;
            #[inline(always)]
            fn plus(self, other: Self) -> Self {
                self.wrapping_add(other)
            }
            #[inline(always)]
            fn minus(self, other: Self) -> Self {
                self.wrapping_sub(other)
            }
            #[inline(always)]
            fn shifted(self, bits: u32) -> Self {
                self >> bits
            }
            #[inline(always)]
            fn two() -> Self {
                2
            }
            #[inline(always)]
            fn wide(self) -> i32 {
                self.into()
            }
            #[inline(always)]
            fn wrapped(value: i32) -> Self {
                value as Self
            }
            #[inline(always)]
            fn copy_narrow(from: &[i16], to: &mut [Self]) {
                to.iter_mut().zip(from).for_each(|(to, &from)| *to = from.into());
            }
            const LIMITS: (i32, i32) = (Self::MIN as i32 / 2, Self::MAX as i32 / 2 - 1);
        }
    };
}
number!(i16);
number!(i32);

/// A pixel of 16 bits.
pub(in super::super) trait Pixel: Copy {
    fn from_bits(bits: u16) -> Self;
}

impl Pixel for u16 {
    #[inline(always)]
    fn from_bits(bits: u16) -> Self {
        bits
    }
}

impl Pixel for i16 {
    #[inline(always)]
    fn from_bits(bits: u16) -> Self {
        bits as Self
    }
}

/// Smallest and largest of the values that a transform gave.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds<T> {
    pub low: T,
    pub high: T,
}

impl<T: Number> Bounds<T> {
    pub fn new() -> Self {
        Self { low: T::MAX, high: T::MIN }
    }

    #[inline(always)]
    fn see(&mut self, value: T) {
        self.low = self.low.min(value);
        self.high = self.high.max(value);
    }

    /// Takes note of values.
    pub fn see_all(&mut self, values: &[T]) {
        values.iter().for_each(|&value| self.see(value));
    }

    /// Whether all values are right, where those that the transform began with are within
    /// [`LIMITS`](Number::LIMITS). The first value beyond is right still, so that none goes unseen.
    pub fn hold(&self) -> bool {
        let (low, high) = T::LIMITS;
        self.low > self.high || (self.low.wide() >= low && self.high.wide() <= high)
    }
}

/// One row (equations F-5 and F-6) from its `low` and `high` halves; `even` is as long as `low` and is
/// overwritten.
#[inline(always)]
pub(super) fn row<T: Number>(
    low: &[T],
    high: &[T],
    even: &mut [T],
    out: &mut [T],
    bounds: &mut Bounds<T>,
) {
    let (l, h) = (low.len(), high.len());
    let even = &mut even[..l];
    if h == 0 {
        out[..l].copy_from_slice(low);
        return;
    }
    // The signal is mirrored at its ends.
    even[0] = low[0].minus(high[0].plus(high[0]).plus(T::two()).shifted(2));
    let inner = h.min(l - 1);
    {
        let (left, right) = (&high[..inner], &high[1..]);
        let both = inner.min(right.len());
        let (even, low) = (&mut even[1..], &low[1..]);
        for i in 0..both {
            even[i] = low[i].minus(left[i].plus(right[i]).plus(T::two()).shifted(2));
        }
        if both < inner {
            let last = left[both];
            even[both] = low[both].minus(last.plus(last).plus(T::two()).shifted(2));
        }
    }
    let mut seen = *bounds;
    let (pairs, last) = out[..l + h].as_chunks_mut::<2>();
    let inner = h.min(l - 1);
    {
        let (this, next) = (&even[..inner], &even[1..=inner]);
        let (pairs, high) = (&mut pairs[..inner], &high[..inner]);
        for i in 0..inner {
            let odd = high[i].plus(this[i].plus(next[i]).shifted(1));
            seen.see(this[i]);
            seen.see(odd);
            pairs[i] = [this[i], odd];
        }
    }
    let end = even[l - 1];
    seen.see(end);
    if let [last] = last {
        *last = end;
    } else {
        let odd = high[h - 1].plus(end);
        seen.see(odd);
        pairs[h - 1] = [end, odd];
    }
    *bounds = seen;
}

/// A row of even number: `low` less what its neighbours `above` and `below` of odd number give.
#[inline(always)]
pub(super) fn even_row<T: Number>(
    low: &[T],
    above: &[T],
    below: &[T],
    out: &mut [T],
    bounds: &mut Bounds<T>,
) {
    let n = out.len();
    let (low, above, below) = (&low[..n], &above[..n], &below[..n]);
    let mut seen = *bounds;
    for i in 0..n {
        out[i] = low[i].minus(above[i].plus(below[i]).plus(T::two()).shifted(2));
        seen.see(out[i]);
    }
    *bounds = seen;
}

/// A row of odd number: `high` and what its neighbours `above` and `below` of even number give.
#[inline(always)]
pub(super) fn odd_row<T: Number>(
    high: &[T],
    above: &[T],
    below: &[T],
    out: &mut [T],
    bounds: &mut Bounds<T>,
) {
    let n = out.len();
    let (high, above, below) = (&high[..n], &above[..n], &below[..n]);
    let mut seen = *bounds;
    for i in 0..n {
        out[i] = high[i].plus(above[i].plus(below[i]).shifted(1));
        seen.see(out[i]);
    }
    *bounds = seen;
}

/// Appends the lowest 16 bits of values and `offset`.
#[inline(always)]
pub(super) fn finish<T: Number, P: Pixel>(row: &[T], offset: u16, out: &mut Vec<P>) {
    out.extend(row.iter().map(|v| P::from_bits((v.wide() as u16).wrapping_add(offset))));
}

/// Copies coefficients of magnitude and sign (bit 31); whether all of them are within the [limits](Number::LIMITS).
#[inline(always)]
pub(super) fn copy_wide<T: Number>(from: &[u32], to: &mut [T]) -> bool {
    let (mut least, mut most) = (0, 0);
    for (to, &from) in to.iter_mut().zip(from) {
        let (magnitude, sign) = ((from & 0x7FFF_FFFF) as i32, (from as i32) >> 31);
        let value = (magnitude ^ sign) - sign;
        (least, most) = (least.min(value), most.max(value));
        *to = T::wrapped(value);
    }
    least >= T::LIMITS.0 && most <= T::LIMITS.1
}
