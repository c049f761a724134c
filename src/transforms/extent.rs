//! The size and position of an image without its voxels. From these, the result of a chain of
//! transforms and its memory use are known before an image is loaded.

use super::Transform;
use crate::error::Result;
use crate::volume::Affine;

/// An image without its voxels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Extent {
    /// Channels.
    pub channels: usize,
    /// Size along X, Y, Z; the largest possible one if it depends on voxels (`CropForegroundd`).
    pub dims: [usize; 3],
    /// Voxel index (x, y, z) to RAS+ millimetres.
    pub affine: Affine,
    /// How the result is mapped back to the source's grid.
    pub way: Way,
}

/// How a result is mapped back to the source's grid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// By flips, permutations, padding and cropping alone.
    Copied,
    /// Axis by axis.
    Straight,
    /// Through one resampling between grids that are rotated or sheared against each other, and only
    /// copies before it.
    Oblique,
    /// Step by step, in any other order.
    Steps,
}

impl Way {
    /// Adds an axis-aligned resampling.
    pub(super) fn straight(self) -> Self {
        if self == Self::Copied { Self::Straight } else { self }
    }

    /// Adds a resampling to a grid that is rotated or sheared against the image's own.
    pub(super) fn oblique(self) -> Self {
        if self == Self::Copied { Self::Oblique } else { Self::Steps }
    }

    /// Adds a resampling, axis-aligned if `straight`.
    pub(super) fn resampled(self, straight: bool) -> Self {
        if straight { self.straight() } else { self.oblique() }
    }
}

impl Extent {
    /// Creates an image with one channel and no history.
    pub fn new(dims: [usize; 3], affine: Affine) -> Self {
        Self { channels: 1, dims, affine, way: Way::Copied }
    }

    /// Returns the number of voxels in all channels.
    pub fn voxels(&self) -> u64 {
        voxels(self.dims).saturating_mul(self.channels as u64)
    }

    /// Returns the size of the voxels in bytes, as f32.
    pub fn bytes(&self) -> u64 {
        self.voxels().saturating_mul(size_of::<f32>() as u64)
    }
}

/// Returns the number of voxels of a grid, saturating on overflow.
pub fn voxels(dims: [usize; 3]) -> u64 {
    dims.iter().fold(1, |product, &n| product.saturating_mul(n as u64))
}

/// The predicted result and memory use of a chain of transforms.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Forecast {
    /// The result.
    pub result: Extent,
    /// Peak bytes of voxels held at the same time.
    pub peak: u64,
}

/// Predicts what one transform makes of an image, and the bytes it holds besides it meanwhile.
pub(super) fn step(transform: &dyn Transform, before: Extent) -> Result<(Extent, u64)> {
    let after = transform.extent(before)?;
    if !transform.copies() && after.voxels() == before.voxels() {
        return Ok((after, 0));
    }
    // Channels are transformed one by one, each from a copy in a suitable memory order; several
    // channels are then joined.
    let one = before.bytes() / before.channels.max(1) as u64;
    let made = if after.channels > 1 { after.bytes().saturating_mul(2) } else { after.bytes() };
    Ok((after, one.saturating_add(made)))
}

#[cfg(test)]
mod tests {
    use ndarray::Array4;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::bundle::Component;
    use crate::error::ErrorKind;
    use crate::transforms::{Image, Preprocessing};

    fn chain(list: &[(&str, Value)]) -> Preprocessing {
        let components: Vec<Component> = list
            .iter()
            .map(|(target, args)| Component {
                target: (*target).to_owned(),
                args: args.as_object().unwrap().clone(),
                path: "preprocessing".to_owned(),
            })
            .collect();
        Preprocessing::new(&components, &["image".to_owned()]).unwrap()
    }

