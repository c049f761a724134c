//! `StartDICOMImportJob`, `GetDICOMImportJob`, `ListDICOMImportJobs`.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Json};
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::{Value, json};

use super::failure::Failure;
use super::jobs::{self, Job};
use super::objects::Location;
use super::service::{Answer, Page, Service, Shared, blocking, body_of, checked, with_token};
use crate::error::ErrorKind;

/// Returns the routes of the operations.
pub(super) fn routes() -> Router<Arc<Service>> {
    Router::new()
        .route("/startDICOMImportJob/datastore/{datastore}", post(start))
        .route("/getDICOMImportJob/datastore/{datastore}/job/{job}", get(show))
        .route("/listDICOMImportJobs/datastore/{datastore}", get(list))
}

async fn start(State(service): Shared, Path(datastore): Path<String>, body: Bytes) -> Answer {
    let body = body_of(&body)?;
    let job = blocking(move || {
        service.datastore(&datastore)?;
        let job = requested(&datastore, &body)?;
        service.jobs.start(job).map_err(|e| match e.kind() {
            ErrorKind::InvalidRequest => Failure::conflict(e.message()),
            _ => Failure::internal(&e),
        })
    })
    .await?;
    let answer = json!({
        "datastoreId": job.datastore_id,
        "jobId": job.job_id,
        "jobStatus": job.job_status,
        "submittedAt": job.submitted_at,
    });
    Ok(Json(answer).into_response())
}

/// Parses the job described by a request body.
fn requested(datastore: &str, body: &Value) -> Result<Job, Failure> {
    for unknown in ["inputOwnerAccountId", "importConfiguration"] {
        if body.get(unknown).is_some_and(|v| !v.is_null()) {
            let problem = format!("the local HealthImaging does not take {unknown}");
            return Err(Failure::validation(problem));
        }
    }
    let text = |key: &str| {
        body.get(key)
            .and_then(Value::as_str)
            .filter(|text| !text.is_empty())
            .map(str::to_owned)
            .ok_or_else(|| Failure::validation(format!("{key} is missing")))
    };
    let uri = |key: &str| -> Result<String, Failure> {
        let uri = text(key)?;
        Location::parse(&uri)
            .map_err(|e| Failure::validation(format!("{key}: {}", e.message())))?;
        Ok(uri)
    };
    let mut job = jobs::submitted(datastore);
    job.input_s3_uri = uri("inputS3Uri")?;
    job.output_s3_uri = uri("outputS3Uri")?;
    job.data_access_role_arn = text("dataAccessRoleArn")?;
    job.client_token = text("clientToken")?;
    if body.get("jobName").is_some_and(|name| !name.is_null()) {
        job.job_name = text("jobName")?;
    }
    Ok(job)
}

async fn show(State(service): Shared, Path((datastore, id)): Path<(String, String)>) -> Answer {
    let job = blocking(move || {
        service.datastore(&datastore)?;
        checked(&id, "jobId")?;
        service
            .jobs
            .find(&datastore, &id)?
            .ok_or_else(|| Failure::not_found(format!("DICOM import job {id} does not exist")))
    })
    .await?;
    let mut properties = summary(&job);
    properties["inputS3Uri"] = json!(job.input_s3_uri);
    properties["outputS3Uri"] = json!(job.output_s3_uri);
    Ok(Json(json!({"jobProperties": properties})).into_response())
}

/// Query of `ListDICOMImportJobs`, besides the page.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Filter {
    job_status: Option<String>,
}

async fn list(
    State(service): Shared,
    Path(datastore): Path<String>,
    Query(page): Query<Page>,
    Query(filter): Query<Filter>,
) -> Answer {
    let mut all = blocking(move || {
        service.datastore(&datastore)?;
        Ok(service.jobs.list(&datastore)?)
    })
    .await?;
    all.retain(|job| filter.job_status.as_ref().is_none_or(|status| job.job_status == *status));
    let (page, token) = page.of(all.iter().map(summary).collect())?;
    Ok(with_token(json!({"jobSummaries": page}), token))
}

fn summary(job: &Job) -> Value {
    let mut summary = json!({
        "jobId": job.job_id,
        "jobName": job.job_name,
        "jobStatus": job.job_status,
        "datastoreId": job.datastore_id,
        "dataAccessRoleArn": job.data_access_role_arn,
        "submittedAt": job.submitted_at,
    });
    if let Some(at) = job.ended_at {
        summary["endedAt"] = json!(at);
    }
    if let Some(message) = &job.message {
        summary["message"] = json!(message);
    }
    summary
}
