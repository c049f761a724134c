//! STOW-RS: `StoreDICOM` and `StoreDICOMStudy` (developer guide, "Storing instances with STOW-RS"; PS3.18
//! section 10.5).

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::{Bytes, to_bytes};
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use dicom_dictionary_std::tags;
use rayon::prelude::*;
use serde_json::{Map, Value, json};

use super::answer;
use super::uris::Base;
use crate::cpu;
use crate::dicom::media_type::MediaType;
use crate::dicom::{Attributes, multipart, p10, uid};
use crate::emulator::encode::{Encoded, encode};
use crate::emulator::failure::Failure;
use crate::emulator::placing::{Placed, place};
use crate::emulator::service::{Answer, Service, Shared, blocking};
use crate::emulator::warnings::Warning;
use crate::error::{Error, ErrorKind};

/// Maximum size of a request body in bytes.
const MOST_BYTES: usize = 1 << 30;

/// Maximum number of parts per request: more than the slices of any series of that size.
const MOST_PARTS: usize = 20_000;

/// Media type of an instance.
const DICOM: &str = "application/dicom";

/// Failure Reasons (0008,1197), PS3.18 annex I.2 and PS3.4 annex B.2.3.
mod reason {
    pub const PROCESSING: u16 = 0x0110;
    pub const SOP_CLASS: u16 = 0x0122;
    pub const RESOURCES: u16 = 0xA700;
    pub const DOES_NOT_MATCH: u16 = 0xA900;
    pub const CANNOT_UNDERSTAND: u16 = 0xC000;
}

/// `StoreDICOM`.
pub(super) async fn store(
    State(service): Shared,
    Path(datastore): Path<String>,
    request: Request,
) -> Answer {
    run(service, datastore, None, request).await
}

/// `StoreDICOMStudy`: accepts only instances of the named study.
pub(super) async fn store_study(
    State(service): Shared,
    Path((datastore, study)): Path<(String, String)>,
    request: Request,
) -> Answer {
    if !uid::is_written(&study) {
        return Err(Failure::validation("the study in the URL is not a UID"));
    }
    run(service, datastore, Some(study), request).await
}

async fn run(
    service: Arc<Service>,
    datastore: String,
    study: Option<String>,
    request: Request,
) -> Answer {
    let (parts, body) = request.into_parts();
    let base = Base::new(&parts.headers, &datastore);
    blocking({
        let (service, datastore) = (service.clone(), datastore.clone());
        move || service.datastore(&datastore)
    })
    .await?;
    answer::check_json(&parts.headers)?;
    let content_type = content_type(&parts.headers)?;
    check_length(&parts.headers)?;
    let place = service.storing.clone().acquire_owned().await.map_err(|_| unavailable())?;
    let body = to_bytes(body, MOST_BYTES).await.map_err(|e| match is_too_long(&e) {
        true => too_large(),
        false => Failure::validation("the body ended before it was whole"),
    })?;
    let instances = instances(&content_type, body)?;
    blocking(move || {
        // Held by the work itself, which continues if the client disconnects.
        let _place = place;
        let outcomes = keep(&service, &datastore, study.as_deref(), &instances)?;
        Ok(response(&base, &outcomes))
    })
    .await
}

fn unavailable() -> Failure {
    Failure::internal(&Error::internal("the places for bodies are closed"))
}

fn too_large() -> Failure {
    Failure::too_large(format!("the body has more than {MOST_BYTES} bytes; store less at once"))
}

fn is_too_long(e: &axum::Error) -> bool {
    let mut next = std::error::Error::source(e);
    while let Some(cause) = next {
        if cause.is::<http_body_util::LengthLimitError>() {
            return true;
        }
        next = cause.source();
    }
    false
}

fn content_type(headers: &HeaderMap) -> Result<MediaType, Failure> {
    let unsupported = || {
        Failure::unsupported_media_type(format!(
            "the body must be {DICOM}, or multipart/related with type=\"{DICOM}\""
        ))
    };
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let content_type = value.and_then(MediaType::parse).ok_or_else(unsupported)?;
    match content_type.essence.as_str() {
        DICOM => Ok(content_type),
        "multipart/related" if content_type.parameter("type").is_none_or(|t| t == DICOM) => {
            Ok(content_type)
        }
        _ => Err(unsupported()),
    }
}

