//! `run`: the same path without a server, from a folder of DICOM files to a folder of results.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::aws::Allowance;
use crate::config::{ComputeArgs, PolicyArgs, ResultArgs};
use crate::dicom::encoding::FrameEncoding;
use crate::error::{Error, Result};
use crate::memory::{self, Account};
use crate::pipeline::{self, Job};
use crate::policy::VolumeChoice;
use crate::progress::{Progress, Stage};
use crate::registry::{Lease, LoadOptions, Model, discover};
use crate::request::OutputKind;
use crate::sink::Sink;
use crate::source::dicom_files::DicomFiles;

/// Settings of `run`.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// Folder with the DICOM files of a series.
    #[arg(value_name = "DICOM_DIR", env = "DICOM_DIR")]
    pub dicom: PathBuf,
    /// Folder of the model package.
    #[arg(long, env = "MODEL_DIR", value_name = "BUNDLE")]
    pub model: PathBuf,
    /// Folder for the results.
    #[arg(long, env = "OUTPUT_DIR", value_name = "DIR")]
    pub out: PathBuf,
    /// The series to take, where the folder holds several.
    #[arg(long, env = "SERIES_INSTANCE_UID", value_name = "UID")]
    pub series: Option<String>,
    /// What to make of the result; what the model package says where not given.
    #[arg(long, env = "OUTPUTS", value_name = "KIND", value_delimiter = ',', value_enum)]
    pub output: Vec<OutputKind>,
    /// Which volume, where the series holds several: its number, or its name in the list of them.
    #[arg(long, env = "VOLUME", value_name = "VOLUME")]
    pub volume: Option<VolumeChoice>,
    /// The segments wanted, by their labels; all where not given.
    #[arg(long, env = "SEGMENTS", value_name = "LABEL", value_delimiter = ',')]
    pub segment: Vec<String>,
    /// How the frames of dicom-seg-labelmap are encoded; what the model package says where not given [default:
    /// rle]
    #[arg(long, env = "TRANSFER_SYNTAX", value_name = "ENCODING", value_enum)]
    pub transfer_syntax: Option<FrameEncoding>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub results: ResultArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub policy: PolicyArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub compute: ComputeArgs,
}

/// Segments a folder and prints the report.
pub async fn run(args: RunArgs) -> Result<()> {
    let stop = CancellationToken::new();
    let interrupted = stop.clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            interrupted.cancel();
        }
    });
    let locations = discover(&args.model)?;
    let [location] = &locations[..] else {
        let names: Vec<&str> = locations.iter().map(|l| l.name.as_str()).collect();
        return Err(Error::new(
            crate::error::ErrorKind::InvalidRequest,
            format!("--model holds several model packages: {}; name one", names.join(", ")),
        ));
    };
    let source = DicomFiles::new(&args.dicom, args.series.clone());
    let bar = Arc::new(Bar::new(stop));
    bar.say("loading the model");
    let options = LoadOptions::from(&args.compute.clone().settings());
    let location = location.clone();
    let model =
        tokio::task::spawn_blocking(move || Model::load(&location.name, &location.path, &options))
            .await
            .unwrap_or_else(|_| Err(Error::internal("loading the model failed unexpectedly")))?;
    let name = model.name.clone();
    let policy = args.policy.choice().or(model.policy).decided();
    let encoding = args.transfer_syntax.or(model.segmentation.transfer_syntax);
    let job = Job {
        model: Lease::unregistered(model),
        encoding: encoding.unwrap_or_default(),
        outputs: args.output,
        segments: args.segment,
        fresh_uids: args.results.fresh_uids,
        policy,
        request_id: uuid::Uuid::new_v4().to_string(),
        progress: bar.clone(),
        account: account(),
        places: Arc::new(()),
        patience: None,
        single: false,
    };
    let request_id = job.request_id.clone();
    let mut outcomes = pipeline::run(&source, args.volume, job).await?;
    let folder = args.out.to_string_lossy().into_owned();
    let allowance = Allowance::default();
    let mut reports = Vec::with_capacity(outcomes.len());
    for outcome in &mut outcomes {
        Sink::folders().store(&mut outcome.artifacts, &folder, &allowance).await?;
        let outputs: Vec<Value> = outcome
            .artifacts
            .iter()
            .map(|a| json!({"kind": a.kind, "mediaType": a.media_type, "bytes": a.size, "uri": a.uri}))
            .collect();
        let mut report = std::mem::take(&mut outcome.report);
        report.insert("requestId".to_owned(), json!(request_id));
        report.insert("model".to_owned(), json!(name));
        report.insert("outputs".to_owned(), Value::from(outputs));
        reports.push(Value::Object(report));
    }
    bar.finish();
    // A list where each of several volumes was segmented.
    let all = if let [_] = &reports[..] { reports.remove(0) } else { Value::from(reports) };
    let text = serde_json::to_string_pretty(&all)
        .map_err(|e| Error::internal("the report cannot be written").caused_by(e))?;
    println!("{text}");
    Ok(())
}

/// The memory of this machine or container, less what the program itself takes.
pub(super) fn account() -> Account {
    let limit = memory::limit();
    Account::new(memory::usual_inputs(limit), limit.map(|bytes| memory::usual_work(bytes, 0, 0)))
}

/// A progress bar on a terminal; nothing where standard error is none.
struct Bar {
    bar: ProgressBar,
    stop: CancellationToken,
}

impl Bar {
    fn new(stop: CancellationToken) -> Self {
        let bar = ProgressBar::new(0);
        if let Ok(style) =
            ProgressStyle::with_template("{msg:<12} [{bar:32}] {pos}/{len} {elapsed}")
        {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(200));
        Self { bar, stop }
    }

    fn say(&self, what: &'static str) {
        self.bar.set_message(what);
    }

    fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

impl Progress for Bar {
    fn advance(&self, stage: Stage, done: usize, total: usize) {
        self.bar.set_message(stage.name());
        self.bar.set_length(total as u64);
        self.bar.set_position(done as u64);
    }

    fn is_cancelled(&self) -> bool {
        self.stop.is_cancelled()
    }
}
