//! The operations that read image sets, and `DeleteImageSet`.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::post;
use serde::Deserialize;
use serde_json::{Value, json};

use super::failure::Failure;
use super::search::{search, summary};
use super::service::{
    Answer, Page, Service, Shared, blocking, body_of, checked, image_set_arn, with_token,
};
use super::store::ImageSet;

/// Returns the routes of the operations.
pub(super) fn routes() -> Router<Arc<Service>> {
    let set = "/datastore/{datastore}/imageSet/{set}";
    Router::new()
        .route("/datastore/{datastore}/searchImageSets", post(search_image_sets))
        .route(&format!("{set}/getImageSet"), post(get_image_set))
        .route(&format!("{set}/getImageSetMetadata"), post(get_metadata))
        .route(&format!("{set}/getImageFrame"), post(get_frame))
        .route(&format!("{set}/listImageSetVersions"), post(list_versions))
        .route(&format!("{set}/deleteImageSet"), post(delete_image_set))
}

#[derive(Deserialize)]
struct Version {
    version: Option<String>,
}

impl Version {
    /// Returns the image set in this version; the latest if none is given.
    fn of<'a>(&self, set: &'a ImageSet) -> Result<&'a ImageSet, Failure> {
        let Some(text) = &self.version else { return Ok(set) };
        let version = text.parse().map_err(|_| Failure::validation("version must be a number"))?;
        let id = &set.image_set_id;
        set.at(version)
            .ok_or_else(|| Failure::not_found(format!("ImageSet {id} has no version {version}")))
    }
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
    if set.forced {
        map["overrides"] = json!({"forced": true});
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
            Ok(properties(query.of(&set)?))
        }
    })
    .await?;
    answer["imageSetArn"] = json!(image_set_arn(&datastore, &id));
    answer["datastoreId"] = json!(datastore);
    Ok(Json(answer).into_response())
}

/// Properties in a list of versions, where the service model spells one member differently.
fn versioned(set: &ImageSet) -> Value {
    let mut map = properties(set);
    map["ImageSetWorkflowStatus"] = json!(set.image_set_workflow_status);
    map
}

async fn list_versions(
    State(service): Shared,
    Path((datastore, id)): Path<(String, String)>,
    Query(page): Query<Page>,
) -> Answer {
    let set = blocking(move || service.image_set(&datastore, &id)).await?;
    let mut versions = vec![versioned(&set)];
    versions.extend(set.history.iter().rev().map(versioned));
    let (page, token) = page.of(versions)?;
    Ok(with_token(json!({"imageSetPropertiesList": page}), token))
}

async fn get_metadata(
    State(service): Shared,
    Path((datastore, id)): Path<(String, String)>,
    Query(query): Query<Version>,
) -> Answer {
    let gzip = blocking(move || {
        let set = service.readable(&datastore, &id)?;
        let version = query.of(&set)?.version;
        service
            .store
            .metadata(&datastore, &id, version)?
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
        service.readable(&datastore, &id)?;
        service
            .store
            .frame(&datastore, &id, &frame)?
            .ok_or_else(|| Failure::not_found(format!("ImageFrame {frame} does not exist")))
    })
    .await?;
    let content_type = HeaderValue::from_static(content_type(&data));
    let mut response = Response::new(Body::from(data));
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    Ok(response)
}

/// Detects the media type of a frame from its first bytes: reading the metadata would cost more
/// than the frame.
fn content_type(frame: &[u8]) -> &'static str {
    // SOC and SIZ, followed by CAP in HTJ2K (ISO/IEC 15444-15 A.2).
    if let [0xFF, 0x4F, 0xFF, 0x51, high, low, ..] = frame {
        let next = 4 + usize::from(u16::from_be_bytes([*high, *low]));
        let has_cap = frame.get(next..).is_some_and(|rest| rest.starts_with(&[0xFF, 0x50]));
        return if has_cap { "image/jph" } else { "image/j2c" };
    }
    if frame.starts_with(&[0xFF, 0xD8, 0xFF]) { "image/jpeg" } else { "application/octet-stream" }
}

async fn delete_image_set(
    State(service): Shared,
    Path((datastore, id)): Path<(String, String)>,
) -> Answer {
    let set = blocking({
        let datastore = datastore.clone();
        move || {
            let _writing = service.store.writing();
            let mut set = service.readable(&datastore, &id)?;
            set.advance("DELETED");
            set.image_set_state = "DELETED".to_owned();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_told_apart() {
        assert_eq!(content_type(b"\xFF\x4F\xFF\x51\x00\x04ab\xFF\x50"), "image/jph");
        assert_eq!(content_type(b"\xFF\x4F\xFF\x51\x00\x04ab\xFF\x52"), "image/j2c");
        assert_eq!(content_type(b"\xFF\x4F\xFF\x51\xFF\xFF"), "image/j2c");
        assert_eq!(content_type(b"\xFF\xD8\xFF\xE0"), "image/jpeg");
        assert_eq!(content_type(b""), "application/octet-stream");
    }
}
