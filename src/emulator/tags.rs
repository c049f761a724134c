//! `TagResource`, `UntagResource`, `ListTagsForResource`: the tags of data stores and image sets.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json};
use axum::routing::get;
use serde_json::{Value, json};

use super::failure::Failure;
use super::service::{Answer, Service, Shared, blocking, body_of, checked};

/// Maximum number of tags per resource (developer guide, "Tagging resources").
const MOST_TAGS: usize = 50;

/// Tag values by key.
pub(super) type Tags = BTreeMap<String, String>;

/// Returns the routes of the operations. The ARN of an image set contains slashes, which clients
/// may or may not encode.
pub(super) fn routes() -> Router<Arc<Service>> {
    Router::new().route("/tags/{*arn}", get(list).post(add).delete(remove))
}

/// The resource of an ARN: a data store, or an image set in it.
struct Resource {
    datastore: String,
    image_set: Option<String>,
}

impl Resource {
    fn of(service: &Service, arn: &str) -> Result<Self, Failure> {
        let malformed =
            || Failure::validation("resourceArn is not the ARN of a data store or an image set");
        let mut parts = arn.splitn(6, ':');
        let mut next = || parts.next().ok_or_else(malformed);
        let (scheme, partition, name) = (next()?, next()?, next()?);
        let (_region, _account, resource) = (next()?, next()?, next()?);
        if scheme != "arn" || !partition.starts_with("aws") || name != "medical-imaging" {
            return Err(malformed());
        }
        let (datastore, image_set) = match resource.split('/').collect::<Vec<_>>()[..] {
            ["datastore", datastore] => (datastore, None),
            ["datastore", datastore, "imageset", set] => (datastore, Some(set)),
            _ => return Err(malformed()),
        };
        match image_set {
            None => drop(service.datastore(datastore)?),
            Some(set) => {
                checked(set, "imageSetId")?;
                drop(service.readable(datastore, set)?);
            }
        }
        Ok(Self { datastore: datastore.to_owned(), image_set: image_set.map(str::to_owned) })
    }

    fn tags(&self, service: &Service) -> Result<Tags, Failure> {
        Ok(service.store.resource_tags(&self.datastore, self.image_set.as_deref())?)
    }

    fn save(&self, service: &Service, tags: &Tags) -> Result<(), Failure> {
        Ok(service.store.save_resource_tags(&self.datastore, self.image_set.as_deref(), tags)?)
    }
}

/// Parses the tags of a request: an object, or absent.
pub(super) fn requested(value: Option<&Value>) -> Result<Tags, Failure> {
    let Some(value) = value.filter(|v| !v.is_null()) else { return Ok(Tags::new()) };
    let tags = value.as_object().ok_or_else(|| Failure::validation("tags must be an object"))?;
    let is_key = |key: &str| {
        let fits = |b: u8| b.is_ascii_alphanumeric() || b"+-=._:/".contains(&b);
        (1..=128).contains(&key.len()) && !key.starts_with("aws:") && key.bytes().all(fits)
    };
    let one = |(key, value): (&String, &Value)| {
        let value = value.as_str().filter(|value| value.chars().count() <= 256);
        match value {
            Some(value) if is_key(key) => Ok((key.clone(), value.to_owned())),
            _ => Err(Failure::validation(
                "a tag's key is 1 to 128 letters, digits and +-=._:/ without aws: before them, and its \
                 value at most 256 characters",
            )),
        }
    };
    let tags = tags.iter().map(one).collect::<Result<Tags, _>>()?;
    check_count(&tags)?;
    Ok(tags)
}

fn check_count(tags: &Tags) -> Result<(), Failure> {
    if tags.len() > MOST_TAGS {
        return Err(Failure::validation(format!("a resource has at most {MOST_TAGS} tags")));
    }
    Ok(())
}

async fn list(State(service): Shared, Path(arn): Path<String>) -> Answer {
    let tags = blocking(move || Resource::of(&service, &arn)?.tags(&service)).await?;
    Ok(Json(json!({"tags": tags})).into_response())
}

async fn add(State(service): Shared, Path(arn): Path<String>, body: Bytes) -> Answer {
    let body = body_of(&body)?;
    let wanted = body.get("tags").ok_or_else(|| Failure::validation("tags are missing"))?;
    let wanted = requested(Some(wanted))?;
    blocking(move || {
        let _writing = service.store.writing();
        let resource = Resource::of(&service, &arn)?;
        let mut tags = resource.tags(&service)?;
        tags.extend(wanted);
        check_count(&tags)?;
        resource.save(&service, &tags)
    })
    .await?;
    Ok((StatusCode::OK, Json(json!({}))).into_response())
}

async fn remove(
    State(service): Shared,
    Path(arn): Path<String>,
    Query(query): Query<Vec<(String, String)>>,
) -> Answer {
    let keys: Vec<String> =
        query.into_iter().filter(|(name, _)| name == "tagKeys").map(|(_, key)| key).collect();
    if keys.is_empty() {
        return Err(Failure::validation("tagKeys are missing"));
    }
    blocking(move || {
        let _writing = service.store.writing();
        let resource = Resource::of(&service, &arn)?;
        let mut tags = resource.tags(&service)?;
        tags.retain(|key, _| !keys.contains(key));
        resource.save(&service, &tags)
    })
    .await?;
    Ok((StatusCode::OK, Json(json!({}))).into_response())
}
