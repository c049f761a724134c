//! Maps back by the nearest voxel: every output voxel is one voxel of the network's grid or none, so
//! labels are looked up and never converted to values.

use ndarray::{Array3, ArrayView3, Axis};
use rayon::prelude::*;

use super::arrays::zeros;
use super::inverse::{Inverse, Step};
use crate::error::{Error, Result};
use crate::memory::Zeroed;
use crate::transforms::{GridMap, Sampler};

/// One step, from its output to its input.
enum Lookup {
    /// For each output axis, the input axis and the input index of each output index.
    Map([usize; 3], [Vec<Option<usize>>; 3]),
    Sampler(Box<Sampler>),
}

/// Maps an image with axes (X, Y, Z) back, with 0 outside. X varies fastest in the result.
///
/// # Errors
/// [`ErrorKind::OutOfMemory`](crate::error::ErrorKind::OutOfMemory) if there is no memory for it.
pub(super) fn gather<T: Zeroed + Send + Sync>(
    image: ArrayView3<T>,
    inverse: &Inverse,
) -> Result<Array3<T>> {
    let lookups = match inverse {
        Inverse::Separable(map) => vec![lookup_of(map)?],
        Inverse::Steps(steps) => steps.iter().rev().map(Lookup::of).collect::<Result<_>>()?,
    };
    let [x, y, z] = inverse.outputs();
    let mut out = zeros::<T>([1, z, y, x])?.index_axis_move(Axis(0), 0);
    out.axis_iter_mut(Axis(0)).into_par_iter().enumerate().for_each(|(z, mut plane)| {
        for ((y, x), voxel) in plane.indexed_iter_mut() {
            let place = lookups.iter().try_fold([x, y, z], |at, lookup| lookup.input(at));
            if let Some(value) = place.and_then(|at| image.get(at)) {
                *voxel = *value;
            }
        }
    });
    Ok(out.permuted_axes([2, 1, 0]))
}

impl Lookup {
    fn of(step: &Step) -> Result<Self> {
        match step {
            Step::Map(map) => lookup_of(map),
            Step::Resample { resample, from, to } => {
                Ok(Self::Sampler(Box::new(Sampler::new(*resample, from, to)?)))
            }
        }
    }

    /// Returns the input voxel for an output voxel.
    fn input(&self, at: [usize; 3]) -> Option<[usize; 3]> {
        match self {
            Self::Map(source, tables) => {
                let mut input = [0; 3];
                for axis in 0..3 {
                    input[source[axis]] = tables[axis][at[axis]]?;
                }
                Some(input)
            }
            Self::Sampler(sampler) => {
                let mut input = [0; 3];
                for (index, [nearest, _]) in input.iter_mut().zip(sampler.taps(at)) {
                    *index = (nearest.1 != 0.0).then_some(nearest.0)?;
                }
                Some(input)
            }
        }
    }
}

fn lookup_of(map: &GridMap) -> Result<Lookup> {
    let mut tables: [Vec<Option<usize>>; 3] = Default::default();
    for (table, taps) in tables.iter_mut().zip(&map.taps) {
        *table = (0..taps.outputs())
            .map(|i| match taps.row(i) {
                [] => Ok(None),
                [(index, _)] => Ok(Some(*index as usize)),
                _ => Err(Error::internal("the nearest voxel is several")),
            })
            .collect::<Result<_>>()?;
    }
    Ok(Lookup::Map(map.source, tables))
}
