//! `GetDICOMSeriesMetadata`, `GetDICOMInstanceMetadata`, `GetDICOMBulkdata`.

use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, header};
use axum::response::IntoResponse;
use rayon::prelude::*;
use serde_json::Value;

use super::find::{self, Named};
use super::instance::{InstancePath, Which};
use super::negotiate::OCTETS;
use super::uris::Base;
use super::{answer, json};
use crate::dicom::ahi_metadata::FlatInstance;
use crate::emulator::failure::Failure;
use crate::emulator::service::{Answer, Shared, blocking};
use crate::error::Result;

/// `GetDICOMSeriesMetadata`: returns the metadata of all instances of a series.
pub(super) async fn series(
    State(service): Shared,
    Path((datastore, study, series)): Path<(String, String, String)>,
    Query(which): Query<Which>,
    headers: HeaderMap,
) -> Answer {
    answer::check_json(&headers)?;
    let named = Named { datastore, study, series, image_set: which.image_set_id };
    blocking(move || {
        let found = find::series(&service, &named)?;
        let base = Base::new(&headers, &named.datastore);
        let one = |flat: &FlatInstance| described(&base, &named, flat);
        let all = found.instances.par_iter().map(one).collect::<Result<Vec<Value>>>()?;
        Ok(answer::dicom_json(&Value::from(all)))
    })
    .await
}

/// `GetDICOMInstanceMetadata`.
pub(super) async fn instance(
    State(service): Shared,
    Path((datastore, study, series, uid)): InstancePath,
    Query(which): Query<Which>,
    headers: HeaderMap,
) -> Answer {
    answer::check_json(&headers)?;
    let named = Named { datastore, study, series, image_set: which.image_set_id };
    blocking(move || {
        let (_, flat) = find::series(&service, &named)?.take(&uid)?;
        let base = Base::new(&headers, &named.datastore);
        Ok(answer::dicom_json(&Value::from(vec![described(&base, &named, &flat)?])))
    })
    .await
}

/// Returns the metadata of an instance: all attributes except its pixels.
fn described(base: &Base, named: &Named, flat: &FlatInstance) -> Result<Value> {
    let instance = find::typed(flat)?;
    let uri = base.instance(&named.study, &named.series, &flat.uid);
    let query = named.image_set.as_ref().map_or(String::new(), |id| format!("?imageSetId={id}"));
    let bulk = |name: &str| format!("{uri}/bulkdata/{name}{query}");
    Ok(Value::Object(json::dataset(&instance.dataset, &bulk)?))
}

/// `GetDICOMBulkdata`.
pub(super) async fn bulkdata(
    State(service): Shared,
    Path((datastore, study, series, uid, name)): Path<(String, String, String, String, String)>,
    Query(which): Query<Which>,
    headers: HeaderMap,
) -> Answer {
    let accepted = answer::accepted(&headers);
    let is_multipart = |range: &crate::dicom::media_type::MediaType| {
        range.essence == "multipart/related"
            && range.parameter("type").is_none_or(|kind| kind == OCTETS || kind == "*/*")
    };
    let multipart = accepted.iter().any(is_multipart);
    if !multipart && !accepted.is_empty() && !accepted.iter().any(|range| range.takes(OCTETS)) {
        return Err(Failure::not_acceptable(format!(
            "bulk data is {OCTETS}, which Accept excludes"
        )));
    }
    let named = Named { datastore, study, series, image_set: which.image_set_id };
    blocking(move || {
        let (_, flat) = find::series(&service, &named)?.take(&uid)?;
        let instance = find::typed(&flat)?;
        let value = json::bulk(&instance.dataset, &name)
            .ok_or_else(|| Failure::not_found("the instance has no bulk data of that name"))?;
        if multipart {
            return Ok(answer::multipart_related(OCTETS, OCTETS, &[value.into()])?);
        }
        Ok(([(header::CONTENT_TYPE, OCTETS)], value).into_response())
    })
    .await
}
