//! Pseudo-random numbers that are identical on every machine.
//!
//! Everything here is integer arithmetic and IEEE 754 addition, multiplication and division, which
//! are exactly specified; no function of the platform's mathematics library is used. A seed
//! therefore results in the same phantom on any machine and with any number of threads.

/// Increment of SplitMix64 (Steele, Lea and Flood, 2014): 2^64 divided by the golden ratio, odd.
const GOLDEN_GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;

/// The output function of SplitMix64: every bit of `x` affects every bit of the result.
fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// Returns the upper 53 bits of `x` as a number in `[0, 1)`.
fn unit(x: u64) -> f64 {
    (x >> 11) as f64 / (1_u64 << 53) as f64
}

/// SplitMix64: a sequence of random numbers for the parameters of the anatomy.
#[derive(Debug, Clone)]
pub(super) struct Random {
    state: u64,
}

impl Random {
    /// Creates sequence `stream` of `seed`; different streams of one seed are unrelated.
    pub(super) fn new(seed: u64, stream: u64) -> Self {
        Self { state: mix(seed ^ mix(stream.wrapping_add(GOLDEN_GAMMA))) }
    }

    /// Returns the next 64 bits.
    pub(super) fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(GOLDEN_GAMMA);
        mix(self.state)
    }

    /// Returns a number in `[low, high)`.
    pub(super) fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * unit(self.bits())
    }

    /// Returns a point in the box around `centre` that extends by `spread` to either side.
    pub(super) fn around(&mut self, centre: [f64; 3], spread: [f64; 3]) -> [f64; 3] {
        std::array::from_fn(|i| centre[i] + self.between(-spread[i], spread[i]))
    }

    /// Returns a permutation of `0..n` (Fisher and Yates). The bias of the remainder is below n /
    /// 2^64.
    pub(super) fn permutation(&mut self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        for i in (1..n).rev() {
            let j = (self.bits() % (i as u64 + 1)) as usize;
            order.swap(i, j);
        }
        order
    }
}

/// Smooth noise in space: random values on a cubic lattice, interpolated between its points.
#[derive(Debug, Clone)]
pub(super) struct ValueNoise {
    key: u64,
    per_mm: f64,
}

impl ValueNoise {
    /// Creates noise that varies over about `scale` millimetres.
    pub(super) fn new(random: &mut Random, scale: f64) -> Self {
        Self { key: random.bits(), per_mm: 1.0 / scale }
    }

    /// Returns the noise at a point in millimetres: in `[-1, 1)`, with a continuous gradient.
    pub(super) fn at(&self, point: [f64; 3]) -> f64 {
        let scaled = point.map(|x| x * self.per_mm);
        let cell = scaled.map(f64::floor);
        let t: [f64; 3] = std::array::from_fn(|i| {
            let x = scaled[i] - cell[i];
            x * x * (3.0 - 2.0 * x)
        });
        let corner = |dx: i64, dy: i64, dz: i64| {
            let at = [cell[0] as i64 + dx, cell[1] as i64 + dy, cell[2] as i64 + dz];
            let hash =
                at.iter().fold(self.key, |h, &c| mix(h ^ (c as u64).wrapping_mul(GOLDEN_GAMMA)));
            2.0 * unit(hash) - 1.0
        };
        let blend = |a: f64, b: f64, t: f64| a + (b - a) * t;
        let edge = |dy, dz| blend(corner(0, dy, dz), corner(1, dy, dz), t[0]);
        let face = |dz| blend(edge(0, dz), edge(1, dz), t[1]);
        blend(face(0), face(1), t[2])
    }
}

/// Independent noise per voxel, addressed by index, so that voxels can be generated in any order.
#[derive(Debug, Clone)]
pub(super) struct VoxelNoise {
    key: u64,
}

impl VoxelNoise {
    pub(super) fn new(random: &mut Random) -> Self {
        Self { key: random.bits() }
    }

    /// Returns the noise of voxel `index`: mean 0, standard deviation 1, close to a normal
    /// distribution (the sum of four uniform 16-bit numbers, so never beyond 3.5).
    pub(super) fn at(&self, index: usize) -> f64 {
        let bits = mix(self.key ^ (index as u64).wrapping_mul(GOLDEN_GAMMA));
        let sum: u64 = (0..4).map(|i| (bits >> (16 * i)) & 0xFFFF).sum();
        // Four uniform numbers: mean 2, variance 4/12.
        (sum as f64 / 65536.0 - 2.0) * 1.732_050_807_568_877_2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_is_splitmix64() {
        // First outputs of the reference implementation for state 0.
        let mut random = Random { state: 0 };
        assert_eq!(random.bits(), 0xE220_A839_7B1D_CDAF);
        assert_eq!(random.bits(), 0x6E78_9E6A_A1B9_65F4);
    }

    #[test]
    fn permutations_hold_every_index_once() {
        let mut order = Random::new(1, 0).permutation(50);
        assert_ne!(order, (0..50).collect::<Vec<_>>());
        order.sort_unstable();
        assert_eq!(order, (0..50).collect::<Vec<_>>());
    }

    #[test]
    fn smooth_noise_is_continuous_across_lattice_planes() {
        let noise = ValueNoise::new(&mut Random::new(7, 1), 10.0);
        for plane in [-20.0, -10.0, 0.0, 30.0] {
            let (below, above) =
                (noise.at([plane - 1e-7, 3.0, -4.0]), noise.at([plane, 3.0, -4.0]));
            assert!((below - above).abs() < 1e-6, "{plane}: {below} {above}");
        }
    }

    #[test]
    fn voxel_noise_has_mean_zero_and_deviation_one() {
        let noise = VoxelNoise::new(&mut Random::new(3, 2));
        let n = 100_000;
        let (sum, squares) =
            (0..n).map(|i| noise.at(i)).fold((0.0, 0.0), |(s, q), x| (s + x, q + x * x));
        let mean = sum / n as f64;
        assert!(mean.abs() < 0.02, "{mean}");
        assert!((squares / n as f64 - mean * mean - 1.0).abs() < 0.02);
    }
}
