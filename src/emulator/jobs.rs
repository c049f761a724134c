//! Import jobs: they import DICOM files from the local S3 into a data store, one job at a time.
//!
//! Like AHI, a job writes below its output prefix:
//!
//! ```text
//! DATASTORE-DicomImport-JOB/job-output-manifest.json   counts, and the image sets made
//! DATASTORE-DicomImport-JOB/SUCCESS/success.ndjson     a line for each file that was imported
//! DATASTORE-DicomImport-JOB/WARNING/warning.ndjson     a line for each of these with a warning
//! DATASTORE-DicomImport-JOB/FAILURE/failure.ndjson     a line for each file that was not
//! ```
//!
//! A job is completed once every file has been processed, whatever the outcome; it fails if there
//! are no input objects or if it cannot write its output.

use std::sync::{Arc, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::import::{ImportSummary, ImportedFile, ImportedImageSet, import_named};
use super::model::now;
use super::objects::{Location, Objects};
use super::store::{Store, ids_in, new_id, read_json, write_json};
use super::warnings::Warning;
use crate::error::{Error, ErrorKind, Result};

const SUBMITTED: &str = "SUBMITTED";
const IN_PROGRESS: &str = "IN_PROGRESS";
const COMPLETED: &str = "COMPLETED";
const FAILED: &str = "FAILED";

/// An import job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Job {
    /// 32 characters of `[0-9a-z]`.
    pub job_id: String,
    /// Its name.
    pub job_name: String,
    /// `SUBMITTED`, `IN_PROGRESS`, `COMPLETED` or `FAILED`.
    pub job_status: String,
    /// The data store it imports into.
    pub datastore_id: String,
    /// The role passed in the request; unused here.
    pub data_access_role_arn: String,
    /// Identifies repeated requests.
    pub client_token: String,
    /// The prefix of the input files.
    pub input_s3_uri: String,
    /// The prefix of the output.
    pub output_s3_uri: String,
    /// Seconds since 1970.
    pub submitted_at: f64,
    /// Seconds since 1970, once it has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<f64>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// The import jobs of a store.
pub struct Jobs {
    store: Store,
    objects: Objects,
    /// Held by the running job.
    turn: Mutex<()>,
    /// Held while a job is started.
    starting: std::sync::Mutex<()>,
    /// Identifiers of this process's unfinished jobs.
    running: std::sync::Mutex<Vec<String>>,
}

impl Jobs {
    /// Creates the jobs of `store`, whose S3 is in its folder.
    pub fn new(store: Store) -> Self {
        let objects = Objects::new(store.s3_folder());
        Self {
            store,
            objects,
            turn: Mutex::default(),
            starting: std::sync::Mutex::default(),
            running: std::sync::Mutex::default(),
        }
    }

    /// Starts the new `job` in the background, or returns the existing one with the same client
    /// token.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidRequest`] if the token was used for a different request;
    /// [`ErrorKind::Io`].
    pub fn start(self: &Arc<Self>, job: Job) -> Result<Job> {
        // Of two requests with the same token, the second finds the job of the first.
        let _one = self.starting.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |other: &Job| {
            (&other.input_s3_uri, &other.output_s3_uri) == (&job.input_s3_uri, &job.output_s3_uri)
        };
        let known = self.list(&job.datastore_id)?;
        match known.into_iter().find(|other| other.client_token == job.client_token) {
            Some(other) if same(&other) => return Ok(other),
            Some(_) => {
                let problem = "the client token was used for a job with other URIs";
                return Err(Error::new(ErrorKind::InvalidRequest, problem));
            }
            None => {}
        }
        self.unfinished().push(job.job_id.clone());
        self.save(&job)?;
        let (jobs, submitted) = (Arc::clone(self), job.clone());
        tokio::spawn(async move { jobs.run(submitted).await });
        Ok(job)
    }

    /// Returns the job with this id.
    ///
    /// # Errors
    /// [`ErrorKind::Io`].
    pub fn find(&self, datastore_id: &str, id: &str) -> Result<Option<Job>> {
        let path = self.store.job_folder(datastore_id).join(id).join("job.json");
        // Read before the file: a job leaves this list only after its final state is written.
        let running = self.unfinished().iter().any(|other| other == id);
        let job: Option<Job> = read_json(&path)?;
        Ok(job.map(|job| if running { job } else { as_left(job) }))
    }

    /// Returns the jobs of a data store, latest first.
    ///
    /// # Errors
    /// [`ErrorKind::Io`].
    pub fn list(&self, datastore_id: &str) -> Result<Vec<Job>> {
        let mut all = Vec::new();
        for id in ids_in(&self.store.job_folder(datastore_id))? {
            all.extend(self.find(datastore_id, &id)?);
        }
        all.sort_by(|a, b| b.submitted_at.total_cmp(&a.submitted_at).then(a.job_id.cmp(&b.job_id)));
        Ok(all)
    }

    fn unfinished(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn save(&self, job: &Job) -> Result<()> {
        let folder = self.store.job_folder(&job.datastore_id).join(&job.job_id);
        write_json(&folder.join("job.json"), job)
    }

    async fn run(self: Arc<Self>, job: Job) {
        let _turn = self.turn.lock().await;
        let jobs = Arc::clone(&self);
        let id = job.job_id.clone();
        let ran = tokio::task::spawn_blocking(move || jobs.work(job)).await;
        if !matches!(ran, Ok(Ok(()))) {
            tracing::error!(job = id, "the state of an import job could not be kept");
        }
        self.unfinished().retain(|other| *other != id);
    }

    fn work(&self, mut job: Job) -> Result<()> {
        IN_PROGRESS.clone_into(&mut job.job_status);
        self.save(&job)?;
        let done = crate::cpu::contained(|| self.import(&job));
        match done {
            Ok(()) => COMPLETED.clone_into(&mut job.job_status),
            Err(error) => {
                tracing::warn!(job = job.job_id, %error, "an import job failed");
                FAILED.clone_into(&mut job.job_status);
                job.message = Some(error.message().to_owned());
            }
        }
        job.ended_at = Some(now());
        self.save(&job)
    }

    fn import(&self, job: &Job) -> Result<()> {
        let input = Location::parse(&job.input_s3_uri)?;
        let output = output_of(job)?;
        // Checked before the work, so that the job fails early.
        self.objects.bucket(&output.bucket)?;
        let keys = self.objects.list(&input)?;
        if keys.is_empty() {
            let problem = format!("there are no objects under {input}");
            return Err(Error::new(ErrorKind::NotFound, problem));
        }
        let (bucket, scanned) = (self.objects.bucket(&input.bucket)?, keys.len());
        let summary = import_named(&self.store, &job.datastore_id, &bucket, keys)?;
        let write =
            |name: &str, text: String| self.objects.create(&output.join(name), text.as_bytes());
        write("SUCCESS/success.ndjson", successes(&summary))?;
        write("WARNING/warning.ndjson", warnings(&summary))?;
        write("FAILURE/failure.ndjson", failures(&summary))?;
        write("job-output-manifest.json", manifest(job, &output, scanned, &summary).to_string())
    }
}

/// A job that no process works on: if it has not ended, it counts as failed, whatever its file
/// says.
fn as_left(mut job: Job) -> Job {
    if job.ended_at.is_none() {
        FAILED.clone_into(&mut job.job_status);
        job.message = Some("the local HealthImaging was stopped during the job".to_owned());
    }
    job
}

/// Creates a job submitted now.
pub fn submitted(datastore_id: &str) -> Job {
    let job_id = new_id();
    Job {
        job_name: job_id.clone(),
        job_id,
        job_status: SUBMITTED.to_owned(),
        datastore_id: datastore_id.to_owned(),
        data_access_role_arn: String::new(),
        client_token: String::new(),
        input_s3_uri: String::new(),
        output_s3_uri: String::new(),
        submitted_at: now(),
        ended_at: None,
        message: None,
    }
}

/// Returns the prefix of a job's output.
fn output_of(job: &Job) -> Result<Location> {
    let folder = format!("{}-DicomImport-{}/", job.datastore_id, job.job_id);
    Ok(Location::parse(&job.output_s3_uri)?.join(&folder))
}

fn lines(values: impl Iterator<Item = Value>) -> String {
    values.map(|value| format!("{value}\n")).collect()
}

fn successes(summary: &ImportSummary) -> String {
    lines(summary.image_sets.iter().flat_map(|set| {
        let line =
            |file: &ImportedFile| json!({"inputFile": file.name, "importResponse": response(set)});
        set.files.iter().map(line)
    }))
}

fn warnings(summary: &ImportSummary) -> String {
    lines(summary.image_sets.iter().flat_map(|set| {
        let warned = set.files.iter().filter(|file| !file.warnings.is_empty());
        warned.map(|file| {
            let mut response = response(set);
            response["warnings"] = file.warnings.iter().map(Warning::to_json).collect();
            json!({"inputFile": file.name, "importResponse": response})
        })
    }))
}

fn response(set: &ImportedImageSet) -> Value {
    json!({
        "imageSetId": set.image_set_id,
        "isPrimary": set.is_primary,
        "imageSetVersion": set.version,
    })
}

fn failures(summary: &ImportSummary) -> String {
    lines(summary.failures.iter().map(|failure| {
        let exception = json!({"exceptionType": "ValidationException", "message": failure.reason});
        json!({"inputFile": failure.file, "exception": exception})
    }))
}

fn manifest(job: &Job, output: &Location, scanned: usize, summary: &ImportSummary) -> Value {
    let sets: Vec<Value> = summary
        .image_sets
        .iter()
        .map(|set| {
            json!({
                "imageSetId": set.image_set_id,
                "isPrimary": set.is_primary,
                "numberOfMatchedSOPInstances": set.instances,
            })
        })
        .collect();
    let imported: usize = summary.image_sets.iter().map(|set| set.instances).sum();
    json!({"jobSummary": {
        "jobId": job.job_id,
        "datastoreId": job.datastore_id,
        "inputS3Uri": job.input_s3_uri,
        "outputS3Uri": output.to_string(),
        "successOutputS3Uri": format!("{output}SUCCESS/"),
        "failureOutputS3Uri": format!("{output}FAILURE/"),
        "warningsOutputS3Uri": format!("{output}WARNING/"),
        "numberOfScannedFiles": scanned,
        "numberOfImportedFiles": imported,
        "numberOfFilesWithCustomerError": summary.failures.len(),
        "numberOfFilesWithServerError": 0,
        "numberOfGeneratedImageSets": sets.len(),
        "imageSetsSummary": sets,
    }})
}
