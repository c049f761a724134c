//! Code shared by all operations of the local HealthImaging: the service state, the validation of
//! requested resources, and the pagination of lists.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::header;
use axum::middleware::Next;
use axum::response::{IntoResponse, Json, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::failure::Failure;
use super::jobs::Jobs;
use super::store::{Datastore, ImageSet, Store, is_id};

/// Maximum number of STOW-RS requests with their bodies in memory.
const STORED_AT_ONCE: usize = 2;

/// Options of the service.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Options {
    /// Whether to accept requests without an `Authorization` header.
    pub allow_anonymous: bool,
    /// Limit of `GetImageFrame` requests per second before `ThrottlingException`; `None` is
    /// unlimited.
    pub frames_per_second: Option<u32>,
}

pub(super) struct Service {
    pub(super) store: Store,
    pub(super) jobs: Arc<Jobs>,
    /// Permits for STOW-RS request bodies.
    pub(super) storing: Arc<Semaphore>,
    options: Options,
    /// Token bucket for frames: tokens, and the time of the last update.
    bucket: Mutex<(f64, Instant)>,
}

pub(super) type Shared = State<Arc<Service>>;
pub(super) type Answer = Result<Response, Failure>;

/// Rejects unsigned requests.
pub(super) async fn signed(State(service): Shared, request: Request, next: Next) -> Response {
    if service.options.allow_anonymous || request.headers().contains_key(header::AUTHORIZATION) {
        return next.run(request).await;
    }
    Failure::access_denied().into_response()
}

/// Runs file access on a blocking thread.
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
    pub(super) fn new(store: Store, options: Options) -> Self {
        let burst = f64::from(options.frames_per_second.unwrap_or(0));
        let jobs = Arc::new(Jobs::new(store.clone()));
        let storing = Arc::new(Semaphore::new(STORED_AT_ONCE));
        Self { store, jobs, storing, options, bucket: Mutex::new((burst, Instant::now())) }
    }

    pub(super) fn datastore(&self, id: &str) -> Result<Datastore, Failure> {
        checked(id, "datastoreId")?;
        self.store
            .datastore(id)?
            .filter(|d| d.datastore_status != "DELETED")
            .ok_or_else(|| Failure::not_found(format!("Datastore {id} does not exist")))
    }

    pub(super) fn image_set(&self, datastore: &str, id: &str) -> Result<ImageSet, Failure> {
        self.datastore(datastore)?;
        checked(id, "imageSetId")?;
        self.store
            .image_set(datastore, id)?
            .ok_or_else(|| Failure::not_found(format!("ImageSet {id} does not exist")))
    }

    /// Returns an image set whose content may be read.
    pub(super) fn readable(&self, datastore: &str, id: &str) -> Result<ImageSet, Failure> {
        let set = self.image_set(datastore, id)?;
        if set.image_set_state == "DELETED" {
            return Err(Failure::not_found(format!("ImageSet {id} is deleted")));
        }
        Ok(set)
    }

    /// Takes a token for a frame; returns whether one was available.
    pub(super) fn may_send_frame(&self) -> bool {
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

/// The query parameters of a paginated list.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Page {
    max_results: Option<String>,
    next_token: Option<String>,
}

impl Page {
    /// Returns the items of this page and the token of the next page, which is the index of its
    /// first item.
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

/// Returns the ARN of a data store.
pub(super) fn datastore_arn(id: &str) -> String {
    format!("arn:aws:medical-imaging:local:000000000000:datastore/{id}")
}

/// Returns the ARN of an image set.
pub(super) fn image_set_arn(datastore: &str, id: &str) -> String {
    format!("{}/imageset/{id}", datastore_arn(datastore))
}
