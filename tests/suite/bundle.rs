//! Bundles exactly as the model zoo publishes them, and bundles that nobody should publish.

use std::path::{Path, PathBuf};

use ahi_inference::bundle::{Bundle, BundleConfig, Component, Extent, Stage, check_report};
use ahi_inference::error::ErrorKind;
use serde_json::{Value, json};

use crate::common::shared;

fn published(name: &str) -> Option<PathBuf> {
    shared(&format!("bundles/{name}"))
}

/// Formats each component as `Target {arguments}`.
fn lines(components: &[Component]) -> Vec<String> {
    let line = |c: &Component| format!("{} {}", c.target, Value::Object(c.args.clone()));
    components.iter().map(line).collect()
}

fn targets(components: &[Component]) -> Vec<&str> {
    components.iter().map(|c| c.target.as_str()).collect()
}

fn argument<'a>(components: &'a [Component], target: &str, key: &str) -> &'a Value {
    let found = components.iter().find(|component| component.target == target);
    &found.unwrap_or_else(|| panic!("no {target}")).args[key]
}

/// Returns problems as `file: path: message`, except the one about the network, which is published separately.
fn problems(dir: &Path) -> Vec<String> {
    let report = check_report(dir, &|_, component| Ok(component.target.clone())).unwrap();
    let all = report.all_problems().into_iter();
    all.filter(|problem| !problem.file.ends_with(".onnx")).map(ToString::to_string).collect()
}

