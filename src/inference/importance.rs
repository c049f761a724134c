//! Weights of a window's voxels for blending: `monai.data.utils.compute_importance_map`.

use ndarray::Array3;

/// How overlapping windows are blended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum BlendMode {
    /// All voxels of a window have equal weight.
    Constant,
    /// Voxels near the window's centre weigh more. Sigma is a fraction of the window size along each
    /// axis.
    Gaussian {
        /// `sigma_scale`.
        sigma_scale: [f64; 3],
    },
}

/// Returns the weights of a window of size `roi`, axes (X, Y, Z); `None` for equal weights.
pub fn importance_map(mode: BlendMode, roi: [usize; 3]) -> Option<Array3<f32>> {
    let BlendMode::Gaussian { sigma_scale } = mode else { return None };
    let axes: [Vec<f32>; 3] = std::array::from_fn(|a| {
        let sigma = roi[a] as f64 * sigma_scale[a];
        let divisor = (-2.0 * sigma * sigma) as f32;
        let centre = (roi[a] as f64 - 1.0) / 2.0;
        (0..roi[a])
            .map(|i| {
                let x = (i as f64 - centre) as f32;
                (x * x / divisor).exp()
            })
            .collect()
    });
    let mut map = Array3::from_shape_fn(roi, |(x, y, z)| axes[0][x] * axes[1][y] * axes[2][z]);
    let smallest = map.iter().copied().fold(f32::INFINITY, f32::min).max(1e-3);
    map.mapv_inplace(|v| v.max(smallest));
    Some(map)
}
