//! The REST API of AWS HealthImaging (service model `medical-imaging`, 2023-07-19).
//!
//! Identifiers that the service does not know are `ResourceNotFoundException`, malformed ones and
//! bodies `ValidationException`. Any `Host` is answered, so clients may call with or without the
//! service's `runtime-` prefix. Copying and changing image sets and tags are not here; they
//! answer `ValidationException` saying so.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderValue, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::{Value, json};

use super::failure::Failure;
use super::import_jobs;
use super::jobs::Jobs;
use super::search::{search, summary};
use super::store::{Datastore, ImageSet, Store, is_id, now};

/// How the service behaves.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Options {
    /// Answer requests without an `Authorization` header too.
    pub allow_anonymous: bool,
    /// `GetImageFrame` requests a second before `ThrottlingException`; no bound where absent.
    pub frames_per_second: Option<u32>,
}

pub(super) struct Service {
    pub(super) store: Store,
    pub(super) jobs: Arc<Jobs>,
    options: Options,
    /// Tokens for frames, and when they were last counted.
    bucket: Mutex<(f64, Instant)>,
}

pub(super) type Shared = State<Arc<Service>>;
pub(super) type Answer = Result<Response, Failure>;

/// The routes over `store`.
pub fn router(store: Store, options: Options) -> Router {
    let burst = f64::from(options.frames_per_second.unwrap_or(0));
    let jobs = Arc::new(Jobs::new(store.clone()));
    let service =
        Arc::new(Service { store, jobs, options, bucket: Mutex::new((burst, Instant::now())) });
    let set = "/datastore/{datastore}/imageSet/{set}";
    Router::new()
        .route("/datastore", post(create_datastore).get(list_datastores))
        .route("/datastore/{datastore}", get(get_datastore).delete(delete_datastore))
        .route("/datastore/{datastore}/searchImageSets", post(search_image_sets))
        .route(&format!("{set}/getImageSet"), post(get_image_set))
        .route(&format!("{set}/getImageSetMetadata"), post(get_metadata))
        .route(&format!("{set}/getImageFrame"), post(get_frame))
        .route(&format!("{set}/listImageSetVersions"), post(list_versions))
        .route(&format!("{set}/deleteImageSet"), post(delete_image_set))
        .merge(import_jobs::routes())
        .fallback(unsupported)
        .layer(middleware::from_fn_with_state(service.clone(), signed))
        .with_state(service)
}

/// Refuses requests that no client signed.
async fn signed(State(service): Shared, request: Request, next: Next) -> Response {
    if service.options.allow_anonymous || request.headers().contains_key(header::AUTHORIZATION) {
        return next.run(request).await;
    }
    Failure::access_denied().into_response()
}

async fn unsupported(request: Request) -> Failure {
    Failure::validation(format!(
        "{} {} is not an operation of the local HealthImaging",
        request.method(),
        request.uri().path()
    ))
}

/// Runs file work off the threads that answer.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| {
        Err(Failure::internal(&crate::error::Error::internal("an operation panicked")))
    })
}

pub(super) fn body_of(bytes: &Bytes) -> Result<Value, Failure> {
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(bytes).map_err(|_| Failure::validation("the body is not JSON"))
}

pub(super) fn checked(id: &str, what: &str) -> Result<(), Failure> {
    if is_id(id) {
        return Ok(());
    }
    Err(Failure::validation(format!("{what} must be 32 characters of 0-9 and a-z")))
}

impl Service {
    pub(super) fn datastore(&self, id: &str) -> Result<Datastore, Failure> {
        checked(id, "datastoreId")?;
        self.store
            .datastore(id)?
            .filter(|d| d.datastore_status != "DELETED")
            .ok_or_else(|| Failure::not_found(format!("Datastore {id} does not exist")))
    }

    fn image_set(&self, datastore: &str, id: &str) -> Result<ImageSet, Failure> {
        self.datastore(datastore)?;
        checked(id, "imageSetId")?;
        self.store
            .image_set(datastore, id)?
            .ok_or_else(|| Failure::not_found(format!("ImageSet {id} does not exist")))
    }

    /// An image set whose content may be read, in the version asked for.
    fn readable(
        &self,
        datastore: &str,
        id: &str,
        version: Option<&str>,
    ) -> Result<ImageSet, Failure> {
        let set = self.image_set(datastore, id)?;
        check_version(&set, version)?;
        if set.image_set_state == "DELETED" {
            return Err(Failure::not_found(format!("ImageSet {id} is deleted")));
        }
        Ok(set)
    }