#[test]
fn spleen_is_read_whole() {
    let Some(dir) = published("spleen_ct_segmentation") else { return };
    let config = BundleConfig::read(&dir).unwrap();
    assert_eq!(
        (config.name.as_str(), config.version.as_str()),
        ("Spleen CT segmentation", "0.5.9")
    );
    assert_eq!(
        lines(&config.preprocessing),
        [
            r#"LoadImaged {"keys":"image"}"#,
            r#"EnsureChannelFirstd {"keys":"image"}"#,
            r#"Orientationd {"keys":"image","axcodes":"RAS"}"#,
            r#"Spacingd {"keys":"image","pixdim":[1.5,1.5,2.0],"mode":"bilinear"}"#,
            r#"ScaleIntensityRanged {"keys":"image","a_min":-57,"a_max":164,"b_min":0,"b_max":1,"clip":true}"#,
            r#"EnsureTyped {"keys":"image"}"#,
        ]
    );
    assert_eq!(
        lines(&[config.inferer]),
        [r#"SlidingWindowInferer {"roi_size":[96,96,96],"sw_batch_size":4,"overlap":0.5}"#]
    );
    assert_eq!(
        lines(&config.postprocessing),
        [
            r#"Activationsd {"keys":"pred","softmax":true}"#,
            r#"Invertd {"keys":"pred","transform":{"$ref":"preprocessing"},"orig_keys":"image","nearest_interp":false,"to_tensor":true}"#,
            r#"AsDiscreted {"keys":"pred","argmax":true}"#,
            r#"SaveImaged {"keys":"pred","output_dir":"./eval","output_ext":".nii.gz","output_dtype":{"$symbol":"numpy.float32"},"output_postfix":"trans","separate_folder":true}"#,
        ]
    );
    assert_eq!(config.preprocessing_id, "preprocessing");
    assert_eq!(config.image_keys, ["image"]);
    assert_eq!(config.warnings, Vec::<String>::new());
    let (input, output) = (&config.network.inputs[0], &config.network.outputs[0]);
    assert_eq!((input.name.as_str(), input.modality.as_deref()), ("image", Some("CT")));
    assert_eq!(input.spatial_shape, vec![Extent::Fixed(96); 3]);
    assert_eq!((output.name.as_str(), output.num_channels), ("pred", Some(2)));
    assert_eq!(output.channel_def[&1], "spleen");
}

#[test]
fn whole_body_takes_its_resolution_from_a_condition() {
    let Some(dir) = published("wholeBody_ct_segmentation") else { return };
    let config = BundleConfig::read(&dir).unwrap();
    assert_eq!(argument(&config.preprocessing, "Spacingd", "pixdim"), &json!([1.5, 1.5, 1.5]));
    assert_eq!(argument(&config.preprocessing, "NormalizeIntensityd", "nonzero"), &json!(true));
    assert_eq!(
        Value::Object(config.inferer.args),
        json!({
            "roi_size": [96, 96, 96], "sw_batch_size": 1, "overlap": 0.25,
            "padding_mode": "replicate", "mode": "gaussian",
            "device": {"$symbol":
                "torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')"},
        })
    );
    assert_eq!(
        targets(&config.postprocessing),
        ["Activationsd", "AsDiscreted", "Invertd", "SaveImaged"]
    );
    assert_eq!(config.network.outputs[0].channel_def.len(), 105);
}

#[test]
fn whole_body_at_low_resolution() {
    let Some(dir) = published("wholeBody_ct_segmentation") else { return };
    let text = std::fs::read_to_string(dir.join("configs/inference.json")).unwrap();
    let mut inference: Value = serde_json::from_str(&text).unwrap();
    inference["displayable_configs"]["highres"] = json!(false);
    let low = bundle(&inference.to_string());
    let config = BundleConfig::read(low.path()).unwrap();
    assert_eq!(argument(&config.preprocessing, "Spacingd", "pixdim"), &json!([3.0, 3.0, 3.0]));
}

#[test]
fn other_segmentations_are_read_whole() {
    let post = ["Activationsd", "Invertd", "AsDiscreted", "SaveImaged"];
    for (name, pre, channels) in [
        ("swin_unetr_btcv_segmentation", 6, 14),
        ("renalStructures_UNEST_segmentation", 6, 4),
        ("wholeBrainSeg_Large_UNEST_segmentation", 4, 133),
        ("ventricular_short_axis_3label", 4, 4),
    ] {
        let Some(dir) = published(name) else { return };
        let config = BundleConfig::read(&dir).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(config.preprocessing.len(), pre, "{name}");
        assert_eq!(config.preprocessing[0].target, "LoadImaged", "{name}");
        assert_eq!(targets(&config.postprocessing), post, "{name}");
        assert_eq!(config.network.outputs[0].num_channels, Some(channels), "{name}");
        assert_eq!(config.network.outputs[0].channel_def.len(), channels, "{name}");
        assert_eq!(config.warnings, Vec::<String>::new(), "{name}");
    }
}

#[test]
fn peculiarities_of_single_bundles_are_kept() {
    let read = |name| published(name).map(|dir| BundleConfig::read(&dir).unwrap());
    if let Some(brain) = read("wholeBrainSeg_Large_UNEST_segmentation") {
        let nonzero = argument(&brain.preprocessing, "NormalizeIntensityd", "nonzero");
        assert_eq!(nonzero, &json!("True"));
        assert_eq!(brain.inferer.args["overlap"], json!(0.7));
    }
    if let Some(renal) = read("renalStructures_UNEST_segmentation") {
        let dim = argument(&renal.preprocessing, "EnsureChannelFirstd", "channel_dim");
        assert_eq!(dim, &json!("no_channel"));
    }
    if let Some(btcv) = read("swin_unetr_btcv_segmentation") {
        assert_eq!(argument(&btcv.preprocessing, "LoadImaged", "reader"), &json!("ITKReader"));
    }
    if let Some(heart) = read("ventricular_short_axis_3label") {
        assert_eq!(heart.inferer.target, "SliceInferer");
        assert_eq!(heart.inferer.args["roi_size"], json!([256, 256]));
        assert_eq!(heart.inferer.args["spatial_dim"], json!(2));
    }
}

#[test]
fn prostate_discretises_before_it_inverts() {
    let Some(dir) = published("prostate_mri_anatomy") else { return };
    let config = BundleConfig::read(&dir).unwrap();
    assert_eq!(argument(&config.preprocessing, "Spacingd", "pixdim"), &json!([0.5, 0.5, 0.5]));
    assert_eq!(
        targets(&config.postprocessing),
        ["AsDiscreted", "KeepLargestConnectedComponentd", "Invertd", "SaveImaged"]
    );
    let labels =
        argument(&config.postprocessing, "KeepLargestConnectedComponentd", "applied_labels");
    assert_eq!(labels, &json!([1, 2]));
    assert_eq!(config.network.outputs[0].format.as_deref(), Some("labels"));
}

#[test]
fn brats_keeps_its_lambda() {
    let Some(dir) = published("brats_mri_segmentation") else { return };
    let config = BundleConfig::read(&dir).unwrap();
    assert_eq!(
        argument(&config.postprocessing, "Lambdad", "func"),
        &json!({"$lambda": {
            "params": ["x"],
            "body": "torch.where(x[[2]] > 0, 4, torch.where(x[[0]] > 0, 1, \
                     torch.where(x[[1]] > 0, 2, 0)))",
        }})
    );
    assert_eq!(argument(&config.postprocessing, "AsDiscreted", "threshold"), &json!(0.5));
    let input = &config.network.inputs[0];
    assert_eq!(input.num_channels, Some(4));
    assert_eq!(input.spatial_shape, vec![Extent::Formula("8*n".to_owned()); 3]);
    assert_eq!(input.channel_def[&3], "FLAIR");
}

#[test]
fn what_is_no_plain_segmentation_is_refused_with_reasons() {
    let refused = |name: &str, expected: &[&str]| {
        let Some(dir) = published(name) else { return };
        assert_eq!(problems(&dir), expected, "{name}");
        let error = BundleConfig::read(&dir).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidModel, "{name}");
        assert!(error.message().contains(expected[0]), "{name}: {error}");
    };
    refused(
        "lung_nodule_ct_detection",
        &[
            "configs/inference.json: evaluator#_target_: evaluator \
             `scripts.evaluator.DetectionEvaluator` is not supported, only SupervisedEvaluator is",
            "configs/metadata.json: network_data_format#outputs#pred#type: the output is of type \
             `object`: only segmentations are served",
        ],
    );
    refused(
        "breast_density_classification",
        &["configs/metadata.json: network_data_format#outputs#pred#spatial_shape: the output's \
           shape [1, 4] is not that of the input [299, 299]: only segmentations are served"],
    );
    refused(
        "vista3d",
        &[
            "configs/inference.json: evaluator#_target_: evaluator \
             `scripts.evaluator.Vista3dEvaluator` is not supported, only SupervisedEvaluator is",
            "configs/inference.json: preprocessing_transforms#5#labels_dict: needs `metadata`: \
             expression `$json.loads(pathlib.Path(@metadata_path).read_text())` calls \
             `json.loads`, which is not evaluated here",
        ],
    );
}

