//! Reads a configuration file as YAML, which MONAI accepts as well as JSON.
//!
//! Anchors, aliases and merge keys are expanded. Each expansion is limited, so that a small file does
//! not become a huge one. Tags for Python objects are refused.

use serde_json::Value;

use super::problem::Problem;
use super::unique::{MAX_BYTES, Unique};

/// Extensions of YAML files.
pub(super) const SUFFIXES: [&str; 2] = ["yaml", "yml"];

/// Limit on the values in a file; aliases count each time.
const MAX_VALUES: usize = 100_000;

/// Nesting limit for collections.
const MAX_DEPTH: usize = 128;

/// Whether a file of this name is YAML.
pub(super) fn is_name(name: &str) -> bool {
    let suffix = name.rsplit_once('.').map_or("", |(_, suffix)| suffix);
    SUFFIXES.iter().any(|known| suffix.eq_ignore_ascii_case(known))
}

/// Parses a YAML text of limited size; problems refer to it as `name`.
pub(super) fn bounded(bytes: &[u8], name: &str) -> Result<Value, Problem> {
    let wrong = |message: String| Problem::in_file(name, message);
    if bytes.len() as u64 > MAX_BYTES {
        return Err(wrong(format!("is larger than {} MiB", MAX_BYTES >> 20)));
    }
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_events: MAX_VALUES,
            max_depth: MAX_DEPTH,
            flow_nesting_limit: MAX_DEPTH,
            max_documents: 1,
            max_aliases: 1_000,
            max_anchors: 1_000,
            max_merge_keys: 1_000,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: MAX_VALUES,
            max_replay_stack_depth: 32,
        },
        // As PyYAML, which MONAI uses, reads them.
        legacy_octal_numbers: true,
        reject_unsupported_tags: true,
        with_snippet: false,
    };
    serde_saphyr::from_slice_with_options::<Unique>(bytes, options)
        .map(|unique| unique.0)
        .map_err(|e| wrong(format!("is not valid YAML: {e}")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(text: &str) -> Result<Value, Problem> {
        bounded(text.as_bytes(), "configs/inference.yaml")
    }

    #[test]
    fn a_configuration_is_read_as_its_json_would_be() {
        let text = r#"
imports: [$import glob]   # a comment
pixdim: &pixdim [1.5, 1.5, 2]
preprocessing:
  _target_: Compose
  transforms:
  - _target_: LoadImaged
    keys: image
    image_only: false
  - {_target_: Spacingd, keys: image, pixdim: *pixdim, mode: bilinear}
  - _target_: CropForegroundd
    select_fn: "$lambda x: x > 0"
    margin: ~
output: '@preprocessing'
"#;
        let expected = json!({
            "imports": ["$import glob"],
            "pixdim": [1.5, 1.5, 2],
            "preprocessing": {
                "_target_": "Compose",
                "transforms": [
                    {"_target_": "LoadImaged", "keys": "image", "image_only": false},
                    {
                        "_target_": "Spacingd", "keys": "image", "pixdim": [1.5, 1.5, 2],
                        "mode": "bilinear"
                    },
                    {
                        "_target_": "CropForegroundd", "select_fn": "$lambda x: x > 0",
                        "margin": null
                    }
                ]
            },
            "output": "@preprocessing"
        });
        assert_eq!(parse(text).unwrap(), expected);
    }

    #[test]
    fn what_grows_or_runs_or_is_ambiguous_is_refused() {
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
        for i in 1..12 {
            let before = format!("*a{}", i - 1);
            bomb += &format!("a{i}: &a{i} [{}]\n", vec![before; 9].join(", "));
        }
        let circle = "a: &a [1, *a]";
        let twice = "a: {pixdim: 1, pixdim: 2}";
        let python = "a: !!python/object/apply:os.system ['true']";
        let deep = format!("a: {}", "[".repeat(100_000));
        let nested = (0..5_000).map(|i| format!("{}a:\n", " ".repeat(i))).collect::<String>();
        for text in
            [&bomb, circle, twice, python, &deep, &nested, "a: [1", "a: 1\n---\nb: 2", "a: .nan"]
        {
            let problem = parse(text).map(|value| value.to_string().len()).unwrap_err();
            assert_eq!(problem.file, "configs/inference.yaml");
        }
    }
}
