//! `CreateDatastore`, `ListDatastores`, `GetDatastore`, `DeleteDatastore`.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Json};
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::{Value, json};

use super::failure::Failure;
use super::model::now;
use super::service::{Answer, Page, Service, Shared, blocking, body_of, datastore_arn, with_token};
use super::store::{Datastore, StorageFormat};
use super::tags;

/// Returns the routes of the operations.
pub(super) fn routes() -> Router<Arc<Service>> {
    Router::new()
        .route("/datastore", post(create).get(list))
        .route("/datastore/{datastore}", get(show).delete(delete))
}

async fn create(State(service): Shared, body: Bytes) -> Answer {
    let body = body_of(&body)?;
    let text = |key: &str| body.get(key).and_then(Value::as_str);
    let name = text("datastoreName").unwrap_or("datastore").to_owned();
    let format = match text("losslessStorageFormat") {
        None => StorageFormat::default(),
        Some(name) => StorageFormat::named(name).ok_or_else(|| {
            Failure::validation("losslessStorageFormat must be HTJ2K or JPEG_2000_LOSSLESS")
        })?,
    };
    for unknown in ["kmsKeyArn", "lambdaAuthorizerArn"] {
        if text(unknown).is_some() {
            let problem = format!("the local HealthImaging does not take {unknown}");
            return Err(Failure::validation(problem));
        }
    }
    let resource_tags = tags::requested(body.get("tags"))?;
    let made = blocking(move || {
        let made = service.store.create_datastore(&name, format)?;
        if !resource_tags.is_empty() {
            service.store.save_resource_tags(&made.datastore_id, None, &resource_tags)?;
        }
        Ok(made)
    })
    .await?;
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

/// Query of `ListDatastores`, besides the page.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Filter {
    datastore_status: Option<String>,
}

async fn list(
    State(service): Shared,
    Query(page): Query<Page>,
    Query(filter): Query<Filter>,
) -> Answer {
    let all = blocking(move || Ok(service.store.datastores()?)).await?;
    let wanted = |d: &Datastore| {
        filter
            .datastore_status
            .as_ref()
            .map_or(d.datastore_status != "DELETED", |s| *s == d.datastore_status)
    };
    let (page, token) = page.of(all.iter().filter(|d| wanted(d)).map(describe).collect())?;
    Ok(with_token(json!({"datastoreSummaries": page}), token))
}

async fn show(State(service): Shared, Path(id): Path<String>) -> Answer {
    let datastore = blocking(move || service.datastore(&id)).await?;
    let mut properties = describe(&datastore);
    properties["losslessStorageFormat"] = json!(datastore.lossless_storage_format);
    Ok(Json(json!({"datastoreProperties": properties})).into_response())
}

async fn delete(State(service): Shared, Path(id): Path<String>) -> Answer {
    let deleted = blocking(move || {
        let _writing = service.store.writing();
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
