//! The API used by the page.

use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, Request, State};
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use futures::stream;
use serde::Deserialize;
use serde_json::json;
use tokio::fs::File;
use tokio::io::AsyncReadExt;

use super::Ui;
use crate::error::{Error, ErrorKind, Result};
use crate::server::call::Route;
use crate::server::context::Context;
use crate::server::{App, invocations, status};

/// Identifies the result of a run.
const RESULT: HeaderName = HeaderName::from_static("x-result-id");

/// Bytes of a file read per chunk.
const CHUNK: usize = 256 << 10;

/// Lists the available data stores.
pub(super) async fn datastores(
    Extension(ui): Extension<Arc<Ui>>,
    Extension(context): Extension<Context>,
) -> Response {
    let listed = ui.browser.datastores().await;
    respond(listed.map(|datastores| Json(json!({"datastores": datastores}))), &context)
}

/// Selects a page of image sets.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PageOf {
    next: Option<String>,
}

/// Lists one page of the image sets of a data store.
pub(super) async fn image_sets(
    Extension(ui): Extension<Arc<Ui>>,
    Extension(context): Extension<Context>,
    id: Result<Path<String>, PathRejection>,
    page: Result<Query<PageOf>, QueryRejection>,
) -> Response {
    let listed = async {
        let Path(id) = id.map_err(|_| not_there("data store"))?;
        let Query(PageOf { next }) = page.map_err(|_| {
            Error::new(ErrorKind::InvalidRequest, "the query may have next and nothing else")
        })?;
        ui.browser.image_sets(&id, next).await
    };
    respond(listed.await.map(Json), &context)
}

/// Runs a request like `/invocations`, with the outputs written to a folder that the page reads
/// from. A response header identifies the result.
pub(super) async fn run(
    State(app): State<Arc<App>>,
    Extension(ui): Extension<Arc<Ui>>,
    Extension(context): Extension<Context>,
    request: Request,
) -> Response {
    let results = Arc::clone(&ui.results);
    let run = match aside(move || results.begin()).await {
        Ok(run) => run,
        Err(error) => return status::respond(&error, &context.request_id),
    };
    let route = Route { outputs: Some(run.uri()), ..Route::default() };
    let mut response = invocations::respond(&app, &context, request, route).await;
    if let Ok(id) = HeaderValue::from_str(run.id()) {
        response.headers_mut().insert(RESULT, id);
    }
    run.with(response)
}

/// Returns one output of a run.
pub(super) async fn result(
    Extension(ui): Extension<Arc<Ui>>,
    Extension(context): Extension<Context>,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Response {
    let answer = async {
        let Path((id, name)) = path.map_err(|_| not_there("output"))?;
        let results = Arc::clone(&ui.results);
        let found = aside(move || Ok(results.file(&id, &name))).await?;
        let path = found.ok_or_else(|| {
            let what =
                "there is no such output; older results are removed, so run the request again";
            Error::new(ErrorKind::NotFound, what)
        })?;
        file(path).await
    };
    respond(answer.await, &context)
}

/// Returns a file as an attachment.
async fn file(path: PathBuf) -> Result<Response> {
    let cannot = |e: std::io::Error| {
        Error::new(ErrorKind::Io, "an output of the page cannot be read").caused_by(e)
    };
    let file = File::open(&path).await.map_err(cannot)?;
    let bytes = file.metadata().await.map_err(cannot)?.len();
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut response = Body::from_stream(chunks(file)).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type(&path)));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(bytes));
    // File names consist of identifiers; any other name cannot be quoted safely.
    let plain = name.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\');
    let disposition =
        if plain { format!("attachment; filename=\"{name}\"") } else { "attachment".into() };
    if let Ok(value) = HeaderValue::from_str(&disposition) {
        headers.insert(CONTENT_DISPOSITION, value);
    }
    Ok(response)
}

/// Streams the bytes of a file.
fn chunks(file: File) -> impl futures::Stream<Item = std::io::Result<Bytes>> {
    stream::try_unfold(file, |mut file| async move {
        let mut chunk = vec![0; CHUNK];
        let read = file.read(&mut chunk).await?;
        chunk.truncate(read);
        Ok((read > 0).then(|| (Bytes::from(chunk), file)))
    })
}

/// Returns the media type by file extension.
fn media_type(path: &FilePath) -> &'static str {
    match path.extension().and_then(|end| end.to_str()) {
        Some("dcm") => "application/dicom",
        Some("gz") => "application/gzip",
        Some("png") => "image/png",
        Some("stl") => "model/stl",
        Some("glb") => "model/gltf-binary",
        _ => "application/octet-stream",
    }
}

fn not_there(what: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("there is no such {what}"))
}

/// Runs `work`, which accesses files, on a blocking thread.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|e| Err(Error::internal("looking at results panicked").caused_by(e)))
}

fn respond(answer: Result<impl IntoResponse>, context: &Context) -> Response {
    match answer {
        Ok(answer) => answer.into_response(),
        Err(error) => status::respond(&error, &context.request_id),
    }
}