fn check_length(headers: &HeaderMap) -> Result<(), Failure> {
    let chunked = HeaderValue::from_static("aws-chunked");
    if headers.get(header::CONTENT_ENCODING) == Some(&chunked) {
        let problem = "the local HealthImaging does not take bodies that are signed chunk by chunk";
        return Err(Failure::validation(problem));
    }
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    match length.and_then(|text| text.parse::<u64>().ok()) {
        Some(length) if length > MOST_BYTES as u64 => Err(too_large()),
        _ => Ok(()),
    }
}

/// Extracts the files from a body.
fn instances(content_type: &MediaType, body: Bytes) -> Result<Vec<Bytes>, Failure> {
    if content_type.essence == DICOM {
        if body.is_empty() {
            return Err(Failure::validation("the body is empty"));
        }
        return Ok(vec![body]);
    }
    let malformed = |e: Error| match e.kind() {
        ErrorKind::PayloadTooLarge => Failure::too_large(e.message()),
        _ => Failure::validation(e.message()),
    };
    let boundary = multipart::boundary(content_type).map_err(malformed)?;
    let parts = multipart::read(&body, boundary, MOST_PARTS).map_err(malformed)?;
    let is_dicom = |part: &multipart::Part| {
        part.content_type.as_ref().is_none_or(|content_type| content_type.essence == DICOM)
    };
    if let Some(at) = parts.iter().position(|part| !is_dicom(part)) {
        let problem = format!("part {} is not {DICOM}", at + 1);
        return Err(Failure::unsupported_media_type(problem));
    }
    Ok(parts.into_iter().map(|part| part.data).collect())
}

/// The outcome of one file.
enum Outcome {
    Stored {
        study: String,
        series: String,
        warnings: Vec<Warning>,
        names: Names,
        /// The image set, if it is not primary.
        image_set: Option<String>,
    },
    Failed {
        reason: u16,
        names: Option<Names>,
    },
}

/// The identifiers of an instance.
#[derive(Clone)]
struct Names {
    sop_class: String,
    sop_instance: String,
}

fn keep(
    service: &Service,
    datastore: &str,
    study: Option<&str>,
    files: &[Bytes],
) -> Result<Vec<Outcome>, Failure> {
    let format = service.datastore(datastore)?.lossless_storage_format;
    let encoded: Vec<Result<Encoded, u16>> = files
        .par_iter()
        .map(|file| {
            let encoded = cpu::contained(|| encode(file, format));
            let instance = encoded.map_err(|e| refusal(&e))?.ok_or(reason::SOP_CLASS)?;
            let own = instance.flat.text("StudyInstanceUID");
            match study.is_none_or(|study| own.as_deref() == Some(study)) {
                true => Ok(instance),
                false => Err(reason::DOES_NOT_MATCH),
            }
        })
        .collect();
    let mut outcomes: Vec<Option<Outcome>> = Vec::with_capacity(files.len());
    let (mut instances, mut described) = (Vec::new(), BTreeMap::new());
    for (index, (file, result)) in files.iter().zip(encoded).enumerate() {
        outcomes.push(match result {
            Err(reason) => Some(Outcome::Failed { reason, names: names(file) }),
            Ok(_) => None,
        });
        if let Ok(instance) = result {
            described.insert(index, Description::of(&instance));
            instances.push((index, instance));
        }
    }
    let placed = place(&service.store, datastore, instances)?;
    for placed in &placed {
        for index in &placed.members {
            if let (Some(description), Some(outcome)) =
                (described.remove(index), outcomes.get_mut(*index))
            {
                *outcome = Some(description.stored(placed));
            }
        }
    }
    let lost = || Outcome::Failed { reason: reason::PROCESSING, names: None };
    Ok(outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(lost)).collect())
}

/// What the response needs to know about an instance being stored.
struct Description {
    study: String,
    series: String,
    warnings: Vec<Warning>,
    names: Names,
}

