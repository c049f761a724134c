//! Inverts the preprocessing: `Invertd`.

use ndarray::{Array3, ArrayView3};

use crate::error::Result;
use crate::transforms::resample::Grid;
use crate::transforms::window::inverse_taps;
use crate::transforms::{Applied, AxisTaps, GridMap, Interpolation, Resample, ResizeMode};

/// A map from the network's grid to the source's.
#[derive(Debug, Clone)]
pub enum Inverse {
    /// Axis by axis, with all transforms combined.
    Separable(GridMap),
    /// Step by step: some intermediate grid is sheared against its neighbour (gantry tilt).
    Steps(Vec<Step>),
}

/// One step of the inverse.
#[derive(Debug, Clone)]
pub enum Step {
    /// An axis-by-axis map.
    Map(GridMap),
    /// A resampling between grids whose axes differ.
    Resample {
        /// Resampling parameters.
        resample: Resample,
        /// Input grid.
        from: Grid,
        /// Output grid.
        to: Grid,
    },
}

impl Inverse {
    /// Creates the inverse of `applied` (oldest first), which produced an image of size `dims`. With
    /// `nearest`, every resampling uses the nearest voxel (`nearest_interp`); otherwise, the mode of
    /// preprocessing.
    pub fn new(applied: &[Applied], dims: [usize; 3], nearest: bool) -> Result<Self> {
        let mut steps = Vec::new();
        let mut joined = GridMap::identity(dims);
        for record in applied.iter().rev() {
            match step(record, nearest)? {
                Step::Map(map) => joined = map.after(&joined)?,
                resample @ Step::Resample { to, .. } => {
                    steps.push(Step::Map(std::mem::replace(&mut joined, GridMap::identity(to.0))));
                    steps.push(resample);
                }
            }
        }
        if steps.is_empty() {
            return Ok(Self::Separable(joined));
        }
        steps.push(Step::Map(joined));
        Ok(Self::Steps(steps))
    }

    /// Returns the size of the source's grid.
    pub fn outputs(&self) -> [usize; 3] {
        match self {
            Self::Separable(map) => map.outputs(),
            Self::Steps(steps) => match steps.last() {
                Some(Step::Map(map)) => map.outputs(),
                Some(Step::Resample { to, .. }) => to.0,
                None => [0; 3],
            },
        }
    }

    /// Maps one channel back.
    pub fn apply(&self, channel: ArrayView3<f32>) -> Result<Array3<f32>> {
        match self {
            Self::Separable(map) => map.apply(channel),
            Self::Steps(steps) => {
                let mut current = channel.to_owned();
                for step in steps {
                    current = match step {
                        Step::Map(map) => map.apply(current.view())?,
                        Step::Resample { resample, from, to } => {
                            resample.apply(current.view(), from, to)?
                        }
                    };
                }
                Ok(current)
            }
        }
    }
}

fn step(record: &Applied, nearest: bool) -> Result<Step> {
    Ok(match record {
        Applied::Orientation { source, flipped, dims } => {
            let mut back = [0; 3];
            let mut taps = dims.map(AxisTaps::identity);
            for (after, &before) in source.iter().enumerate() {
                back[before] = after;
                if flipped[after] {
                    taps[before] = taps[before].with_reversed_output();
                }
            }
            Step::Map(GridMap { source: back, taps })
        }
        Applied::Window { offset, from, to } => {
            Step::Map(GridMap::from_taps(inverse_taps(*offset, *from, *to)))
        }
        // MONAI inverts a resize in the same mode.
        Applied::Resize { mode, from, to } => {
            let mode = if nearest { ResizeMode::Nearest } else { *mode };
            Step::Map(mode.grid_map(*to, *from))
        }
        Applied::Resample { resample, from, to } => {
            let resample = if nearest {
                Resample { mode: Interpolation::Nearest, align_corners: false, ..*resample }
            } else {
                *resample
            };
            match resample.grid_map(to, from)? {
                Some(map) => Step::Map(map),
                None => Step::Resample { resample, from: *to, to: *from },
            }
        }
    })
}