#[test]
fn a_complete_bundle_opens_and_its_check_passes() {
    let Some(dir) = shared("models/ct_bone_unet") else { return };
    let bundle = Bundle::open(&dir).unwrap();
    assert_eq!(bundle.model_path, dir.join("models/model.onnx"));
    assert_eq!(bundle.config.network.outputs[0].channel_def[&1], "bone");

    let report =
        check_report(&dir, &|stage, component| Ok(format!("{stage} runs {}", component.target)));
    let report = report.unwrap();
    assert!(report.runs, "{report}");
    let text = report.to_string();
    assert!(text.contains("ok        Spacingd"), "{text}");
    assert!(text.contains("→ preprocessing runs Spacingd"), "{text}");
    assert!(text.ends_with("this bundle can be served\n"), "{text}");
}

#[test]
fn a_check_shows_every_refusal_and_what_is_switched_off() {
    let Some(dir) = published("lung_nodule_ct_detection") else { return };
    let report = check_report(&dir, &|stage, component| match stage {
        Stage::Preprocessing => Ok(component.target.clone()),
        _ => Err(ahi_inference::error::Error::new(
            ErrorKind::InvalidModel,
            format!("`{}` is not supported", component.target),
        )),
    });
    let report = report.unwrap();
    let text = report.to_string();
    for part in [
        "disabled  Spacingd (preprocessing#transforms#4)",
        "fails     scripts.detection_inferer.RetinaNetInferer (inferer)",
        "postprocessing#transforms#2: `ConvertBoxModed` is not supported",
        "models/model.onnx: is missing",
        "cannot be served: 8 problems",
    ] {
        assert!(text.contains(part), "{part:?} in {text}");
    }
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["runs"], json!(false));
    assert_eq!(json["stages"][0]["components"][1]["outcome"], json!("disabled"));
    let refusal = &json["stages"][2]["components"][0];
    assert_eq!(refusal["outcome"], json!("fails"));
    assert_eq!(refusal["problems"][0]["path"], json!("postprocessing#transforms#0"));
}

/// Creates a bundle folder with this text as its configuration.
fn bundle(inference: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("configs")).unwrap();
    std::fs::write(dir.path().join("configs/inference.json"), inference).unwrap();
    dir
}

#[test]
fn hostile_files_are_refused_with_the_file_named() {
    let deep = "[".repeat(200_000);
    let large = format!("[{}1]", "1,".repeat(3 << 20));
    for (text, reason) in [
        ("", "is not valid JSON"),
        ("{\"a\": NaN}", "is not valid JSON"),
        ("[1]", "is not an object"),
        ("\u{feff}{}", "is not valid JSON"),
        (deep.as_str(), "recursion limit"),
        (large.as_str(), "is larger than 4 MiB"),
        ("{}", "there is no `preprocessing`"),
    ] {
        let dir = bundle(text);
        let error = BundleConfig::read(dir.path()).unwrap_err();
        let message = error.message();
        assert_eq!(error.kind(), ErrorKind::InvalidModel);
        assert!(message.contains("configs/inference.json"), "{message}");
        assert!(message.contains(reason), "{reason:?} in {message}");
    }
}

#[test]
fn nothing_is_run_and_no_other_file_is_read() {
    let secret = "s3cret-content";
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("x.json"), format!("\"{secret}\"")).unwrap();
    let path = outside.path().join("x.json").display().to_string();
    for value in [
        format!("%{path}"),
        format!("$open('{path}').read()"),
        format!("$__import__('os').system('touch {path}.touched')"),
        "$().__class__.__bases__[0].__subclasses__()".to_owned(),
        "$(lambda: 1)()".to_owned(),
        "$eval('1')".to_owned(),
    ] {
        let config = json!({
            "preprocessing": [{"_target_": "A", "x": value}],
            "inferer": {"_target_": "SimpleInferer"},
        });
        let dir = bundle(&config.to_string());
        let message = BundleConfig::read(dir.path()).unwrap_err().to_string();
        assert!(message.contains("preprocessing#0#x"), "{message}");
        assert!(!message.contains(secret), "{message}");
    }
    assert!(!outside.path().join("x.json.touched").exists());
}