impl Description {
    fn of(instance: &Encoded) -> Self {
        let text = |keyword| instance.flat.text(keyword).unwrap_or_default();
        Self {
            study: text("StudyInstanceUID"),
            series: text("SeriesInstanceUID"),
            warnings: instance.warnings.clone(),
            names: Names {
                sop_class: instance.sop_class_uid.clone(),
                sop_instance: instance.flat.uid.clone(),
            },
        }
    }

    fn stored(self, placed: &Placed) -> Outcome {
        let Self { study, series, warnings, names } = self;
        let image_set = (!placed.is_primary).then(|| placed.image_set_id.clone());
        Outcome::Stored { study, series, warnings, names, image_set }
    }
}

/// Returns the Failure Reason of an error.
fn refusal(e: &Error) -> u16 {
    tracing::info!(error = %e, "an instance was not stored");
    match e.kind() {
        ErrorKind::PayloadTooLarge | ErrorKind::OutOfMemory => reason::RESOURCES,
        ErrorKind::Internal | ErrorKind::Io => reason::PROCESSING,
        _ => reason::CANNOT_UNDERSTAND,
    }
}

/// Returns the identifiers of a rejected instance, if they can be read.
fn names(file: &[u8]) -> Option<Names> {
    let header = p10::header_of(file).ok()?;
    let text = |tag| header.dataset.text(tag).filter(|text| uid::is_written(text));
    Some(Names {
        sop_class: text(tags::SOP_CLASS_UID)?,
        sop_instance: text(tags::SOP_INSTANCE_UID)?,
    })
}

/// Builds the response (PS3.18 section 10.5.3 and annex I).
fn response(base: &Base, outcomes: &[Outcome]) -> Response {
    let (mut stored, mut failed, mut others) = (Vec::new(), Vec::new(), Vec::new());
    let (mut study_url, mut has_warnings) = (None, false);
    for outcome in outcomes {
        match outcome {
            Outcome::Stored { study, series, warnings, names, image_set } => {
                study_url.get_or_insert_with(|| base.study(study));
                has_warnings |= !warnings.is_empty();
                let mut url = base.instance(study, series, &names.sop_instance);
                if let Some(id) = image_set {
                    url = format!("{url}?imageSetId={id}");
                }
                let mut item = reference(names);
                item.insert("00081190".to_owned(), json!({"vr": "UR", "Value": [url]}));
                if let Some(warning) = warnings.first() {
                    item.insert("00081196".to_owned(), number(warning.reason.code()));
                }
                stored.push(Value::Object(item));
            }
            Outcome::Failed { reason, names } => {
                let list = if names.is_some() { &mut failed } else { &mut others };
                let mut item = names.as_ref().map(reference).unwrap_or_default();
                item.insert("00081197".to_owned(), number(*reason));
                list.push(Value::Object(item));
            }
        }
    }
    let status = match (stored.is_empty(), failed.is_empty() && others.is_empty()) {
        (true, _) => StatusCode::CONFLICT,
        (false, true) if !has_warnings => StatusCode::OK,
        (false, _) => StatusCode::ACCEPTED,
    };
    let mut dataset = Map::new();
    if let Some(url) = study_url {
        dataset.insert("00081190".to_owned(), json!({"vr": "UR", "Value": [url]}));
    }
    for (tag, items) in [("00081198", failed), ("00081199", stored), ("0008119A", others)] {
        if !items.is_empty() {
            dataset.insert(tag.to_owned(), json!({"vr": "SQ", "Value": items}));
        }
    }
    (status, answer::dicom_json(&Value::Object(dataset))).into_response()
}

/// Returns Referenced SOP Class UID (0008,1150) and Referenced SOP Instance UID (0008,1155).
fn reference(names: &Names) -> Map<String, Value> {
    Map::from_iter([
        ("00081150".to_owned(), json!({"vr": "UI", "Value": [names.sop_class]})),
        ("00081155".to_owned(), json!({"vr": "UI", "Value": [names.sop_instance]})),
    ])
}

fn number(value: u16) -> Value {
    json!({"vr": "US", "Value": [value]})
}
