//! `run`: the pipeline without a server, from images in any location to a folder of results.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use clap::Args;
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use super::format::{Format, FormatArgs};
use super::input::{self, Place, Reading};
use super::progress::{self, Bars};
use super::{console, table};
use crate::aws::Allowance;
use crate::config::{AwsArgs, ComputeArgs, MemoryArgs, PolicyArgs, ResultArgs};
use crate::cpu;
use crate::dicom::encoding::FrameEncoding;
use crate::error::{Error, ErrorKind, Result};
use crate::memory::{self, Account};
use crate::pipeline::{self, Deliver, Given, Job, Places, names};
use crate::policy::VolumeChoice;
use crate::progress::{Progress, Stage};
use crate::registry::{Lease, LoadOptions, Model, ModelLocation, discover};
use crate::request::{Artifact, InputOutcome, OutputKind};
use crate::sink::{Destination, Sink};

/// Settings of `run`.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// The images: a folder of DICOM files, a DICOM file, a zip, tar or tar.gz archive of them; s3://BUCKET/KEY or
    /// s3://BUCKET/PREFIX/; or an image set of AWS HealthImaging, ahi://DATASTORE_ID/IMAGE_SET_ID[?versionId=N] or
    /// its ARN
    #[arg(value_name = "INPUT", env = "INPUT")]
    pub input: Place,
    /// Folder of the model package
    #[arg(long, env = "MODEL_DIR", value_name = "BUNDLE")]
    pub model: PathBuf,
    /// Folder for the results; made where it is not there
    #[arg(long, env = "OUTPUT_DIR", value_name = "DIR")]
    pub out: PathBuf,
    /// Replace results of the same names in that folder; otherwise they are an error
    #[arg(long, env = "OVERWRITE")]
    pub overwrite: bool,
    /// The series to take, where there are several
    #[arg(long, env = "SERIES_INSTANCE_UID", value_name = "UID")]
    pub series: Option<String>,
    /// What to make of the result; what the model package says where not given
    #[arg(long, env = "OUTPUTS", value_name = "KIND", value_delimiter = ',', value_enum)]
    pub output: Vec<OutputKind>,
    /// Which volume, where the series holds several: its number, or its name in the list of them
    #[arg(long, env = "VOLUME", value_name = "VOLUME")]
    pub volume: Option<VolumeChoice>,
    /// The segments wanted, by their labels; all where not given
    #[arg(long, env = "SEGMENTS", value_name = "LABEL", value_delimiter = ',')]
    pub segment: Vec<String>,
    /// How the frames of dicom-seg-labelmap are encoded; what the model package says where not given [default:
    /// rle]
    #[arg(long, env = "TRANSFER_SYNTAX", value_name = "ENCODING", value_enum)]
    pub transfer_syntax: Option<FrameEncoding>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub format: FormatArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub results: ResultArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub policy: PolicyArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub compute: ComputeArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub memory: MemoryArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub aws: AwsArgs,
}

/// How long to wait for work after an interruption, so that no incomplete file is left behind.
const PATIENCE: Duration = Duration::from_secs(3);

/// Segments the images and prints the report.
pub async fn run(args: RunArgs) -> Result<()> {
    let format = args.format.chosen()?;
    let stop = CancellationToken::new();
    let interrupted = stop.clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            interrupted.cancel();
        }
    });
    let late = async {
        stop.cancelled().await;
        tokio::time::sleep(PATIENCE).await;
    };
    let reports = tokio::select! {
        reports = segment(args, stop.clone()) => reports,
        () = late => Err(Error::new(ErrorKind::Cancelled, "interrupted")),
    };
    // Clear the bars before printing to the same terminal.
    progress::clear();
    console::print(&text(reports?, format)?)
}

/// Segments all volumes and returns their reports.
async fn segment(args: RunArgs, stop: CancellationToken) -> Result<Vec<Map<String, Value>>> {
    let bars = Arc::new(Bars::new(stop));
    cpu::start(args.compute.clone().settings().threads)?;
    let model = only_model(&args).await?;
    free(&args.out, &model, &args)?;
    let name = model.name.clone();
    let account = account(&args.memory);
    let places: Places = Arc::new(());
    let allowance = Arc::new(Allowance::default());
    bars.advance(Stage::Metadata, 0, 1);
    let reading = Reading {
        series: args.series,
        aws: args.aws,
        memory: &account.inputs,
        allowance: &allowance,
        places: &places,
    };
    let sources = input::find(args.input, reading).await?;
    let given = Given {
        name: None,
        sources: sources.iter().map(|source| &**source).collect(),
        volume: args.volume,
    };
    let policy = args.policy.choice().or(model.policy).decided();
    let encoding = args.transfer_syntax.or(model.segmentation.transfer_syntax);
    let job = Job {
        model: Lease::unregistered(model),
        encoding: encoding.unwrap_or_default(),
        outputs: args.output,
        segments: args.segment,
        fresh_uids: args.results.fresh_uids,
        policy,
        input: None,
        progress: bars.clone(),
        account,
        places,
        patience: None,
        single: false,
        trace: crate::traces::Trace::default(),
    };
    let folder = ToFolder {
        to: Destination::Folder(args.out),
        model: name,
        request_id: uuid::Uuid::new_v4().to_string(),
        allowance,
        bars,
    };
    let outcomes = pipeline::run_images(&[given], job, &folder).await?;
    Ok(outcomes.into_iter().map(|outcome| outcome.report).collect())
}

