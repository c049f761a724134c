//! Tests of the configuration language, feature by feature, on small configurations.

use std::path::Path;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// Creates a bundle folder with this configuration.
fn bundle(inference: &Value) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("configs")).unwrap();
    write(dir.path(), "inference.json", inference);
    write(dir.path(), "metadata.json", &json!({"name": "n", "network_data_format": {}}));
    dir
}

fn write(dir: &Path, name: &str, content: &Value) {
    std::fs::write(dir.join("configs").join(name), content.to_string()).unwrap();
}

/// Creates a configuration with a preprocessing and further items.
fn around(preprocessing: Value, items: Value) -> Value {
    let mut config = json!({
        "preprocessing": preprocessing,
        "inferer": {"_target_": "SimpleInferer"},
        "postprocessing": {"_target_": "Compose", "transforms": []},
    });
    config.as_object_mut().unwrap().extend(items.as_object().unwrap().clone());
    config
}

/// Returns the resolved arguments of a single transform `{"_target_": "T", ...args}`, or the problems.
fn args(args: Value, items: Value) -> Result<Value, Vec<String>> {
    let mut transform = json!({"_target_": "T"});
    transform.as_object_mut().unwrap().extend(args.as_object().unwrap().clone());
    let dir = bundle(&around(json!([transform]), items));
    read(&dir).map(|config| Value::Object(config.preprocessing[0].args.clone()))
}

fn read(dir: &tempfile::TempDir) -> Result<BundleConfig, Vec<String>> {
    let report = check_report(dir.path(), &|_, _| Ok(String::new())).unwrap();
    let problems: Vec<String> = report
        .all_problems()
        .into_iter()
        .filter(|problem| problem.file != MODEL_FILE)
        .map(|problem| format!("{}: {}", problem.path, problem.message))
        .collect();
    let config = BundleConfig::read(dir.path());
    assert_eq!(config.is_err(), !problems.is_empty(), "{config:?} {problems:?}");
    config.map_err(|_| problems)
}

#[track_caller]
fn fails(result: Result<impl std::fmt::Debug, Vec<String>>, part: &str) {
    let problems = result.expect_err(part);
    assert!(problems.iter().any(|problem| problem.contains(part)), "{part:?} in {problems:#?}");
}

fn targets(config: &BundleConfig) -> Vec<&str> {
    config.preprocessing.iter().map(|c| c.target.as_str()).collect()
}

#[test]
fn references_anywhere_in_arguments() {
    let items = json!({"k": "image", "spacing": {"fine": [1.5, "$@half * 4"]}, "half": 0.5});
    let given = json!({"keys": ["@k", "b"], "d": {"x": "@spacing#fine"}, "y": "@spacing::fine::1",
        "z": "$[@half, @k]", "mail": "a@k", "relative": {"up": "@##mail"}});
    let expected = json!({"keys": ["image", "b"], "d": {"x": [1.5, 2.0]}, "y": 2.0,
        "z": [0.5, "image"], "mail": "a@k", "relative": {"up": "a@k"}});
    assert_eq!(args(given, items).unwrap(), expected);
}

#[test]
fn a_reference_to_nothing_names_both_ends() {
    let result = args(json!({"pixdim": "@spacing#fine"}), json!({"spacing": {}}));
    fails(
        result,
        "preprocessing#0#pixdim: refers to `@spacing#fine`, which is not to be had: there is no \
         item `fine` in `spacing`",
    );
    fails(args(json!({"a": "$1 + @gone"}), json!({})), "no item `gone` in the configuration");
    fails(args(json!({"a": "@"}), json!({})), "which is no item");
    fails(args(json!({"a": "@#######x"}), json!({})), "which is no item");
}

#[test]
fn macros_bring_in_content_of_this_and_other_files() {
    let config = around(
        json!("%other.json#chains::0"),
        json!({"postprocessing": {"_target_": "Compose", "transforms": "%list"},
               "list": [{"_target_": "A", "n": "%list#1#n"}, {"_target_": "B", "n": 4}]}),
    );
    let dir = bundle(&config);
    let chain = json!({"chains": [[{"_target_": "LoadImaged", "keys": "@inferer#name"}]]});
    write(dir.path(), "other.json", &chain);
    fails(read(&dir), "`@inferer#name`");
    write(dir.path(), "other.json", &json!({"chains": [[{"_target_": "X", "keys": "@list#1#n"}]]}));
    let config = read(&dir).unwrap();
    assert_eq!(config.preprocessing[0].args["keys"], json!(4));
    assert_eq!(config.preprocessing[0].path, "other.json#chains#0#0");
    assert_eq!(config.postprocessing[0].args["n"], json!(4));
}

#[test]
fn a_macro_out_of_the_bundle_is_refused() {
    let result = args(json!({"a": "%../../etc/passwd.json#x"}), json!({}));
    fails(result, "lies outside the bundle's `configs` folder");
}

