//! The memory that postprocessing takes, known before anything is computed.

use super::components::LabelOperation;
use super::plan::{Discretise, PostPlan};
use crate::transforms::{Extent, voxels};

const F32: u64 = size_of::<f32>() as u64;

/// Of connected components, a voxel of the image they are found in: runs of voxels and what joins
/// them. A label map of solid organs takes less than one byte, noise of single voxels six.
const COMPONENTS: u64 = 8;

/// Rows that arrive together, and those that wait for the next ones.
const ROWS: u64 = 24;

/// Bytes held by postprocessing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PostForecast {
    /// While the network runs.
    pub running: u64,
    /// After that, with what was held while it ran.
    pub finishing: u64,
    /// The segmentation itself.
    pub result: u64,
}

impl PostPlan {
    /// The memory for a result of `classes` on the grid of `network`, made of windows `depth` voxels
    /// deep along X, that is brought back to a grid of size `source`.
    pub fn forecast(
        &self,
        network: &Extent,
        depth: usize,
        source: [usize; 3],
        classes: usize,
    ) -> PostForecast {
        let (inner, outer) = (voxels(network.dims), voxels(source));
        let classes = classes.max(1) as u64;
        let times = u64::saturating_mul;
        let sum = |parts: &[u64]| parts.iter().copied().fold(0, u64::saturating_add);
        let masks = matches!(self.before.or(self.after), Some(Discretise::Threshold(_)));
        let channels = if masks { classes } else { 1 };
        let result = times(outer, channels);
        let components = |operations: &[LabelOperation], voxels: u64| {
            let some = operations.iter().any(|o| !matches!(o, LabelOperation::Filter { .. }));
            if some { times(voxels, COMPONENTS * channels) } else { 0 }
        };
        // One channel on the way back: as values, once more where the way has several steps, and on
        // the source's grid.
        let copies = if network.straight { 1 } else { 2 };
        let back = sum(&[times(inner, F32 * copies), times(outer, F32 * copies)]);
        let (running, finishing) = if self.before.is_some() {
            let labels = times(inner, channels);
            let operations = components(&self.operations_before, inner);
            (labels, sum(&[labels, operations.max(sum(&[back, result]))]))
        } else if network.straight {
            let [_, y, z] = network.dims.map(|n| n as u64);
            let rows = sum(&[times(depth as u64, ROWS), times(y, 4)]);
            let held = times(times(rows, z), times(classes, F32));
            (sum(&[result, held]), result)
        } else {
            let values = times(times(inner, classes), F32);
            (values, sum(&[values, back, times(outer, F32), result]))
        };
        let after = sum(&[result, components(&self.operations_after, outer)]);
        PostForecast { running, finishing: finishing.max(after), result }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::bundle::Component;
    use crate::volume::Affine;

    fn plan(list: &[(&str, Value)]) -> PostPlan {
        let components: Vec<Component> = list
            .iter()
            .map(|(target, args)| Component {
                target: (*target).to_owned(),
                args: args.as_object().unwrap().clone(),
                path: "postprocessing".to_owned(),
            })
            .collect();
        PostPlan::new(&components).unwrap()
    }

    #[test]
    fn only_a_sheared_grid_holds_values_of_all_classes() {
        let argmax = ("AsDiscreted", json!({"argmax": true}));
        let invert = ("Invertd", json!({"nearest_interp": false}));
        let labels = plan(&[argmax.clone(), invert.clone()]);
        let values = plan(&[invert, argmax]);
        let straight = Extent::new([100, 100, 100], Affine::IDENTITY);
        let sheared = Extent { straight: false, ..straight };
        let source = [200, 200, 100];
        let of = |plan: &PostPlan, network| plan.forecast(network, 96, source, 105);
        assert_eq!(of(&labels, &straight).running, 1_000_000);
        assert_eq!(of(&labels, &straight).result, 4_000_000);
        assert!(of(&values, &straight).running < 200_000_000);
        assert!(of(&values, &sheared).running >= 420_000_000);
        let huge = Extent::new([usize::MAX; 3], Affine::IDENTITY);
        assert_eq!(of(&values, &huge).running, u64::MAX);
    }
}
