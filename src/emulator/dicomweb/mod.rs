//! DICOMweb as HealthImaging serves it below `/datastore/ID` (developer guide, "Using DICOMweb";
//! PS3.18).
//!
//! The service uses a separate host for it, `dicom-medical-imaging`; any `Host` is accepted here.
//! Studies, series and instances are those of primary image sets, unless `imageSetId` names another
//! one.

mod answer;
mod find;
mod frames;
mod instance;
mod json;
mod metadata;
mod negotiate;
mod pixels;
mod qido;
mod stow;
mod uris;

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};

use super::service::Service;

/// The media type of metadata and of search and store responses (PS3.18 annex F).
const DICOM_JSON: &str = "application/dicom+json";

/// Returns the routes of the transactions.
pub(super) fn routes() -> Router<Arc<Service>> {
    let studies = "/datastore/{datastore}/studies";
    let series = format!("{studies}/{{study}}/series/{{series}}");
    let instance = format!("{series}/instances/{{instance}}");
    Router::new()
        .route(studies, post(stow::store).get(qido::studies))
        .route(&format!("{studies}/{{study}}"), post(stow::store_study))
        .route(&format!("{studies}/{{study}}/series"), get(qido::series))
        .route(&format!("{studies}/{{study}}/instances"), get(qido::study_instances))
        .route(&format!("{series}/instances"), get(qido::instances))
        .route("/datastore/{datastore}/series", get(qido::all_series))
        .route("/datastore/{datastore}/instances", get(qido::all_instances))
        .route(&format!("{series}/metadata"), get(metadata::series))
        .route(&instance, get(instance::get))
        .route(&format!("{instance}/metadata"), get(metadata::instance))
        .route(&format!("{instance}/bulkdata/{{name}}"), get(metadata::bulkdata))
        .route(&format!("{instance}/frames/{{frames}}"), get(frames::get))
}