#[test]
fn disabled_components_are_left_out() {
    let chain = json!([
        {"_target_": "A", "_disabled_": true, "x": "$unknown()"},
        {"_target_": "B", "_disabled_": " True "},
        {"_target_": "C", "_disabled_": "@off"},
        {"_target_": "D", "_disabled_": "$not @off"},
        {"_target_": "E", "_disabled_": "no"},
        {"_target_": "F", "_disabled_": 0, "inner": {"_target_": "G", "_disabled_": true}},
    ]);
    let config = read(&bundle(&around(chain, json!({"off": true})))).unwrap();
    assert_eq!(targets(&config), ["D", "E", "F"]);
    assert_eq!(config.preprocessing[2].args, serde_json::Map::new());
}

#[test]
fn compositions_are_flattened() {
    let chain = json!({"_target_": "monai.transforms.Compose", "transforms": [
        {"_target_": "Compose", "transforms": ["@one", {"_target_": "B"}]},
        "$@more + [@one]",
    ]});
    let items = json!({"one": {"_target_": "A"}, "more": [{"_target_": "C"}]});
    let config = read(&bundle(&around(chain, items))).unwrap();
    assert_eq!(targets(&config), ["A", "B", "C", "A"]);
    assert_eq!(config.preprocessing[1].path, "preprocessing#transforms#0#transforms#1");
    assert_eq!(config.preprocessing[2].path, "more#0");
    let one = read(&bundle(&around(json!({"_target_": "A"}), json!({})))).unwrap();
    assert_eq!(targets(&one), ["A"]);
}

#[test]
fn what_changes_a_composition_is_refused() {
    let compose = |key: &str, value: Value| {
        let chain = json!({"_target_": "Compose", "transforms": [], key: value});
        read(&bundle(&around(chain, json!({}))))
    };
    fails(compose("lazy", json!(true)), "preprocessing#lazy: `lazy` with this value");
    fails(compose("overrides", json!({"mode": "nearest"})), "`overrides`");
    fails(compose("map_items", json!(false)), "`map_items`");
    fails(compose("transfroms", json!([])), "`transfroms`");
    assert!(compose("lazy", json!(null)).is_ok());
    fails(read(&bundle(&around(json!([null]), json!({})))), "neither a component nor a list");
    fails(read(&bundle(&around(json!(["$None"]), json!({})))), "gives a None");
    fails(read(&bundle(&around(json!("text"), json!({})))), "neither a component nor a list");
}

#[test]
fn underscored_keys() {
    assert_eq!(args(json!({"_desc_": "x", "_mode_": "default"}), json!({})).unwrap(), json!({}));
    fails(args(json!({"_mode_": "callable"}), json!({})), "#_mode_: only the mode `default`");
    fails(args(json!({"_disable_": true}), json!({})), "`_disable_` is no key");
    fails(args(json!({"_requires_": "$os.system('x')"}), json!({})), "calls `os.system`");
    assert!(args(json!({"_requires_": ["$import os", "@n"]}), json!({"n": 1})).is_ok());
}

#[test]
fn components_as_arguments() {
    let given = json!({"reader": {"_target_": "monai.data.ITKReader", "flip": "@f"},
        "transform": "@preprocessing2", "copy": "$copy.deepcopy(@preprocessing2)",
        "f": ["$lambda x: x>@f"]});
    let items = json!({"f": 1, "preprocessing2": {"_target_": "Compose"}, "i": "$import copy"});
    let expected = json!({
        "reader": {"$component": {"target": "ITKReader", "args": {"flip": 1}}},
        "transform": {"$ref": "preprocessing2"}, "copy": {"$ref": "preprocessing2"},
        "f": [{"$lambda": {"params": ["x"], "body": "x > 1"}}],
    });
    assert_eq!(args(given, items).unwrap(), expected);
    fails(args(json!({"a": {"$ref": "x"}}), json!({})), "keys may not begin with `$`");
}

#[test]
fn arguments_that_are_never_read_need_no_value() {
    let given = json!({"device": "$pick_device(@rank)", "sw_device": "@gone"});
    let expected = json!({"device": {"$unevaluated": "$pick_device(@rank)"},
        "sw_device": {"$unevaluated": "@gone"}});
    assert_eq!(args(given, json!({"rank": 0})).unwrap(), expected);
    let save = json!({"_target_": "SaveImaged", "output_dir": "$os.getcwd()", "resample": "$f()"});
    let problems = read(&bundle(&around(json!([save]), json!({})))).unwrap_err();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].starts_with("preprocessing#0#resample: expression `$f()` calls `f`"));
}

