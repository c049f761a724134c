//! `bundle compare`: how a lower precision, or another network file, changes a result.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use serde_json::Value;

use super::console::{self, shown};
use super::format::{Format, FormatArgs};
use super::input::{self, Place, Reading};
use crate::aws::Allowance;
use crate::config::{AwsArgs, ComputeArgs, CpuPrecisionChoice, MemoryArgs, PolicyArgs};
use crate::cpu;
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::{Given, Job, Places, compare::compare};
use crate::policy::VolumeChoice;
use crate::registry::{Lease, LoadOptions, ModelLocation};

/// Settings of `bundle compare`.
#[derive(Debug, Args)]
pub(super) struct CompareArgs {
    /// Folder of the bundle
    path: PathBuf,
    /// The images, as `run` takes them
    #[arg(value_name = "INPUT", env = "INPUT")]
    input: Place,
    /// The precision to compare with f32
    #[arg(long, env = "COMPARE_PRECISION", value_enum, value_name = "PRECISION")]
    precision: Option<CpuPrecisionChoice>,
    /// The file in models/ to compare with model.onnx
    #[arg(long, env = "COMPARE_NETWORK", value_name = "FILE")]
    network: Option<String>,
    /// The series to take, where there are several
    #[arg(long, env = "SERIES_INSTANCE_UID", value_name = "UID")]
    series: Option<String>,
    /// Which volume, where the series holds several: its number, or its name in the list of them
    #[arg(long, env = "VOLUME", value_name = "VOLUME")]
    volume: Option<VolumeChoice>,
    #[command(flatten)]
    policy: PolicyArgs,
    #[command(flatten)]
    compute: ComputeArgs,
    #[command(flatten)]
    format: FormatArgs,
    #[command(flatten)]
    memory: MemoryArgs,
    #[command(flatten)]
    aws: AwsArgs,
}

/// Runs the series through both and prints the differences.
pub(super) async fn run(args: CompareArgs) -> Result<()> {
    if args.precision.is_none() && args.network.is_none() {
        return Err(Error::new(
            ErrorKind::Configuration,
            "there is nothing to compare: give --precision bf16, or --network FILE",
        ));
    }
    let format = args.format.chosen()?;
    let mut settings = args.compute.settings();
    cpu::start(settings.threads)?;
    settings.cpu_precision = Some(CpuPrecisionChoice::F32);
    let reference = LoadOptions { original: true, ..LoadOptions::from(&settings) };
    settings.cpu_precision = args.precision.or(settings.cpu_precision);
    let candidate =
        LoadOptions { network: args.network, original: true, ..LoadOptions::from(&settings) };
    let name = args.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let location = ModelLocation { name, path: args.path };
    let reference = super::run::load(location.clone(), reference).await?;
    let candidate = super::run::load(location, candidate).await?;
    let policy = args.policy.choice().or(reference.policy).decided();
    let account = super::run::account(&args.memory);
    let places: Places = Arc::new(());
    let allowance = Arc::new(Allowance::default());
    let reading = Reading {
        series: args.series,
        aws: args.aws,
        memory: &account.inputs,
        allowance: &allowance,
        places: &places,
    };
    let sources = input::find(args.input, reading).await?;
    let sources = sources.iter().map(|source| &**source).collect();
    let given = Given { name: None, sources, volume: args.volume };
    let model = Lease::unregistered(reference);
    let job = Job { policy, account, places: Arc::clone(&places), ..Job::of(model) };
    let report = compare(given, job, Lease::unregistered(candidate)).await?;
    let report = Value::Object(report);
    console::print(&match format {
        Format::Json => format!("{report:#}"),
        Format::Table => text(&report),
    })
}

/// Formats the report for people.
fn text(report: &Value) -> String {
    let mut text = String::new();
    let mut line = |parts: std::fmt::Arguments| {
        text.push_str(&parts.to_string());
        text.push('\n');
    };
    for side in ["reference", "candidate"] {
        let network = &report[side];
        let of = |name: &str| shown(network[name].as_str().unwrap_or("-"));
        let millis = report[format!("{side}MillisecondsPerWindow")].as_f64().unwrap_or(0.0);
        let hash: String = of("networkSha256").chars().take(12).collect();
        line(format_args!(
            "{side:<10} {} {} network {hash}: {millis:.1} ms a window",
            of("executionProvider"),
            of("cpuPrecision"),
        ));
    }
    line(format_args!(
        "labels equal {:.4} % of {} voxels; largest difference of the network's values {:.3e}",
        100.0 * report["labelsEqual"].as_f64().unwrap_or(0.0),
        report["voxels"],
        report["largestDifference"].as_f64().unwrap_or(f64::INFINITY),
    ));
    for segment in report["segments"].as_array().into_iter().flatten() {
        line(format_args!(
            "{:<32} Dice {:.6}  voxels {} and {}",
            shown(segment["label"].as_str().unwrap_or("-")),
            segment["dice"].as_f64().unwrap_or(0.0),
            segment["referenceVoxels"],
            segment["candidateVoxels"],
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_report_is_a_few_lines() {
        let network = |precision: &str| json!({"networkSha256": "0123456789abcdef", "executionProvider": "OpenVINOExecutionProvider", "cpuPrecision": precision});
        let report = json!({
            "reference": network("f32"), "candidate": network("bf16"),
            "referenceMillisecondsPerWindow": 100.0, "candidateMillisecondsPerWindow": 70.25,
            "labelsEqual": 0.99995, "voxels": 1000, "largestDifference": null,
            "segments": [{"label": "Liver", "dice": 0.5, "referenceVoxels": 7, "candidateVoxels": 8}],
        });
        let text = text(&report);
        for part in [
            "bf16 network 0123456789ab: 70.2 ms",
            "99.9950 %",
            "inf",
            "Dice 0.500000  voxels 7 and 8",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