/// Loads the only model of the package.
async fn only_model(args: &RunArgs) -> Result<Model> {
    let locations = discover(&args.model)?;
    let [location] = &locations[..] else {
        let names: Vec<&str> = locations.iter().map(|l| l.name.as_str()).collect();
        return Err(Error::new(
            ErrorKind::InvalidRequest,
            format!(
                "--model holds several model packages: {}; name the folder of one",
                names.join(", ")
            ),
        ));
    };
    let bar = progress::bar("loading the model", "");
    let options = LoadOptions::from(&args.compute.clone().settings());
    let model = load(location.clone(), options).await?;
    progress::end(&bar);
    Ok(model)
}

/// Loads a model on a blocking thread.
pub(super) async fn load(location: ModelLocation, options: LoadOptions) -> Result<Model> {
    let ModelLocation { name, path } = location;
    tokio::task::spawn_blocking(move || Model::load(&name, &path, &options))
        .await
        .unwrap_or_else(|_| Err(Error::internal("loading the model failed unexpectedly")))
}

/// Checks, before anything is computed, that no results of another run would be replaced. File
/// names derive from segments, so another patient's results have the same names.
fn free(folder: &Path, model: &Model, args: &RunArgs) -> Result<()> {
    if args.overwrite {
        return Ok(());
    }
    let is_ours = names::of_model(model, &args.segment, &args.output)?;
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        // The folder will be created.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(unreadable(folder, e)),
    };
    for entry in entries {
        let name = entry.map_err(|e| unreadable(folder, e))?.file_name();
        let name = name.to_string_lossy();
        if is_ours(&name) {
            return Err(Error::new(
                ErrorKind::InvalidRequest,
                format!(
                    "{} holds {name} already; give another folder by --out, or --overwrite to replace it",
                    folder.display()
                ),
            )
            .with("path", folder.join(&*name).to_string_lossy()));
        }
    }
    Ok(())
}

fn unreadable(folder: &Path, e: std::io::Error) -> Error {
    let message = format!("the folder {} cannot be read: {}", folder.display(), e.kind());
    Error::new(ErrorKind::Io, message).caused_by(e)
}

/// Writes each outcome to the folder as soon as it is produced.
struct ToFolder {
    to: Destination,
    model: String,
    request_id: String,
    allowance: Arc<Allowance>,
    bars: Arc<Bars>,
}

#[async_trait]
impl Deliver for ToFolder {
    async fn deliver(&self, mut outcome: InputOutcome) -> Result<InputOutcome> {
        self.bars.advance(Stage::Store, 0, 1);
        Sink::folders().store(&mut outcome.artifacts, &self.to, &self.allowance).await?;
        self.bars.advance(Stage::Store, 1, 1);
        let output = |a: &Artifact| json!({"kind": a.kind, "mediaType": a.media_type, "bytes": a.size, "uri": a.uri});
        let outputs: Vec<Value> = outcome.artifacts.iter().map(output).collect();
        outcome.artifacts.iter_mut().for_each(Artifact::release);
        let report = &mut outcome.report;
        report.insert("requestId".to_owned(), json!(self.request_id));
        report.insert("model".to_owned(), json!(self.model));
        report.insert("outputs".to_owned(), Value::from(outputs));
        Ok(outcome)
    }
}

/// Formats the reports for printing.
fn text(mut reports: Vec<Map<String, Value>>, format: Format) -> Result<String> {
    match format {
        Format::Table => {
            let width = console::width();
            let tables: Vec<String> =
                reports.iter().map(|report| table::result(report, width)).collect();
            Ok(tables.join("\n\n"))
        }
        Format::Json => {
            // A list if several volumes were segmented.
            let all = match &reports[..] {
                [_] => Value::Object(reports.remove(0)),
                _ => reports.into_iter().map(Value::Object).collect(),
            };
            serde_json::to_string_pretty(&all)
                .map_err(|e| Error::internal("the report cannot be written").caused_by(e))
        }
    }
}

/// Returns the memory limits of the flags; by default those of the machine or container, less what
/// the program itself uses.
pub(super) fn account(args: &MemoryArgs) -> Account {
    let limit = memory::limit();
    let set = |bytes: Option<usize>| bytes.map(|bytes| bytes as u64);
    let inputs = set(args.max_input).unwrap_or_else(|| memory::usual_inputs(limit));
    let usual = limit.map(|bytes| memory::usual_work(bytes, 0, 0));
    Account::new(inputs, set(args.work_memory).or(usual))
}