#[test]
fn numbers_keep_their_type() {
    let given = json!({"a": 1, "b": 1.0, "c": -3, "d": u64::MAX});
    fails(args(given, json!({})), "preprocessing#0#d: is an integer of more than 64 bits");
    assert_eq!(
        args(json!({"a": 1, "b": 1.0}), json!({})).unwrap().to_string(),
        r#"{"a":1,"b":1.0}"#
    );
}

#[test]
fn circles_are_named() {
    let values = args(json!({"a": "@x"}), json!({"x": "$@y + 1", "y": ["@x"]}));
    fails(values, "references go in a circle: `x` -> `y` -> `x`");
    let chain = json!({"_target_": "Compose", "transforms": ["@preprocessing"]});
    fails(
        read(&bundle(&around(chain, json!({})))),
        "references go in a circle: `preprocessing` -> `preprocessing`",
    );
    let components = json!({"b": {"_target_": "B", "a": "@c"}, "c": {"_target_": "C", "b": "@b"}});
    fails(args(json!({"a": "@b"}), components), "`b` -> `c` -> `b`");
    fails(args(json!({"a": "%x"}), json!({"x": "%y", "y": "%x"})), "macros go in a circle");
    fails(args(json!({"a": "@x"}), json!({"x": {"y": "%x"}})), "circle: `x` -> `x`");
}

#[test]
fn every_problem_is_collected() {
    let chain = json!([
        {"_target_": "A", "x": "$f()", "y": "@gone", "z": 1},
        {"_target_": "B"},
        {"_target_": "$1 + 1"},
    ]);
    let problems =
        read(&bundle(&around(chain, json!({"inferer": {"_target_": "C", "q": "$g()"}}))))
            .unwrap_err();
    let paths: Vec<&str> = problems.iter().map(|p| p.split(':').next().unwrap()).collect();
    let expected =
        ["preprocessing#0#x", "preprocessing#0#y", "preprocessing#2#_target_", "inferer#q"];
    assert_eq!(paths, expected);
}

#[test]
fn a_problem_elsewhere_is_told_at_the_argument() {
    let result = args(json!({"a": ["@x"]}), json!({"x": "@y", "y": "$open('z')"}));
    fails(
        result,
        "preprocessing#0#a: needs `y`: expression `$open('z')` calls `open`, which is not \
         evaluated here",
    );
}

#[test]
fn the_evaluator_leads_to_the_parts() {
    let mut config = around(
        json!([{"_target_": "Unused"}]),
        json!({
            "chain": [{"_target_": "Used"}],
            "post": {"_target_": "P"},
            "data": {"_target_": "CacheDataset", "transform": "@chain"},
            "loader": {"_target_": "DataLoader", "dataset": "$@data"},
            "evaluator": {"_target_": "SupervisedEvaluator", "val_data_loader": "@loader",
                "inferer": {"_target_": "SliceInferer"}, "postprocessing": "@post"},
        }),
    );
    let read_config = read(&bundle(&config)).unwrap();
    assert_eq!(targets(&read_config), ["Used"]);
    assert_eq!(read_config.preprocessing_id, "chain");
    assert_eq!(read_config.inferer.target, "SliceInferer");
    assert_eq!(read_config.inferer.path, "evaluator#inferer");
    assert_eq!(read_config.postprocessing[0].target, "P");
    let warned = |part: &str| read_config.warnings.iter().any(|w| w.contains(part));
    assert!(warned("`preprocessing` is not used"), "{:?}", read_config.warnings);

    config["evaluator"]["prepare_batch"] = json!("$scripts.prepare");
    fails(read(&bundle(&config)), "evaluator#prepare_batch");
}

#[test]
fn parts_that_are_not_there() {
    let bare = json!({"evaluator": {"_target_": "SupervisedEvaluator", "postprocessing": null},
        "preprocessing_transforms": [{"_target_": "LoadImaged", "keys": ["a", "b", "a"]}]});
    let config = read(&bundle(&bare)).unwrap();
    assert_eq!(config.inferer.target, "SimpleInferer");
    assert_eq!(config.image_keys, ["a", "b"]);
    assert_eq!(config.postprocessing, []);
    fails(read(&bundle(&json!({}))), "there is no `preprocessing`");
    fails(read(&bundle(&json!({}))), "there is no `inferer`");
    let two = json!({"inferer": [{"_target_": "A"}, {"_target_": "B"}]});
    fails(read(&bundle(&around(json!([]), two))), "inferer: gives 2 inferers, not one");
}

#[test]
fn metadata_is_an_item() {
    assert_eq!(args(json!({"n": "@_meta_#name"}), json!({})).unwrap(), json!({"n": "n"}));
}

