//! Rewrites normalisations over large windows before a network is loaded on a CPU.
//!
//! ONNX Runtime's CPU kernels of `InstanceNormalization` (and of `GroupNormalization`, which it
//! decomposes) sum all values of a channel or group sequentially in f32. Over millions of voxels, that
//! loses most of the low-order digits: errors are around 1e-2 where PyTorch's are around 1e-5, and one
//! label in a thousand differs. Here, mean and variance are computed in two stages: over rows of at
//! most [`LONGEST_ROW`](nodes::LONGEST_ROW) values, then over the rows. The model file is not modified.

mod nodes;
mod rewrite;
mod survey;

pub(super) use rewrite::rewritten;
pub(super) use survey::Survey;

#[cfg(test)]
mod tests {
    use ndarray::{Array5, Axis, s};

    use super::survey::tests::{attribute, model, node, value_info, vector};
    use crate::inference::network::{Network, OnnxNetwork, Share};
    use crate::inference::protobuf::{put_fixed32, put_number};
    use crate::inference::provider::ProviderChoice;
    use crate::inference::settings::NetworkSettings;

    /// The expected result in f64, with each group of channels normalised separately.
    fn expected(image: &Array5<f32>, groups: usize, epsilon: f64) -> Array5<f64> {
        let mut out = image.mapv(f64::from);
        let each = out.dim().1 / groups;
        for mut sample in out.axis_iter_mut(Axis(0)) {
            for group in 0..groups {
                let mut values = sample.slice_mut(s![group * each..(group + 1) * each, .., .., ..]);
                let mean = values.mean().unwrap();
                let variance = values.mapv(|v| (v - mean).powi(2)).mean().unwrap();
                values.mapv_inplace(|v| (v - mean) / (variance + epsilon).sqrt());
            }
        }
        out
    }

    /// Half air, half tissue with a little noise: sums that grow.
    fn image(batch: usize, channels: usize, [x, y, z]: [usize; 3]) -> Array5<f32> {
        let mut state = 1_u32;
        Array5::from_shape_simple_fn((batch, channels, x, y, z), || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let noise = (state >> 8) as f32 / (1 << 24) as f32;
            if state.is_multiple_of(5) { 0.1 * noise } else { 3.0 + 0.3 * noise }
        })
    }

    fn run(network: &OnnxNetwork, image: &Array5<f32>) -> Array5<f32> {
        let mut found = None;
        network
            .run(image.view(), Share::All, &mut |result| {
                found = Some(result.to_owned());
                Ok(())
            })
            .unwrap();
        found.unwrap()
    }

    #[test]
    fn norms_over_large_windows_are_accurate() {
        let provider = ProviderChoice::Cpu;
        let settings =
            NetworkSettings { provider, threads: Some(1), side_by_side: 1, ..Default::default() };
        let epsilon = 1e-3_f32;
        let attributes = |groups: u64| {
            vec![
                attribute("epsilon", |out| put_fixed32(out, 2, epsilon.to_le_bytes())),
                attribute("num_groups", |out| put_number(out, 3, groups)),
            ]
        };
        let dir = tempfile::tempdir().unwrap();
        let scales = [1.5, -0.5, 2.0, 1.0];
        let shifts = [0.0, 1.0, -1.0, 0.5];
        for (what, opset, groups, dims) in [
            ("instances", 17, 4, [128, 128, 96]),
            ("instances", 21, 4, [96, 96, 97]),
            ("groups, scaled by channel", 21, 2, [128, 96, 96]),
            ("one group", 21, 1, [61, 59, 53]),
        ] {
            let (operator, attributes) = match what {
                "instances" => ("InstanceNormalization", attributes(0)[..1].to_vec()),
                _ => ("GroupNormalization", attributes(groups as u64)),
            };
            let nodes = [node(operator, &["image", "scale", "bias"], "pred", &attributes)];
            let mut bytes =
                model(opset, &nodes, &[vector("scale", 1, &scales), vector("bias", 1, &shifts)]);
            value_info(&mut bytes, &["batch", "4", "x", "y", "z"]);
            let path = dir.path().join("model.onnx");
            std::fs::write(&path, &bytes).unwrap();
            let network = match OnnxNetwork::load(&path, &settings) {
                Ok(network) => network,
                Err(e) if e.kind() == crate::error::ErrorKind::Configuration => {
                    println!("skipped: {e}");
                    return;
                }
                Err(e) => panic!("{e}"),
            };
            assert_eq!(network.norms_in_two_stages(), 1);
            let image = image(2, 4, dims);
            let found = run(&network, &image);
            let mut worst = 0.0_f64;
            for ((n, c, x, y, z), exact) in
                expected(&image, groups, f64::from(epsilon)).indexed_iter()
            {
                let exact = exact * f64::from(scales[c]) + f64::from(shifts[c]);
                worst = worst.max((f64::from(found[[n, c, x, y, z]]) - exact).abs());
            }
            println!("{what} of {dims:?}: largest error {worst:e}");
            assert!(worst < 3e-6, "{what} of {dims:?}: {worst:e}");
        }
    }
}
