//! Predicts the memory that postprocessing needs, before anything is computed.

use super::back::PLANES;
use super::components::LabelOperation;
use super::oblique::{PIECE, Reach};
use super::plan::{Form, PostPlan};
use crate::transforms::{Extent, Way, voxels};

const F32: u64 = size_of::<f32>() as u64;

/// Bytes per voxel of the image for finding connected components: runs of voxels and the structures
/// that join them. A label map of solid organs needs less than one byte, noise of single voxels six.
const COMPONENTS: u64 = 8;

/// Rows that arrive together, plus those that wait for the next ones.
const ROWS: u64 = 24;

/// Bytes held by postprocessing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PostForecast {
    /// While the network runs.
    pub running: u64,
    /// Afterwards, including what was held while it ran.
    pub finishing: u64,
    /// The segmentation itself.
    pub result: u64,
}

impl PostPlan {
    /// Predicts the memory for a result of `classes` on the grid of `network`, computed from windows
    /// that are `depth` voxels deep along X, and mapped back to a grid of size `source`.
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
        let forms = self.forms();
        let masks = forms.contains(&Form::Masks);
        let sets = forms.iter().any(|form| matches!(form, Form::Sets(_)));
        let channels = if masks { classes } else { 1 };
        // Sets of classes are two-byte codes, held besides the labels they were made from.
        let bytes = if sets { channels + 2 } else { channels };
        let result = times(outer, bytes);
        let components = |operations: &[LabelOperation], voxels: u64| {
            let some = operations.iter().any(|o| {
                !matches!(o, LabelOperation::Filter { .. } | LabelOperation::Threshold(_))
            });
            // In one-hot channels, the background has components too, and one channel is temporarily a
            // mask.
            let each = if sets { 2 * COMPONENTS + 1 } else { times(COMPONENTS, channels) };
            if some { times(voxels, each) } else { 0 }
        };
        // One channel during mapping back: its values, a copy if there are several steps, and the
        // values on the source's grid.
        let straight = matches!(network.way, Way::Copied | Way::Straight);
        let copies = if straight { 1 } else { 2 };
        let back = sum(&[times(inner, F32 * copies), times(outer, F32 * copies)]);
        let [_, y, z] = network.dims.map(|n| n as u64);
        // The reach of each piece of output lines is recorded.
        let noted = if straight { 0 } else { outer / PIECE as u64 * size_of::<Reach>() as u64 };
        let streams = network.way != Way::Steps;
        let (running, finishing) = if self.before.is_some() {
            let labels = times(inner, bytes);
            let operations = components(&self.operations_before, inner);
            let back = if self.nearest() {
                // A nearest-voxel lookup; with several masks, one exists twice.
                if channels > 1 { outer } else { 0 }
            } else if streams {
                let channels = forms.iter().fold(channels, |most, form| match form {
                    Form::Sets(classes) => most.max(*classes as u64),
                    _ => most,
                });
                // Planes being computed, and the planes held from them.
                let planes = 3 * PLANES as u64;
                sum(&[times(times(times(y, z), channels), F32 * planes), noted])
            } else {
                back
            };
            (labels, sum(&[labels, operations.max(sum(&[back, result]))]))
        } else if streams {
            let rows = sum(&[times(depth as u64, ROWS), times(y, 4)]);
            let held = times(times(rows, z), times(classes, F32));
            (sum(&[result, held, noted]), result)
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
    use crate::transforms::{Forecast, Preprocessing};
    use crate::volume::Affine;

    fn components(list: &[(&str, Value)]) -> Vec<Component> {
        list.iter()
            .map(|(target, args)| Component {
                target: (*target).to_owned(),
                args: args.as_object().unwrap().clone(),
                path: "processing".to_owned(),
            })
            .collect()
    }

    fn plan(list: &[(&str, Value)]) -> PostPlan {
        PostPlan::new(&components(list)).unwrap()
    }

    #[test]
    fn values_of_all_classes_are_held_by_no_orientation() {
        let argmax = ("AsDiscreted", json!({"argmax": true}));
        let invert = ("Invertd", json!({"nearest_interp": false}));
        let labels = plan(&[argmax.clone(), ("Invertd", json!({}))]);
        let interpolated = plan(&[argmax.clone(), invert.clone()]);
        let values = plan(&[invert, argmax]);
        let straight = Extent::new([100, 100, 100], Affine::IDENTITY);
        let with = |way| Extent { way, ..straight };
        let source = [200, 200, 100];
        let of = |plan: &PostPlan, network: &Extent| plan.forecast(network, 96, source, 105);
        assert_eq!(of(&labels, &straight).running, 1_000_000);
        assert_eq!(of(&labels, &straight).result, 4_000_000);
        assert!(of(&interpolated, &with(Way::Oblique)).finishing < 20_000_000);
        let axial = of(&values, &straight).running;
        assert!(axial < 200_000_000);
        assert!(of(&values, &with(Way::Oblique)).running * 10 < axial * 12);
        assert!(of(&values, &with(Way::Steps)).running >= 420_000_000);
        let huge = Extent::new([usize::MAX; 3], Affine::IDENTITY);
        assert_eq!(of(&values, &huge).running, u64::MAX);
    }

    /// An oblique CT of 512 × 512 × 300 at 1.5 mm, as scanners write it, compared with the axial one.
    #[test]
    fn an_oblique_ct_takes_what_an_axial_one_takes_and_a_fifth() {
        let chain = [
            ("Orientationd", json!({"axcodes": "RAS"})),
            ("Spacingd", json!({"pixdim": [1.5, 1.5, 1.5], "mode": "bilinear"})),
        ];
        let chain = Preprocessing::new(&components(&chain), &["image".to_owned()]).unwrap();
        let dims = [512, 512, 300];
        let network = |x: [f64; 3], y: [f64; 3], z: [f64; 3]| {
            let spacing = [0.9765625, 0.9765625, 1.5];
            let columns =
                [x.map(|v| -v * spacing[0]), y.map(|v| -v * spacing[1]), z.map(|v| v * spacing[2])];
            let affine = Affine::from_columns(columns, [100.0, 200.0, -300.0]);
            chain.forecast(vec![Extent::new(dims, affine)]).unwrap()
        };
        let axial = network([1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]);
        let oblique = network(
            [0.988741, 0.086504, 0.121869],
            [-0.108854, 0.975385, 0.190809],
            [-0.102364, -0.201927, 0.974036],
        );
        assert_eq!((axial.result.way, oblique.result.way), (Way::Straight, Way::Oblique));
        let argmax = ("AsDiscreted", json!({"argmax": true}));
        let onehot = ("AsDiscreted", json!({"argmax": true, "to_onehot": 105}));
        let invert = ("Invertd", json!({"nearest_interp": false}));
        for list in [
            vec![invert.clone(), argmax.clone()],
            vec![argmax.clone(), ("Invertd", json!({}))],
            vec![argmax, invert.clone()],
            vec![invert, onehot, ("FillHolesd", json!({}))],
        ] {
            let plan = plan(&list);
            let peak = |forecast: &Forecast| {
                let after = plan.forecast(&forecast.result, 96, dims, 105);
                let image = forecast.result.bytes();
                forecast.peak.max(image + after.running).max(after.finishing)
            };
            let (axial, oblique) = (peak(&axial), peak(&oblique));
            assert!(oblique * 10 <= axial * 12, "{oblique} beside {axial}: {list:?}");
            assert!(oblique < 2 << 30, "{oblique}: {list:?}");
        }
    }

    #[test]
    fn one_hot_channels_are_never_made() {
        let argmax = ("AsDiscreted", json!({"argmax": true, "to_onehot": 105}));
        let fill = ("FillHolesd", json!({}));
        let plan = plan(&[("Invertd", json!({})), argmax, fill]);
        let network = Extent::new([100, 100, 100], Affine::IDENTITY);
        let forecast = plan.forecast(&network, 96, [100, 100, 100], 105);
        assert!(forecast.finishing < 25_000_000, "{forecast:?}");
    }
}
