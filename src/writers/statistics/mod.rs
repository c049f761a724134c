//! Measures each segment on the source's values: size, position, shape, and the spread of the values.
//!
//! - Everything is exact. Counts and sums of whole values are integers. Percentiles are found by
//!   selection, not from a coarse histogram. Sums of other values are f64, added in an order that does
//!   not depend on the number of threads.
//! - Nothing of a volume's size is allocated for any segment. One pass splits the rows of the slices
//!   into runs of each segment, which give counts, bounding boxes, sums and connected components at
//!   once. Further passes count values for the percentiles, within the boxes found by the first.
//! - Segments may overlap; each is measured separately.

mod components;
mod selection;
mod spread;
mod survey;

use ndarray::Axis;

use super::layout::slice_order;
use super::{Bounds, Label, Voxels};
use crate::dicom::segment::SegmentDescription;
use crate::error::{Error, Result};
use crate::volume::affine::lps_ras;
use crate::volume::{Geometry, Physical};
use crate::writers::layer::{self, Layer, Meaning};
use spread::{Spread, Value};
use survey::Found;

/// The percentiles in [`ValueStatistics::percentiles`].
pub const PERCENTILES: [u8; 5] = [5, 25, 50, 75, 95];

/// The measurements of one segment.
#[derive(Debug, Clone, PartialEq)]
pub struct Statistics {
    /// Number of voxels.
    pub voxels: u64,
    /// The bounding box of the segment in voxels; `None` if it has no voxel.
    pub bounds: Option<Bounds>,
    /// Mean position of the voxels' centres in the patient, in LPS+ millimetres as in DICOM; `None` if
    /// there is no voxel.
    pub centroid: Option<[f64; 3]>,
    /// Number of connected components; voxels that share a face, an edge or a corner are connected.
    pub components: u64,
    /// Number of voxels of the largest component.
    pub largest_component: u64,
    /// Whether the segment touches the first and the last voxel of the image along X, Y and Z, where it
    /// may be cut off.
    pub touches: [[bool; 2]; 3],
    /// The spread of the source's values; `None` if no voxel has a finite value.
    pub values: Option<ValueStatistics>,
}

/// The spread of the source's values over a segment, in the units of the image (Hounsfield for CT).
#[derive(Debug, Clone, PartialEq)]
pub struct ValueStatistics {
    /// Arithmetic mean.
    pub mean: f64,
    /// Standard deviation of the population: the sum of squares is divided by the number of voxels.
    pub standard_deviation: f64,
    /// Smallest value.
    pub minimum: f64,
    /// Largest value.
    pub maximum: f64,
    /// The percentiles of [`PERCENTILES`], interpolated linearly between neighbouring ranks (NumPy's
    /// default).
    pub percentiles: [f64; 5],
    /// Number of voxels excluded because their value is not finite.
    pub excluded: u64,
}

impl ValueStatistics {
    /// Returns the 50th percentile.
    pub fn median(&self) -> f64 {
        let [_, _, median, _, _] = self.percentiles;
        median
    }
}

/// Measures every segment, in the order of `segments`. `physical` contains the values of the source,
/// and `geometry` the position of the grid of both.
///
/// # Errors
/// [`InvalidModel`](crate::error::ErrorKind::InvalidModel) if a voxel has a value that no segment
/// describes; [`Internal`](crate::error::ErrorKind::Internal) if the sizes are inconsistent.
pub fn measure<L: Label>(
    voxels: &Voxels<L>,
    segments: &[SegmentDescription],
    physical: &Physical,
    geometry: &Geometry,
) -> Result<Vec<Statistics>> {
    if voxels.dim() != physical.dim() {
        return Err(Error::internal("the segmentation and the image differ in size"));
    }
    match physical {
        Physical::Whole { voxels: values, low } => {
            let values = slice_order(values.view());
            measure_on(voxels, segments, &values, f64::from(*low), geometry)
        }
        Physical::Real(values) => {
            measure_on(voxels, segments, &slice_order(values.view()), 0.0, geometry)
        }
    }
}

/// Returns the bytes needed for measuring, besides the segmentation and the values, for a grid of these
/// dimensions.
pub fn working_bytes(dims: [usize; 3]) -> u64 {
    survey::working_bytes(dims).saturating_add(selection::WORKING_BYTES)
}

/// Measures like [`measure`], for values in slice order, to which `offset` is added.
fn measure_on<L: Label, V: Value>(
    voxels: &Voxels<L>,
    segments: &[SegmentDescription],
    values: &[V],
    offset: f64,
    geometry: &Geometry,
) -> Result<Vec<Statistics>> {
    let result = |found: Found<V>, percentiles| found.statistics(percentiles, offset, geometry);
    let on_layer = |found: Vec<Found<V>>, percentiles: Vec<_>| {
        found.into_iter().zip(percentiles).map(|(found, p)| result(found, p))
    };
    match voxels {
        Voxels::Labels(labels) => {
            let layer = Layer::new(*labels, layer::labels(segments))?;
            let (found, percentiles) = measure_layer(&layer, values, segments.len())?;
            Ok(on_layer(found, percentiles).collect())
        }
        Voxels::Sets { codes, members } => {
            let layer = Layer::new(*codes, layer::sets(members, segments))?;
            let (found, percentiles) = measure_layer(&layer, values, segments.len())?;
            Ok(on_layer(found, percentiles).collect())
        }
        Voxels::Masks(masks) => {
            if masks.len_of(Axis(0)) != segments.len() {
                return Err(Error::internal("the masks are not those of the segments"));
            }
            let mut all = Vec::with_capacity(segments.len());
            for channel in 0..segments.len() {
                let mask = masks.index_axis_move(Axis(0), channel);
                let meaning = vec![Meaning::Segments(vec![]), Meaning::Segments(vec![0])];
                let (found, percentiles) = measure_layer(&Layer::new(mask, meaning)?, values, 1)?;
                all.extend(on_layer(found, percentiles));
            }
            Ok(all)
        }
    }
}

type Percentiles = Option<[f64; 5]>;

fn measure_layer<L: Label, V: Value>(
    layer: &Layer<L>,
    values: &[V],
    segments: usize,
) -> Result<(Vec<Found<V>>, Vec<Percentiles>)> {
    let found = survey::survey(layer, values, segments)?;
    let percentiles = selection::percentiles(layer, values, &found)?;
    Ok((found, percentiles))
}

impl<V: Value> Found<V> {
    fn statistics(self, percentiles: Percentiles, offset: f64, geometry: &Geometry) -> Statistics {
        let bounds = self.bounds;
        let touches = std::array::from_fn(|axis| match &bounds {
            Some(bounds) => [bounds[axis].start == 0, bounds[axis].end == geometry.dims[axis]],
            None => [false; 2],
        });
        let centroid = bounds.as_ref().map(|_| {
            let index = self.sums.map(|sum| sum as f64 / self.voxels as f64);
            lps_ras(&geometry.affine).apply(index)
        });
        let spread: Spread<V> = self.spread;
        let excluded = self.voxels - spread.count();
        let values = percentiles.and_then(|percentiles| {
            let (low, high) = spread.range()?;
            Some(ValueStatistics {
                mean: offset + spread.mean(),
                standard_deviation: spread.variance().sqrt(),
                minimum: offset + low,
                maximum: offset + high,
                percentiles: percentiles.map(|value| offset + value),
                excluded,
            })
        });
        Statistics {
            voxels: self.voxels,
            bounds,
            centroid,
            components: self.components.count,
            largest_component: self.components.largest,
            touches,
            values,
        }
    }
}

#[cfg(test)]
mod tests;
