//! Windows blended back to the image they were taken from.

use ndarray::{Array4, Array5, ArrayView3, ArrayView5, s};
use proptest::prelude::*;

use crate::error::Result;
use crate::inference::network::{Network, NetworkShape, Share};
use crate::inference::plane_sink::PlaneSink;
use crate::inference::sliding_window::{BlendMode, SlidingWindowInferer, WindowPadding};
use crate::progress::Silent;

/// Two classes: the intensity and its negative.
struct Signs;

impl Network for Signs {
    fn shape(&self) -> NetworkShape {
        NetworkShape {
            input_channels: Some(1),
            output_channels: Some(2),
            ..NetworkShape::default()
        }
    }

    fn run(
        &self,
        batch: ArrayView5<f32>,
        _: Share,
        take: &mut dyn FnMut(ArrayView5<f32>) -> Result<()>,
    ) -> Result<()> {
        let (n, _, x, y, z) = batch.dim();
        let mut result = Array5::<f32>::zeros((n, 2, x, y, z));
        result.slice_mut(s![.., ..1, .., .., ..]).assign(&batch);
        result.slice_mut(s![.., 1.., .., .., ..]).assign(&batch.mapv(|v| -v));
        take(result.view())
    }
}

/// Collects the result and checks that each voxel arrives once, in the promised order.
#[derive(Default)]
struct Once {
    result: Array4<f32>,
    next: (usize, usize),
}

impl PlaneSink for Once {
    fn begin(&mut self, classes: usize, [x, y, z]: [usize; 3]) -> Result<()> {
        self.result = Array4::from_elem((classes, x, y, z), f32::NAN);
        Ok(())
    }

    fn planes(&mut self, x: usize, y: usize, planes: &[ArrayView3<f32>]) -> Result<()> {
        assert_eq!((x, y), self.next);
        let rows = planes[0].dim().1;
        for (i, plane) in planes.iter().enumerate() {
            let mut place = self.result.slice_mut(s![.., x + i, y..y + rows, ..]);
            assert!(place.iter().all(|v| v.is_nan()));
            place.assign(plane);
        }
        let last = y + rows == self.result.dim().2;
        self.next = if last { (x + planes.len(), 0) } else { (x, y + rows) };
        Ok(())
    }
}

proptest! {
    /// An identity network returns the image unchanged, whatever the windows.
    #[test]
    fn every_voxel_is_finished_once(
        dims in [1usize..40, 1usize..70, 1usize..40],
        roi in [1usize..30, 1usize..60, 1usize..30],
        overlap in 0.0f64..0.8,
        gaussian: bool,
    ) {
        let mode = if gaussian {
            BlendMode::Gaussian { sigma_scale: [0.125; 3] }
        } else {
            BlendMode::Constant
        };
        let inferer = SlidingWindowInferer {
            roi_size: roi.map(Some),
            sw_batch_size: 3,
            overlap: [overlap; 3],
            mode,
            padding: WindowPadding::Constant(0.0),
            reuse_constant: true,
        };
        let image = Array4::from_shape_fn((1, dims[0], dims[1], dims[2]), |(_, x, y, z)| {
            1.0 + (x * 7 + y * 3 + z) as f32 * 0.01
        });
        let mut sink = Once::default();
        inferer.run(image.view(), &Signs, &mut sink, &Silent).unwrap();
        for ((class, x, y, z), &v) in sink.result.indexed_iter() {
            let expected = image[(0, x, y, z)] * if class == 0 { 1.0 } else { -1.0 };
            prop_assert!((v - expected).abs() < 1e-4, "{v} {expected}");
        }
    }
}
