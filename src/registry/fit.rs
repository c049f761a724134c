//! Checks that a network matches its bundle's configuration.

use crate::bundle::BundleConfig;
use crate::error::{Error, ErrorKind, Result};
use crate::inference::{Inferer, NetworkShape};

/// How to export a network that matches.
const AGAIN: &str = "export it again with model/export_monai_bundle.py";

/// Returns all mismatches between a network of `shape` and the requirements of `config` and
/// `inferer`.
pub(super) fn faults(config: &BundleConfig, inferer: &Inferer, shape: NetworkShape) -> Vec<Error> {
    let invalid = |message: String| Error::new(ErrorKind::InvalidModel, message);
    let mut faults = Vec::new();
    // With several inputs, the bundle's transforms combine the channels in their own way.
    let takes = match &config.network.inputs[..] {
        [only] => only.num_channels,
        _ => None,
    };
    let gives = config.network.outputs.first().and_then(|output| output.num_channels);
    for (does, has, says) in
        [("takes", shape.input_channels, takes), ("gives", shape.output_channels, gives)]
    {
        if let (Some(has), Some(says)) = (has, says)
            && has != says
        {
            faults.push(invalid(format!(
                "models/model.onnx {does} {has} channels, configs/metadata.json describes {says}; {AGAIN}, or \
                 correct num_channels"
            )));
        }
    }
    faults.extend(
        inferer.mismatch(shape).map(|why| invalid(format!("models/model.onnx {why}; {AGAIN}"))),
    );
    faults
}

/// Returns the first mismatch as an error, if any.
pub(super) fn ensure(config: &BundleConfig, inferer: &Inferer, shape: NetworkShape) -> Result<()> {
    faults(config, inferer, shape).into_iter().next().map_or(Ok(()), Err)
}

/// Returns notes on peculiarities of a network that matches.
pub(super) fn notes(inferer: &Inferer, shape: NetworkShape) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(batch) = shape.batch
        && batch != inferer.batch_size()
    {
        notes.push(format!(
            "models/model.onnx runs {batch} windows at a time, whatever sw_batch_size says; batches are filled up"
        ));
    }
    if inferer.takes_images_whole() && shape.spatial.iter().all(Option::is_some) {
        let sizes: Vec<String> = shape.spatial.iter().flatten().map(usize::to_string).collect();
        notes.push(format!(
            "models/model.onnx takes {} voxels only, and the inferer gives it whole images: the preprocessing has \
             to bring them to that size",
            sizes.join(" × ")
        ));
    }
    notes
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::bundle::Component;

    fn config(inferer: &serde_json::Value) -> (BundleConfig, Inferer) {
        let inference = json!({
            "preprocessing": {"_target_": "Compose", "transforms": [{"_target_": "LoadImaged", "keys": "image"}]},
            "inferer": inferer,
            "postprocessing": {"_target_": "Compose", "transforms": [{"_target_": "AsDiscreted", "keys": "pred", "argmax": true}]},
        });
        let metadata = json!({"name": "n", "version": "1", "network_data_format": {
            "inputs": {"image": {"type": "image", "num_channels": 1, "spatial_shape": [16, 16, 16], "channel_def": {"0": "image"}}},
            "outputs": {"pred": {"type": "image", "format": "segmentation", "num_channels": 2, "spatial_shape": [16, 16, 16],
                                 "channel_def": {"0": "background", "1": "organ"}}}}});
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("configs")).unwrap();
        for (name, content) in [("inference", inference), ("metadata", metadata)] {
            std::fs::write(dir.path().join(format!("configs/{name}.json")), content.to_string())
                .unwrap();
        }
        let config = BundleConfig::read(dir.path()).unwrap();
        let component: &Component = &config.inferer;
        let inferer = Inferer::from_component(component, None).unwrap();
        (config, inferer)
    }

    fn shape(channels: usize, spatial: [Option<usize>; 3], classes: usize) -> NetworkShape {
        NetworkShape {
            batch: None,
            input_channels: Some(channels),
            spatial,
            output_channels: Some(classes),
            planar: false,
        }
    }

    #[test]
    fn what_does_not_fit_is_told_with_what_to_do() {
        let (config, inferer) =
            config(&json!({"_target_": "SlidingWindowInferer", "roi_size": [16, 16, 16]}));
        let fits = shape(1, [Some(16), None, Some(16)], 2);
        assert!(faults(&config, &inferer, fits).is_empty());
        assert!(ensure(&config, &inferer, NetworkShape::default()).is_ok(), "nothing is fixed");
        let messages = |shape| -> Vec<String> {
            faults(&config, &inferer, shape).iter().map(|e| e.message().to_owned()).collect()
        };
        let window = messages(shape(1, [Some(16), Some(32), Some(16)], 2));
        assert_eq!(window.len(), 1);
        for part in ["takes windows of 16 × 32 × 16", "gives it 16 × 16 × 16", "export it again"]
        {
            assert!(window[0].contains(part), "{part}: {window:?}");
        }
        let all = messages(shape(4, [Some(8); 3], 3));
        assert_eq!(all.len(), 3, "{all:?}");
        assert!(all[0].contains("takes 4 channels, configs/metadata.json describes 1"));
        assert!(all[1].contains("gives 3 channels, configs/metadata.json describes 2"));
        let slices = messages(NetworkShape { planar: true, ..fits });
        assert!(
            slices[0].contains("takes slices, the bundle's inferer gives it volumes"),
            "{slices:?}"
        );
    }

    #[test]
    fn a_batch_and_an_image_of_one_size_are_remarked_on() {
        let (_, windows) = config(
            &json!({"_target_": "SlidingWindowInferer", "roi_size": 16, "sw_batch_size": 4}),
        );
        let fixed = NetworkShape { batch: Some(2), ..shape(1, [Some(16); 3], 2) };
        assert!(notes(&windows, fixed)[0].contains("2 windows at a time"));
        assert!(notes(&windows, shape(1, [Some(16); 3], 2)).is_empty());
        let (config, whole) = config(&json!({"_target_": "SimpleInferer"}));
        assert!(notes(&whole, fixed).iter().any(|note| note.contains("16 × 16 × 16 voxels only")));
        assert!(faults(&config, &whole, fixed).is_empty());
    }
}
