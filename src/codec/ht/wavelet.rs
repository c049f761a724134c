//! The inverse of the reversible 5/3 wavelet (ISO/IEC 15444-1 annex F.3), row by row. All signals
//! begin at an even coordinate, since the image and its only tile begin at the origin.

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
    /// Keeps the lowest bits.
    fn wrapped(value: i32) -> Self;
    /// Copies coefficients of 16 bits.
    fn copy_narrow(from: &[i16], to: &mut [Self]);

    /// Range in which two values plus 2 can be added without wrapping around.
    const LIMITS: (i32, i32);

    /// Returns the value, or `None` if it is not within [`LIMITS`](Self::LIMITS).
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

/// A 16-bit pixel.
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

/// Smallest and largest value that a transform produced.
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

    /// Includes all of `values`.
    pub fn see_all(&mut self, values: &[T]) {
        values.iter().for_each(|&value| self.see(value));
    }

    /// Whether all values are correct, given that the inputs of the transform are within
    /// [`LIMITS`](Number::LIMITS). The first value beyond the limits is itself still correct, so
    /// none goes unnoticed.
    pub fn hold(&self) -> bool {
        let (low, high) = T::LIMITS;
        self.low > self.high || (self.low.wide() >= low && self.high.wide() <= high)
    }
}

/// Reconstructs one row (equations F-5 and F-6) from its `low` and `high` halves; `even` is scratch
/// space as long as `low`.
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

/// Reconstructs an even row: `low` minus the update from its odd neighbours `above` and `below`.
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

/// Reconstructs an odd row: `high` plus the prediction from its even neighbours `above` and
/// `below`.
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

/// Appends the lowest 16 bits of each value plus `offset`.
#[inline(always)]
pub(super) fn finish<T: Number, P: Pixel>(row: &[T], offset: u16, out: &mut Vec<P>) {
    out.extend(row.iter().map(|v| P::from_bits((v.wide() as u16).wrapping_add(offset))));
}

/// Converts coefficients from sign (bit 31) and magnitude. Returns whether all of them are within
/// the [limits](Number::LIMITS).
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The forward transform of a signal, literally as in equations F-9 and F-10.
    fn halves(signal: &[i32]) -> (Vec<i32>, Vec<i32>) {
        let n = signal.len() as i64;
        let mirrored = |at: i64| {
            let at = if at < 0 { -at } else { at };
            (if at >= n { 2 * (n - 1) - at } else { at }) as usize
        };
        let x = |at: i64| signal[mirrored(at)];
        let odd = |k: i64| x(2 * k + 1) - ((x(2 * k) + x(2 * k + 2)) >> 1);
        // An odd position beyond an end is the mirror image of one inside.
        let high = |k: i64| odd((mirrored(2 * k + 1) as i64 - 1) / 2);
        let low = |k: i64| x(2 * k) + ((high(k - 1) + high(k) + 2) >> 2);
        if n == 1 {
            return (signal.to_vec(), Vec::new());
        }
        ((0..(n + 1) / 2).map(low).collect(), (0..n / 2).map(odd).collect())
    }

    fn inverse<T: Number>(low: &[i32], high: &[i32]) -> (Vec<i32>, Bounds<T>) {
        let [low, high] = [low, high].map(|h| h.iter().map(|&v| T::wrapped(v)).collect::<Vec<_>>());
        let mut out = vec![T::default(); low.len() + high.len()];
        let mut scratch = vec![T::default(); low.len()];
        let mut bounds = Bounds::new();
        row(&low, &high, &mut scratch, &mut out, &mut bounds);
        (out.iter().map(|v| v.wide()).collect(), bounds)
    }

    proptest! {
        #[test]
        fn rows_come_back(signal in prop::collection::vec(-4000..4000i32, 1..200)) {
            let (low, high) = halves(&signal);
            let (back, bounds) = inverse::<i32>(&low, &high);
            prop_assert_eq!(&back, &signal);
            prop_assert!(bounds.hold());
            let (back, bounds) = inverse::<i16>(&low, &high);
            prop_assert_eq!(&back, &signal);
            prop_assert!(bounds.hold());
        }

        /// The 16-bit result is correct whenever the bounds hold.
        #[test]
        fn bounds_show_what_wrapped_around(
            low in prop::collection::vec(i16::LIMITS.0..=i16::LIMITS.1, 1..60),
            high in prop::collection::vec(i16::LIMITS.0..=i16::LIMITS.1, 60),
            odd: bool,
        ) {
            let high = &high[..low.len() - usize::from(odd)];
            let (wide, _) = inverse::<i32>(&low, high);
            let (narrow, bounds) = inverse::<i16>(&low, high);
            let (least, most) = i16::LIMITS;
            let fits = wide.iter().all(|v| (least..=most).contains(v));
            prop_assert_eq!(bounds.hold(), fits || high.is_empty());
            if fits {
                prop_assert_eq!(narrow, wide);
            }
        }
    }
}