    fn affine(spacing: [f64; 3], tilt: f64) -> Affine {
        let [x, y, z] = spacing;
        Affine::from_columns([[-x, 0.0, 0.0], [0.0, -y, 0.0], [0.0, tilt, z]], [9.0, 8.0, 7.0])
    }

    proptest! {
        /// The forecast equals the actual size, whatever the input; for a crop to the foreground, it is
        /// an upper bound.
        #[test]
        fn sizes_are_those_that_are_made(
            dims in [2usize..20, 2usize..20, 2usize..20],
            spacing in [0.4f64..3.0, 0.4f64..3.0, 0.4f64..3.0],
            tilt in prop_oneof![Just(0.0), 0.1f64..0.5],
            which in 0usize..8,
        ) {
            let orientation = ("Orientationd", json!({"axcodes": "PIR"}));
            let spacingd = ("Spacingd", json!({"pixdim": [1.1, 0.9, 2.0], "mode": "bilinear"}));
            let step = [
                ("Resized", json!({"spatial_size": [7, -1, 9], "mode": "area"})),
                ("SpatialPadd", json!({"spatial_size": [11, 12, -1]})),
                ("DivisiblePadd", json!({"k": 4})),
                ("BorderPadd", json!({"spatial_border": [1, 2, 3]})),
                ("CenterSpatialCropd", json!({"roi_size": [5, 100, -1]})),
                ("SpatialCropd", json!({"roi_start": [0, 0, 0], "roi_end": [50, 1, 1]})),
                ("CropForegroundd", json!({"margin": 2, "k_divisible": 3})),
                ("ScaleIntensityd", json!({})),
            ][which].clone();
            let crops = which == 6;
            let chain = chain(&[orientation, spacingd.clone(), step, spacingd]);
            let affine = affine(spacing, tilt);
            let data = Array4::from_shape_fn((1, dims[0], dims[1], dims[2]), |(_, x, y, z)| {
                if crops && x == 0 { 0.0 } else { (1 + x + y + z) as f32 }
            });
            let forecast = chain.forecast(vec![Extent::new(dims, affine)]).unwrap();
            let made = chain.run(vec![Image::new(data, affine)], |_| Ok(())).unwrap();
            let expected = forecast.result.dims;
            if crops {
                prop_assert!((0..3).all(|a| made.dims()[a] <= expected[a]), "{:?} {expected:?}", made.dims());
            } else {
                prop_assert_eq!(made.dims(), expected);
                let corner = [1.0, 2.0, 3.0];
                let (a, b) = (made.affine.apply(corner), forecast.result.affine.apply(corner));
                let linear = (0..3).all(|r| (0..3).all(|c| {
                    (made.affine.0[r][c] - forecast.result.affine.0[r][c]).abs() < 1e-9
                }));
                prop_assert!(linear, "{a:?} {b:?}");
            }
            let way = if tilt == 0.0 { Way::Straight } else { Way::Oblique };
            prop_assert_eq!(forecast.result.way, way);
            prop_assert!(forecast.peak >= forecast.result.bytes());
        }
    }

    #[test]
    fn implausible_spacings_are_refused_or_counted() {
        let chain = chain(&[("Spacingd", json!({"pixdim": [1.0, 1.0, 1.0]}))]);
        let of = |spacing| chain.forecast(vec![Extent::new([512, 512, 300], affine(spacing, 0.0))]);
        let error = of([400.0, 400.0, 1.0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidImage);
        assert_eq!(error.details()["attribute"], "PixelSpacing");
        assert!(of([100.0, 100.0, 1.0]).unwrap().peak > 1 << 41);
        assert_eq!(of([1e-3, 1e-3, 1e-3]).unwrap().result.dims, [2, 2, 1]);
    }

    #[test]
    fn sizes_that_overflow_are_beyond_all_memory() {
        let huge = Extent::new([usize::MAX; 3], Affine::IDENTITY);
        assert_eq!((huge.voxels(), huge.bytes()), (u64::MAX, u64::MAX));
    }
}
