//! Image values, and how they are counted and summed.

use crate::kernels;

/// A value of an image.
pub(super) trait Value: Copy + Default + Send + Sync {
    /// The sums that mean and deviation follow from.
    type Moments: Moments<Self>;

    /// Bits of the keys' digits, most significant first: values are selected digit by digit.
    const DIGITS: &'static [u32];

    /// Returns a number that sorts like the values; `None` if the value is not finite.
    fn key(self) -> Option<u32>;

    /// Returns the value of a key.
    fn of_key(key: u32) -> f64;
}

/// Sums of values, which can be accumulated in parts.
pub(super) trait Moments<V>: std::fmt::Debug + Clone + Default + Send + Sync {
    /// Adds the finite values.
    fn add(&mut self, values: &[V]);

    /// Adds other sums.
    fn merge(&mut self, other: &Self);

    /// Returns the number of values added.
    fn count(&self) -> u64;

    /// Returns their mean; 0 if there are none.
    fn mean(&self) -> f64;

    /// Returns their population variance; 0 if there are none.
    fn variance(&self) -> f64;
}

/// Whole numbers have one digit, which is the value itself.
impl Value for u16 {
    type Moments = Whole;
    const DIGITS: &'static [u32] = &[16];

    fn key(self) -> Option<u32> {
        Some(u32::from(self))
    }

    fn of_key(key: u32) -> f64 {
        f64::from(key)
    }
}

const SIGN: u32 = 1 << 31;

/// The bits of positive numbers ascend with the value, those of negative ones descend.
impl Value for f32 {
    type Moments = Real;
    const DIGITS: &'static [u32] = &[12, 10, 10];

    fn key(self) -> Option<u32> {
        // Adding 0.0 turns -0.0 into 0.0.
        let bits = (self + 0.0).to_bits();
        let key = if bits & SIGN == 0 { bits | SIGN } else { !bits };
        self.is_finite().then_some(key)
    }

    fn of_key(key: u32) -> f64 {
        let bits = if key & SIGN == 0 { !key } else { key & !SIGN };
        f64::from(f32::from_bits(bits))
    }
}

/// Exact sums of whole numbers.
#[derive(Debug, Clone, Default)]
pub(super) struct Whole {
    count: u64,
    sum: u64,
    squares: u128,
}

impl Moments<u16> for Whole {
    fn add(&mut self, values: &[u16]) {
        // A row has fewer than 2^16 values, so neither sum exceeds 2^48.
        for row in values.chunks(usize::from(u16::MAX)) {
            let (sum, squares) = kernels::sums(row);
            self.sum += sum;
            self.squares += u128::from(squares);
        }
        self.count += values.len() as u64;
    }

    fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.sum += other.sum;
        self.squares += other.squares;
    }

    fn count(&self) -> u64 {
        self.count
    }

    fn mean(&self) -> f64 {
        if self.count == 0 { 0.0 } else { self.sum as f64 / self.count as f64 }
    }

    fn variance(&self) -> f64 {
        // Memory holds fewer than 2^47 values, whose squares sum to less than 2^79: the products fit.
        let count = u128::from(self.count);
        let sum = u128::from(self.sum);
        let spread = (count * self.squares).saturating_sub(sum * sum);
        if count == 0 { 0.0 } else { spread as f64 / count as f64 / count as f64 }
    }
}

/// Count, mean, and sum of squared deviations, which can be merged from parts (Chan, Golub and LeVeque
/// 1983): squares of large values are never subtracted from each other.
#[derive(Debug, Clone, Default)]
pub(super) struct Real {
    count: u64,
    mean: f64,
    squares: f64,
}

impl Moments<f32> for Real {
    fn add(&mut self, values: &[f32]) {
        let finite = || values.iter().filter(|value| value.is_finite()).map(|&v| f64::from(v));
        let (count, sum) = finite().fold((0_u64, 0.0), |(count, sum), v| (count + 1, sum + v));
        if count > 0 {
            let mean = sum / count as f64;
            let squares = finite().map(|value| (value - mean).powi(2)).sum();
            self.merge(&Self { count, mean, squares });
        }
    }