    /// Takes a token for a frame.
    fn may_send_frame(&self) -> bool {
        let Some(rate) = self.options.frames_per_second.map(f64::from) else { return true };
        let mut bucket = self.bucket.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let now = Instant::now();
        let (tokens, last) = *bucket;
        let tokens = (tokens + (now - last).as_secs_f64() * rate).min(rate);
        let granted = tokens >= 1.0;
        *bucket = (if granted { tokens - 1.0 } else { tokens }, now);
        granted
    }
}

fn check_version(set: &ImageSet, version: Option<&str>) -> Result<(), Failure> {
    match version {
        None => Ok(()),
        Some(text) if text.parse() == Ok(set.version) => Ok(()),
        Some(text) if text.parse::<u32>().is_err() => {
            Err(Failure::validation("version must be a number"))
        }
        Some(text) => {
            let id = &set.image_set_id;
            Err(Failure::not_found(format!("ImageSet {id} has no version {text}")))
        }
    }
}

#[derive(Deserialize)]
struct Version {
    version: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Page {
    max_results: Option<String>,
    next_token: Option<String>,
    datastore_status: Option<String>,
}

impl Page {
    /// The items of this page and the token of the next; a token is the index it begins with.
    pub(super) fn of<T>(&self, items: Vec<T>) -> Result<(Vec<T>, Option<String>), Failure> {
        let number = |text: &Option<String>, what: &str, default: usize| match text {
            None => Ok(default),
            Some(text) => text
                .parse::<usize>()
                .map_err(|_| Failure::validation(format!("{what} is not valid"))),
        };
        let start = number(&self.next_token, "nextToken", 0)?;
        let size = number(&self.max_results, "maxResults", 50)?.clamp(1, 50);
        let end = start.saturating_add(size);
        let more = items.len() > end;
        let page = items.into_iter().skip(start).take(size).collect();
        Ok((page, more.then(|| end.to_string())))
    }
}

pub(super) fn with_token(mut answer: Value, token: Option<String>) -> Response {
    if let Some(token) = token {
        answer["nextToken"] = json!(token);
    }
    Json(answer).into_response()
}

fn datastore_arn(id: &str) -> String {
    format!("arn:aws:medical-imaging:local:000000000000:datastore/{id}")
}

async fn create_datastore(State(service): Shared, body: Bytes) -> Answer {
    let body = body_of(&body)?;
    let name = body.get("datastoreName").and_then(Value::as_str).unwrap_or("datastore").to_owned();
    if let Some(format) = body.get("losslessStorageFormat").and_then(Value::as_str)
        && format != "HTJ2K"
    {
        return Err(Failure::validation("the local HealthImaging stores HTJ2K only"));
    }
    let made = blocking(move || Ok(service.store.create_datastore(&name)?)).await?;
    let answer = json!({
        "datastoreId": made.datastore_id,
        "datastoreStatus": made.datastore_status,
    });
    Ok(Json(answer).into_response())
}

fn describe(datastore: &Datastore) -> Value {
    json!({
        "datastoreId": datastore.datastore_id,
        "datastoreName": datastore.datastore_name,
        "datastoreStatus": datastore.datastore_status,
        "datastoreArn": datastore_arn(&datastore.datastore_id),
        "createdAt": datastore.created_at,
        "updatedAt": datastore.updated_at,
    })
}

async fn list_datastores(State(service): Shared, Query(page): Query<Page>) -> Answer {
    let all = blocking(move || Ok(service.store.datastores()?)).await?;
    let wanted = |d: &Datastore| {
        page.datastore_status
            .as_ref()
            .map_or(d.datastore_status != "DELETED", |s| *s == d.datastore_status)
    };
    let (page, token) = page.of(all.iter().filter(|d| wanted(d)).map(describe).collect())?;
    Ok(with_token(json!({"datastoreSummaries": page}), token))
}

async fn get_datastore(State(service): Shared, Path(id): Path<String>) -> Answer {
    let datastore = blocking(move || service.datastore(&id)).await?;
    let mut properties = describe(&datastore);
    properties["losslessStorageFormat"] = json!("HTJ2K");
    Ok(Json(json!({"datastoreProperties": properties})).into_response())
}

async fn delete_datastore(State(service): Shared, Path(id): Path<String>) -> Answer {
    let deleted = blocking(move || {
        let mut datastore = service.datastore(&id)?;
        let sets = service.store.image_sets(&id)?;
        if sets.iter().any(|set| set.image_set_state != "DELETED") {
            return Err(Failure::conflict(format!("Datastore {id} is not empty")));
        }
        datastore.datastore_status = "DELETED".to_owned();
        datastore.updated_at = now();
        service.store.save_datastore(&datastore)?;
        Ok(datastore)
    })
    .await?;
    let answer = json!({
        "datastoreId": deleted.datastore_id,
        "datastoreStatus": deleted.datastore_status,
    });
    Ok(Json(answer).into_response())
}

async fn search_image_sets(
    State(service): Shared,
    Path(id): Path<String>,
    Query(page): Query<Page>,
    body: Bytes,
) -> Answer {
    let criteria = body_of(&body)?;
    let sort = criteria.get("sort").cloned();
    let found = blocking(move || {
        service.datastore(&id)?;
        search(service.store.image_sets(&id)?, &criteria)
    })
    .await?;
    let (page, token) = page.of(found.iter().map(summary).collect())?;
    let mut answer = json!({"imageSetsMetadataSummaries": page});
    if let Some(sort) = sort {
        answer["sort"] = sort;
    }
    Ok(with_token(answer, token))
}

fn properties(set: &ImageSet) -> Value {
    let mut map = json!({
        "imageSetId": set.image_set_id,
        "versionId": set.version.to_string(),
        "imageSetState": set.image_set_state,
        "imageSetWorkflowStatus": set.image_set_workflow_status,
        "createdAt": set.created_at,
        "updatedAt": set.updated_at,
        "isPrimary": set.is_primary,
    });
    if let Some(at) = set.deleted_at {
        map["deletedAt"] = json!(at);
    }
    map
}

async fn get_image_set(
    State(service): Shared,
    Path((datastore, id)): Path<(String, String)>,
    Query(query): Query<Version>,
) -> Answer {
    let mut answer = blocking({
        let (datastore, id) = (datastore.clone(), id.clone());
        move || {
            let set = service.image_set(&datastore, &id)?;
            check_version(&set, query.version.as_deref())?;
            Ok(properties(&set))
        }
    })
    .await?;
    answer["imageSetArn"] = json!(format!("{}/imageset/{id}", datastore_arn(&datastore)));
    answer["datastoreId"] = json!(datastore);
    Ok(Json(answer).into_response())
}

async fn list_versions(
    State(service): Shared,
    Path((datastore, id)): Path<(String, String)>,
    Query(page): Query<Page>,
) -> Answer {
    let set = blocking(move || service.image_set(&datastore, &id)).await?;
    // Content changes with a deletion alone, which ends the image set: one entry each.
    let mut versions = vec![properties(&set)];
    if set.image_set_state == "DELETED" {
        let mut created = set.clone();
        created.version = 1;
        created.deleted_at = None;
        created.image_set_state = "ACTIVE".to_owned();
        created.image_set_workflow_status = "CREATED".to_owned();
        versions.push(properties(&created));
    }
    let (page, token) = page.of(versions)?;
    Ok(with_token(json!({"imageSetPropertiesList": page}), token))
}

async fn get_metadata(
    State(service): Shared,
    Path((datastore, id)): Path<(String, String)>,
    Query(query): Query<Version>,
) -> Answer {
    let gzip = blocking(move || {
        service.readable(&datastore, &id, query.version.as_deref())?;
        service
            .store
            .metadata(&datastore, &id)?
            .ok_or_else(|| Failure::not_found(format!("ImageSet {id} has no metadata")))
    })
    .await?;
    let mut response = Response::new(Body::from(gzip));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    Ok(response)
}

async fn get_frame(
    State(service): Shared,
    Path((datastore, id)): Path<(String, String)>,
    body: Bytes,
) -> Answer {
    if !service.may_send_frame() {
        return Err(Failure::throttled());
    }
    let body = body_of(&body)?;
    let frame = body
        .get("imageFrameId")
        .and_then(Value::as_str)
        .ok_or_else(|| Failure::validation("imageFrameId is missing"))?
        .to_owned();
    checked(&frame, "imageFrameId")?;
    let data = blocking(move || {
        service.readable(&datastore, &id, None)?;
        service
            .store
            .frame(&datastore, &id, &frame)?
            .ok_or_else(|| Failure::not_found(format!("ImageFrame {frame} does not exist")))
    })
    .await?;
    let mut response = Response::new(Body::from(data));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("image/jph"));
    Ok(response)
}

async fn delete_image_set(
    State(service): Shared,
    Path((datastore, id)): Path<(String, String)>,
) -> Answer {
    let set = blocking({
        let datastore = datastore.clone();
        move || {
            let mut set = service.readable(&datastore, &id, None)?;
            set.image_set_state = "DELETED".to_owned();
            set.image_set_workflow_status = "DELETED".to_owned();
            set.version += 1;
            set.updated_at = now();
            set.deleted_at = Some(set.updated_at);
            service.store.save_image_set(&datastore, &set)?;
            service.store.remove_content(&datastore, &id)?;
            Ok(set)
        }
    })
    .await?;
    let answer = json!({
        "datastoreId": datastore,
        "imageSetId": set.image_set_id,
        "imageSetState": set.image_set_state,
        "imageSetWorkflowStatus": set.image_set_workflow_status,
    });
    Ok(Json(answer).into_response())
}
