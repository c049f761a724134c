//! `CopyImageSet` (developer guide, "Copying an image set").

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Json};
use axum::routing::post;
use serde_json::{Value, json};

use super::changes::{Flags, Named, changing, instances, latest};
use super::failure::Failure;
use super::placing::agrees;
use super::service::{Answer, Service, Shared, blocking, body_of};
use super::store::{ImageSet, new_id};
use super::{documents, originals};
use crate::dicom::ahi_metadata::{FlatInstance, flat};
use crate::error::Result;

/// Returns the route of the operation.
pub(super) fn routes() -> Router<Arc<Service>> {
    Router::new().route("/datastore/{datastore}/imageSet/{set}/copyImageSet", post(copy))
}

async fn copy(
    State(service): Shared,
    Path((datastore, id)): Path<(String, String)>,
    Query(query): Query<Vec<(String, String)>>,
    body: Bytes,
) -> Answer {
    let body = body_of(&body)?;
    let flags = Flags::new(query);
    let (force, promote) = (flags.is_set("force")?, flags.is_set("promoteToPrimary")?);
    let (source, destination) = blocking({
        let datastore = datastore.clone();
        move || {
            let _writing = service.store.writing();
            let copying = Copying::of(&service, &datastore, &id, &body)?;
            let destination = copying.destination(body.get("destinationImageSet"), promote)?;
            let made = copying.run(destination, force)?;
            Ok((copying.source, made))
        }
    })
    .await?;
    let answer = json!({
        "datastoreId": datastore,
        "sourceImageSetProperties": changing(&datastore, &source, "COPYING_WITH_READ_ONLY_ACCESS"),
        "destinationImageSetProperties": changing(&datastore, &destination, "COPYING"),
    });
    Ok(Json(answer).into_response())
}

/// The source of a copy.
struct Copying<'a> {
    service: &'a Service,
    datastore: &'a str,
    source: ImageSet,
    instances: Vec<FlatInstance>,
}

/// The destination of a copy.
enum Destination {
    New { is_primary: bool },
    There(Box<ImageSet>),
}

impl<'a> Copying<'a> {
    fn of(
        service: &'a Service,
        datastore: &'a str,
        id: &str,
        body: &Value,
    ) -> Result<Self, Failure> {
        let from = body
            .get("sourceImageSet")
            .ok_or_else(|| Failure::validation("sourceImageSet is missing"))?;
        let known = from.get("latestVersionId").and_then(Value::as_str);
        let source = latest(service, datastore, id, known)?;
        let mut instances = instances(service, datastore, &source)?;
        if let Some(copies) = from.get("DICOMCopies").filter(|copies| !copies.is_null()) {
            let text = copies
                .get("copiableAttributes")
                .and_then(Value::as_str)
                .ok_or_else(|| Failure::validation("copiableAttributes are missing"))?;
            let series = instances.first().and_then(|i| i.text("SeriesInstanceUID"));
            let named = Named::parse(text.as_bytes(), &series.unwrap_or_default(), id)?;
            let there: BTreeSet<&str> = instances.iter().map(|i| i.uid.as_str()).collect();
            let wanted = &named.instances;
            if wanted.is_empty() || wanted.keys().any(|uid| !there.contains(uid.as_str())) {
                return Err(Failure::validation(
                    "copiableAttributes name no instance, or one that the source does not have",
                ));
            }
            instances.retain(|instance| wanted.contains_key(&instance.uid));
        }
        Ok(Self { service, datastore, source, instances })
    }

    fn destination(&self, wanted: Option<&Value>, promote: bool) -> Result<Destination, Failure> {
        let Some(wanted) = wanted.filter(|wanted| !wanted.is_null()) else {
            return if promote {
                self.primary()
            } else {
                Ok(Destination::New { is_primary: false })
            };
        };
        if promote {
            let problem = "promoteToPrimary has no destinationImageSet: it is found";
            return Err(Failure::validation(problem));
        }
        let text = |key| wanted.get(key).and_then(Value::as_str);
        let id = text("imageSetId")
            .ok_or_else(|| Failure::validation("the destination's imageSetId is missing"))?;
        if id == self.source.image_set_id {
            return Err(Failure::validation("source and destination are the same image set"));
        }
        let set = latest(self.service, self.datastore, id, text("latestVersionId"))?;
        Ok(Destination::There(Box::new(set)))
    }

    /// Returns the primary image set of the series, or a new one.
    fn primary(&self) -> Result<Destination, Failure> {
        if self.source.is_primary {
            return Err(Failure::validation("the image set is primary"));
        }
        let mut sets = self.service.store.image_sets(self.datastore)?;
        sets.retain(|set| set.is_primary && set.image_set_state == "ACTIVE");
        let tags = documents::search_tags(&self.instances);
        if !agrees(&sets, &tags) {
            return Err(Failure::conflict(
                "the image set does not agree with the primary image sets of its study: update its \
                 metadata first",
            ));
        }
        const SERIES: &str = "DICOMSeriesInstanceUID";
        let same = sets.into_iter().find(|set| set.tags.get(SERIES) == tags.get(SERIES));
        Ok(same
            .map_or(Destination::New { is_primary: true }, |set| Destination::There(Box::new(set))))
    }

    fn run(&self, destination: Destination, force: bool) -> Result<ImageSet, Failure> {
        let (mut set, before) = match destination {
            Destination::New { is_primary } => {
                let tags = documents::search_tags(&self.instances);
                let mut set = ImageSet::new(new_id(), is_primary, tags);
                "COPIED".clone_into(&mut set.image_set_workflow_status);
                (set, Vec::new())
            }
            Destination::There(mut set) => {
                let before = instances(self.service, self.datastore, &set)?;
                set.advance("COPIED");
                (*set, before)
            }
        };
        set.forced = force;
        let added = self.added(&before, force)?;
        let store = &self.service.store;
        let (from, to) = (&self.source.image_set_id, &set.image_set_id);
        for (instance, added) in self.instances.iter().zip(&added) {
            for frame in instance.frame_ids() {
                store.share_frame(self.datastore, from, to, frame)?;
            }
            // An instance that takes attributes of the destination no longer matches its original
            // file.
            if instance == added {
                originals::share(store, self.datastore, from, to, instance)?;
            }
        }
        let all: Vec<FlatInstance> = before.into_iter().chain(added).collect();
        set.tags = documents::search_tags(&all);
        documents::write_instances(store, self.datastore, to, set.version, &all)?;
        store.save_image_set(self.datastore, &set)?;
        Ok(set)
    }

    /// Returns the instances as they are added to those in `before`.
    fn added(&self, before: &[FlatInstance], force: bool) -> Result<Vec<FlatInstance>, Failure> {
        let Some(first) = before.first() else { return Ok(self.instances.clone()) };
        let there: BTreeSet<&str> = before.iter().map(|i| i.uid.as_str()).collect();
        if self.instances.iter().any(|instance| there.contains(instance.uid.as_str())) {
            return Err(Failure::validation(
                "the destination has an instance of the same UID: instances are unique in an image set",
            ));
        }
        let mut added = self.instances.clone();
        for instance in &mut added {
            if flat::agree_above_instances(instance, first) {
                continue;
            }
            if !force {
                return Err(Failure::validation(
                    "source and destination differ in patient, study or series: force the copy, or \
                     update the metadata",
                ));
            }
            flat::take_levels_above(instance, first);
        }
        Ok(added)
    }
}