    fn merge(&mut self, other: &Self) {
        if other.count == 0 {
            return;
        }
        let (before, added) = (self.count as f64, other.count as f64);
        let distance = other.mean - self.mean;
        self.count += other.count;
        let share = added / self.count as f64;
        self.mean += distance * share;
        self.squares += other.squares + distance * distance * before * share;
    }

    fn count(&self) -> u64 {
        self.count
    }

    fn mean(&self) -> f64 {
        self.mean
    }

    fn variance(&self) -> f64 {
        if self.count == 0 { 0.0 } else { self.squares / self.count as f64 }
    }
}

/// Sums and range of the finite values of a segment.
#[derive(Debug, Clone)]
pub(super) struct Spread<V: Value> {
    moments: V::Moments,
    /// Smallest and largest key; while there is no value, the first is larger.
    keys: [u32; 2],
}

impl<V: Value> Default for Spread<V> {
    fn default() -> Self {
        Self { moments: V::Moments::default(), keys: [u32::MAX, 0] }
    }
}

impl<V: Value> Spread<V> {
    /// Adds values.
    pub(super) fn add(&mut self, values: &[V]) {
        self.moments.add(values);
        let keys = values.iter().filter_map(|value| value.key());
        self.keys = keys.fold(self.keys, |[low, high], key| [low.min(key), high.max(key)]);
    }

    /// Adds the values of another part of the segment.
    pub(super) fn merge(&mut self, other: &Self) {
        self.moments.merge(&other.moments);
        let [low, high] = other.keys;
        self.keys = [self.keys[0].min(low), self.keys[1].max(high)];
    }

    /// Returns the number of finite values.
    pub(super) fn count(&self) -> u64 {
        self.moments.count()
    }

    /// Returns the smallest and largest key, if there is a value.
    pub(super) fn keys(&self) -> Option<[u32; 2]> {
        (self.count() > 0).then_some(self.keys)
    }

    /// Returns the smallest and largest value, if there is one.
    pub(super) fn range(&self) -> Option<(f64, f64)> {
        self.keys().map(|[low, high]| (V::of_key(low), V::of_key(high)))
    }

    pub(super) fn mean(&self) -> f64 {
        self.moments.mean()
    }

    pub(super) fn variance(&self) -> f64 {
        self.moments.variance()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_ascend_with_the_values() {
        let values = [f32::MIN, -2.5, -1e-40, 0.0, 1e-45, 1.0, 1.5, f32::MAX];
        let keys: Vec<u32> = values.iter().map(|value| value.key().unwrap()).collect();
        assert!(keys.is_sorted_by(|a, b| a < b), "{keys:?}");
        for (value, key) in values.into_iter().zip(keys) {
            assert_eq!(f32::of_key(key), f64::from(value));
        }
        assert_eq!((-0.0_f32).key(), 0.0_f32.key());
        assert!([f32::NAN, f32::INFINITY, -f32::INFINITY].iter().all(|v| v.key().is_none()));
        assert_eq!(<f32 as Value>::DIGITS.iter().sum::<u32>(), 32);
    }

    #[test]
    fn deviations_survive_a_large_mean() {
        let values = [1e8_f32, 1e8 + 8.0, 1e8 + 16.0, f32::NAN];
        let mut spread = Spread::<f32>::default();
        values.iter().for_each(|value| spread.add(std::slice::from_ref(value)));
        assert_eq!((spread.count(), spread.mean()), (3, 1e8 + 8.0));
        assert!((spread.variance() - 128.0 / 3.0).abs() < 1e-9, "{}", spread.variance());
        let mut whole = Spread::<u16>::default();
        whole.add(&[65535, 65534]);
        whole.add(&[65533]);
        assert_eq!((whole.mean(), whole.variance()), (65534.0, 2.0 / 3.0));
        assert_eq!(whole.range(), Some((65533.0, 65535.0)));
        assert_eq!(Spread::<u16>::default().range(), None);
    }
}
