//! `fetch`: downloads image sets of AWS HealthImaging as DICOM files to a folder.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::{ArgGroup, Args};
use indicatif::ProgressBar;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

use super::{clients, progress};
use crate::config::AhiArgs;
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::fetch::{self, Fetched, Pixels, Plan};
use crate::source::ImageSource;
use crate::source::ahi::{AhiClient, AhiSource, ImageSetId};

/// Settings of `fetch`.
#[derive(Debug, Clone, Args)]
#[command(group(ArgGroup::new("what").required(true).args(["image_set", "study"])))]
pub struct FetchArgs {
    /// Data store of AWS HealthImaging
    #[arg(long, env = "FETCH_DATASTORE", value_name = "ID")]
    pub datastore: String,
    /// Image set to fetch
    #[arg(long, env = "FETCH_IMAGE_SET", value_name = "ID")]
    pub image_set: Option<String>,
    /// Version of the image set [default: the latest]
    #[arg(long, env = "FETCH_VERSION", value_name = "N", requires = "image_set")]
    pub version_id: Option<String>,
    /// StudyInstanceUID of a study whose image sets are fetched, each to a folder named by its series
    #[arg(long, env = "FETCH_STUDY", value_name = "UID")]
    pub study: Option<String>,
    /// SeriesInstanceUID of the one series of the study to fetch
    #[arg(long, env = "SERIES_INSTANCE_UID", value_name = "UID", requires = "study")]
    pub series: Option<String>,
    /// Folder for the files; made where it is not there
    #[arg(long, env = "OUTPUT_DIR", value_name = "DIR")]
    pub out: PathBuf,
    /// How pixels are written
    #[arg(long, env = "FETCH_PIXELS", value_enum, default_value = "decoded", value_name = "HOW")]
    pub pixels: Pixels,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub ahi: AhiArgs,
}

/// How long to wait after an interruption for unfinished files to be removed.
const PATIENCE: Duration = Duration::from_secs(10);

/// Fetches the image sets and prints a JSON summary.
pub async fn run(args: FetchArgs) -> Result<()> {
    let writing = Arc::new(());
    let mut terminate = signal(SignalKind::terminate())
        .map_err(|e| Error::internal("signals cannot be handled").caused_by(e))?;
    let interrupted = Error::new(ErrorKind::Cancelled, "interrupted; files that were whole stay");
    let result = tokio::select! {
        result = fetch_all(args, writing.clone()) => result,
        _ = tokio::signal::ctrl_c() => Err(interrupted),
        _ = terminate.recv() => Err(interrupted),
    };
    // An unfinished file is removed when its thread ends.
    let begun = tokio::time::Instant::now();
    while Arc::strong_count(&writing) > 1 && begun.elapsed() < PATIENCE {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    println!("{}", result?);
    Ok(())
}

async fn fetch_all(args: FetchArgs, writing: Arc<()>) -> Result<Value> {
    let FetchArgs { datastore, image_set, version_id, study, series, out, pixels, ahi } = args;
    let (region, ahi) = ahi.settings()?;
    let plan = Plan { pixels, at_once: ahi.frames_in_flight, writing };
    let client = clients::healthimaging(region, &ahi).await?;
    let bar = progress::bar("frames", "frames");
    let (sets, by_series) = match (image_set, study) {
        (Some(id), None) => (vec![ImageSetId::new(&datastore, &id)?], false),
        (None, Some(study)) => (client.study(&datastore, &study, series.as_deref()).await?, true),
        _ => return Err(Error::internal("neither an image set nor a study")),
    };
    let mut done = Vec::with_capacity(sets.len());
    let mut instances = BTreeSet::new();
    for id in &sets {
        let folder = |uid: &str| if by_series { out.join(uid) } else { out.clone() };
        let version = version_id.as_deref();
        done.push(image_set_of(&client, id, version, &folder, &plan, &bar, &mut instances).await?);
    }
    progress::clear();
    Ok(json!({"folder": out.to_string_lossy(), "imageSets": done}))
}

/// Fetches one image set; fails if an instance is already part of another one.
async fn image_set_of(
    client: &AhiClient,
    id: &ImageSetId,
    version: Option<&str>,
    folder: &(dyn Fn(&str) -> PathBuf + Sync),
    plan: &Plan,
    bar: &ProgressBar,
    instances: &mut BTreeSet<String>,
) -> Result<Value> {
    let source = AhiSource::new(client.clone(), id.clone(), version)?;
    let series = Arc::new(source.series().await?);
    fetch::check_names(&series)?;
    for instance in &series.instances {
        let uid = instance.sop_instance_uid.as_str();
        if !instances.insert(uid.to_owned()) {
            return Err(Error::new(
                ErrorKind::InvalidRequest,
                format!(
                    "{id}: instance {uid} is in another image set of the study, too; fetch them one by \
                     one with --image-set"
                ),
            )
            .with("sopInstanceUID", uid));
        }
    }
    let folder = folder(&series.series_instance_uid);
    make(&folder)?;
    let frames: usize = series.instances.iter().map(|instance| instance.frames.len()).sum();
    progress::more(bar, frames as u64);
    let wrote = |one: Fetched| bar.inc(one.frames as u64);
    let made = fetch::fetch(&source, &series, &folder, plan, &wrote).await?;
    Ok(json!({
        "imageSetId": id.image_set_id(),
        "versionId": source.version(),
        "studyInstanceUID": series.study_instance_uid,
        "seriesInstanceUID": series.series_instance_uid,
        "folder": folder.to_string_lossy(),
        "instances": made.instances,
        "frames": made.frames,
        "bytes": made.bytes,
    }))
}

fn make(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(|e| {
        Error::new(ErrorKind::Io, format!("{} cannot be made: {}", folder.display(), e.kind()))
            .caused_by(e)
    })
}
