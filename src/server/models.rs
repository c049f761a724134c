//! `/models`: the interface of a multi-model endpoint for the platform.
//!
//! Names are chosen by the platform and opaque: any characters, percent-encoded in the path.

use std::sync::Arc;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, Request, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::call::Route;
use super::context::Context;
use super::receive::Terms;
use super::{App, body, invocations, status};
use crate::error::{Error, ErrorKind, Result};
use crate::registry::ModelStatus;
use crate::scheduler::Deadline;

/// Default and maximum number of models per page of the list.
const PAGE: usize = 100;

/// Maximum body size of a request to load a model.
const LONGEST_BODY: usize = 64 << 10;

type NameOf = Result<Path<String>, PathRejection>;

/// `POST /models`.
#[derive(Deserialize)]
struct Load {
    model_name: String,
    url: String,
}

/// Query of `GET /models`.
#[derive(Deserialize)]
pub(super) struct PageOf {
    next_page_token: Option<String>,
    limit: Option<usize>,
}

/// Loads a model; responds once it is warmed up.
pub(super) async fn load(
    State(app): State<Arc<App>>,
    Extension(context): Extension<Context>,
    request: Request,
) -> Response {
    let loading = async {
        app.scheduler.ensure_open()?;
        let (parts, bytes) = request.into_parts();
        body::ensure_json(&parts.headers)?;
        let deadline = app.http.request_timeout.map(Deadline::after);
        let pace = app.http.connections.pace;
        let terms = Terms { limit: LONGEST_BODY, room: &app.bodies, pace, deadline };
        let received = invocations::receive_while_open(&app, &parts.headers, bytes, terms).await?;
        let Load { model_name, url } = parse(&received)?;
        tracing::info!(model = model_name, url, "model to be loaded");
        Arc::clone(&app.models).load(&model_name, &url).await
    };
    respond(loading.await.map(|model| named(&model)), &context)
}

/// Unloads a model; responds once its memory is free.
pub(super) async fn unload(
    State(app): State<Arc<App>>,
    Extension(context): Extension<Context>,
    name: NameOf,
) -> Response {
    let unloading = async {
        let name = read(name)?;
        tracing::info!(model = name, "model to be unloaded");
        Arc::clone(&app.models).unload(&name).await
    };
    respond(unloading.await.map(|model| named(&model)), &context)
}

/// Returns the name and URL of a model.
pub(super) async fn show(
    State(app): State<Arc<App>>,
    Extension(context): Extension<Context>,
    name: NameOf,
) -> Response {
    let found = read(name).and_then(|name| app.models.loaded(&name));
    respond(found.map(|model| named(&model)), &context)
}

/// Lists the loaded models.
pub(super) async fn list(
    State(app): State<Arc<App>>,
    Extension(context): Extension<Context>,
    query: Result<Query<PageOf>, QueryRejection>,
) -> Response {
    respond(page(&app, query), &context)
}

/// Runs a request on a model.
pub(super) async fn invoke(
    State(app): State<Arc<App>>,
    Extension(context): Extension<Context>,
    name: NameOf,
    request: Request,
) -> Response {
    match read(name) {
        Ok(name) => {
            let route = Route { model: Some(&name), ..Route::default() };
            invocations::respond(&app, &context, request, route).await
        }
        Err(error) => status::respond(&error, &context.request_id),
    }
}

fn respond(answer: Result<Value>, context: &Context) -> Response {
    match answer {
        Ok(json) => Json(json).into_response(),
        Err(error) => status::respond(&error, &context.request_id),
    }
}

fn page(app: &App, query: Result<Query<PageOf>, QueryRejection>) -> Result<Value> {
    let Query(query) = query
        .map_err(|_| invalid("the query takes next_page_token, and limit as a number", "query"))?;
    let limit = query.limit.unwrap_or(PAGE);
    if limit == 0 || limit > PAGE {
        return Err(invalid(&format!("limit must be 1 to {PAGE}"), "limit"));
    }
    let after = query.next_page_token.as_deref().map(name_in).transpose()?;
    let page = app.models.page(after.as_deref(), limit);
    let mut answer = Map::new();
    answer.insert("models".to_owned(), page.models.iter().map(named).collect());
    if let Some(last) = page.models.last().filter(|_| page.more) {
        answer.insert("nextPageToken".to_owned(), token_for(&last.name).into());
    }
    Ok(Value::Object(answer))
}

/// Returns a token that continues a list after `name`, even if models are loaded or unloaded in the
/// meantime.
fn token_for(name: &str) -> String {
    URL_SAFE_NO_PAD.encode(name)
}

fn name_in(token: &str) -> Result<String> {
    let bytes = URL_SAFE_NO_PAD.decode(token).ok();
    bytes
        .and_then(|b| String::from_utf8(b).ok())
        .ok_or_else(|| invalid("next_page_token was not issued by this server", "next_page_token"))
}

fn named(model: &ModelStatus) -> Value {
    json!({"modelName": model.name, "modelUrl": model.url})
}

fn read(name: NameOf) -> Result<String> {
    name.map(|Path(name)| name)
        .map_err(|_| invalid("the model's name in the path is not UTF-8, percent-encoded", "name"))
}

fn parse(body: &[u8]) -> Result<Load> {
    // Unknown fields are ignored: the platform may extend its requests.
    let load: Load = serde_json::from_slice(body).map_err(|_| {
        let expected = "the body must be {\"model_name\": NAME, \"url\": FOLDER}, two strings";
        Error::new(ErrorKind::InvalidRequest, expected)
    })?;
    if load.model_name.is_empty() {
        return Err(invalid("model_name is empty", "model_name"));
    }
    Ok(load)
}

fn invalid(problem: &str, path: &str) -> Error {
    Error::new(ErrorKind::InvalidRequest, problem).with("path", path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_hold_two_strings() {
        let load = parse(br#"{"model_name":"a/b","url":"/opt/m","extra":1}"#).unwrap();
        assert_eq!((load.model_name.as_str(), load.url.as_str()), ("a/b", "/opt/m"));
        for bad in [&b""[..], b"{}", b"[]", br#"{"model_name":"","url":"/m"}"#, b"{\"url\":\"/\"}"]
        {
            assert_eq!(parse(bad).err().unwrap().kind(), ErrorKind::InvalidRequest);
        }
    }

    #[test]
    fn tokens_carry_any_name() {
        for name in ["a", "ä/b?c=d&e", "\u{1F600}"] {
            let token = token_for(name);
            assert!(token.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'));
            assert_eq!(name_in(&token).unwrap(), name);
        }
        assert!(name_in("not a token").is_err());
    }
}
