//! The REST API of AWS HealthImaging (service model `medical-imaging`, 2023-07-19), with its DICOMweb.
//!
//! Unknown identifiers give `ResourceNotFoundException`; malformed identifiers and bodies give
//! `ValidationException`. Any `Host` is accepted, so clients may call with or without the service's
//! `runtime-` prefix, and the DICOMweb paths are served next to the others.

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::middleware;

use super::failure::Failure;
use super::service::{Service, signed};
use super::store::Store;
use super::{copy, datastores, dicomweb, image_sets, import_jobs, tags, update};

pub use super::service::Options;

/// Builds the routes over `store`.
pub fn router(store: Store, options: Options) -> Router {
    let service = Arc::new(Service::new(store, options));
    Router::new()
        .merge(datastores::routes())
        .merge(image_sets::routes())
        .merge(copy::routes())
        .merge(update::routes())
        .merge(import_jobs::routes())
        .merge(tags::routes())
        .merge(dicomweb::routes())
        .fallback(unsupported)
        .layer(middleware::from_fn_with_state(service.clone(), signed))
        .with_state(service)
}

async fn unsupported(request: Request) -> Failure {
    Failure::validation(format!(
        "{} {} is not an operation of the local HealthImaging",
        request.method(),
        request.uri().path()
    ))
}