#[test]
fn files_that_are_not_there() {
    let empty = tempfile::tempdir().unwrap();
    let missing = Bundle::open(&empty.path().join("x")).unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::ModelNotFound);
    let error = Bundle::open(empty.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidModel);
    assert!(error.message().starts_with("configs/inference.json: is missing"), "{error}");

    let dir = bundle(&around(json!([{"_target_": "A"}]), json!({})));
    let error = Bundle::open(dir.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ModelNotFound);
    assert!(error.message().contains("models/model.onnx is missing: export"), "{error}");
    std::fs::create_dir(dir.path().join("models")).unwrap();
    std::fs::write(dir.path().join(MODEL_FILE), "").unwrap();
    assert_eq!(Bundle::open(dir.path()).unwrap().model_path, dir.path().join(MODEL_FILE));

    let configs = dir.path().join("configs");
    std::fs::rename(configs.join("inference.json"), configs.join("inference.yaml")).unwrap();
    assert!(Bundle::open(dir.path()).is_ok());
    std::fs::write(configs.join("inference.yaml"), "preprocessing: '@none'\n").unwrap();
    let error = Bundle::open(dir.path()).unwrap_err();
    assert_eq!(error.details()["file"], "configs/inference.yaml", "{error}");
    std::fs::write(configs.join("inference.json"), r#"{"a": 1, "a": 2}"#).unwrap();
    let error = Bundle::open(dir.path()).unwrap_err();
    assert!(error.message().contains("key \"a\" is given twice"), "{error}");
    assert_eq!(error.details()["file"], "configs/inference.json");
}

/// Reads a hostile configuration on a small stack, as a worker thread might have.
fn read_hostile(config: Value) -> Vec<String> {
    let dir = bundle(&config);
    let reader = std::thread::Builder::new().stack_size(1 << 20);
    reader.spawn(move || read(&dir).unwrap_err()).unwrap().join().unwrap()
}

#[test]
fn depth_is_bounded_on_a_small_stack() {
    let link = |n: usize| (format!("a{n}"), json!(format!("@a{}", n + 1)));
    let long: serde_json::Map<String, Value> = (0..5_000).map(link).collect();
    let problems = read_hostile(around(json!([{"_target_": "A", "x": "@a0"}]), long.into()));
    assert!(problems[0].contains("more than"), "{problems:?}");

    // Deep expressions that refer to one another.
    let sum = |n: usize| {
        let minus = "-".repeat(40);
        (format!("a{n}"), json!(format!("${minus}@a{}{}", n + 1, "+1".repeat(120))))
    };
    let mut deep: serde_json::Map<String, Value> = (0..150).map(sum).collect();
    deep.insert("a150".into(), json!(1));
    let problems = read_hostile(around(json!([{"_target_": "A", "x": "@a0"}]), deep.into()));
    assert!(problems[0].contains("deep"), "{problems:?}");

    let nest = |n: usize| (format!("a{n}"), json!({"_target_": "B", "x": format!("%a{}", n + 1)}));
    let nested: serde_json::Map<String, Value> = (0..500).map(nest).collect();
    let problems = read_hostile(around(json!([{"_target_": "A", "x": "%a0"}]), nested.into()));
    assert!(!problems.is_empty());
}

#[test]
fn work_is_bounded() {
    let double =
        |n: usize| (format!("a{n}"), json!([format!("@a{}", n + 1), format!("@a{}", n + 1)]));
    let mut doubling: serde_json::Map<String, Value> = (0..60).map(double).collect();
    doubling.insert("a60".into(), json!(1));
    let problems = read_hostile(around(json!([{"_target_": "A", "x": "@a0"}]), doubling.into()));
    assert!(problems[0].contains("too much work"), "{problems:?}");

    let item = json!({"_target_": "A", "x": ["$list(range(90000))"]});
    let problems = read_hostile(around(json!(vec![item; 200]), json!({})));
    assert!(problems[0].contains("too much work"), "{problems:?}");
}

fn any_config() -> impl Strategy<Value = Value> {
    let text = prop::sample::select(vec![
        "@a",
        "@b#0",
        "@#x",
        "@##",
        "%a",
        "%b::x",
        "%#0",
        "%other.json",
        "%..",
        "$@a + @b",
        "$[@a]",
        "$lambda x: @b",
        "$copy.copy(@a)",
        "x",
        "",
        "@",
        "$",
        "%",
        "true",
        "$import copy",
    ]);
    let leaf = prop_oneof![
        text.prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
        Just(Value::Null),
    ];
    leaf.prop_recursive(4, 40, 5, |inner| {
        let key = prop::sample::select(vec![
            "_target_",
            "_disabled_",
            "transforms",
            "x",
            "a",
            "_requires_",
            "$ref",
        ]);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(key, inner, 0..4).prop_map(|entries| {
                entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
            }),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_configuration_is_read_without_a_panic(
        preprocessing in any_config(), a in any_config(), b in any_config(),
    ) {
        let dir = bundle(&around(preprocessing, json!({"a": a, "b": b, "evaluator": a.clone()})));
        let _ = read(&dir);
    }
}
