//! `GetDICOMInstance`: an instance as a DICOM Part 10 file.

use std::io::Cursor;

use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use dicom_dictionary_std::{tags, uids};
use serde::Deserialize;

use super::answer;
use super::find::{self, Named};
use super::negotiate::{DICOM, InstanceForm, Syntax, instance_forms};
use super::pixels::Pixels;
use crate::dicom::p10::{P10Writer, PixelForm};
use crate::emulator::failure::Failure;
use crate::emulator::originals::{self, Original, stated_syntax};
use crate::emulator::service::{Answer, Service, Shared, blocking};
use crate::error::{Error, ErrorKind, Result};

/// The query of a retrieval.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Which {
    pub image_set_id: Option<String>,
}

/// Path parameters of an instance: data store, study, series, instance.
pub(super) type InstancePath = Path<(String, String, String, String)>;

/// `GetDICOMInstance`.
pub(super) async fn get(
    State(service): Shared,
    Path((datastore, study, series, uid)): InstancePath,
    Query(which): Query<Which>,
    headers: HeaderMap,
) -> Answer {
    let forms = instance_forms(&answer::accepted(&headers))?;
    let named = Named { datastore, study, series, image_set: which.image_set_id };
    blocking(move || {
        let (syntax, file, multipart) = file(&service, &named, &uid, &forms)?;
        Ok(response(&syntax, file, multipart)?)
    })
    .await
}

fn response(syntax: &str, file: Bytes, multipart: bool) -> Result<Response> {
    let kind = format!("{DICOM}; transfer-syntax={syntax}");
    if !multipart {
        return Ok(([(header::CONTENT_TYPE, kind)], file).into_response());
    }
    answer::multipart_related(DICOM, &kind, &[file])
}

/// Returns the transfer syntax, the file in the first available form, and whether that form is
/// multipart.
fn file(
    service: &Service,
    named: &Named,
    uid: &str,
    forms: &[InstanceForm],
) -> Result<(String, Bytes, bool), Failure> {
    let (set, flat) = find::series(service, named)?.take(uid)?;
    let (datastore, id) = (&named.datastore, &set.image_set_id);
    let original = originals::find(&service.store, datastore, id, &flat)?;
    // An image without frames is one whose pixel data could not be split.
    let is_unsplit = flat.frame_ids().next().is_none() && flat.text("Rows").is_some();
    let mut pixels = None;
    for InstanceForm { syntax, multipart } in forms {
        if let Some((stated, file)) = as_it_came(original.as_ref(), syntax, is_unsplit) {
            return Ok((stated, file, *multipart));
        }
        let pixels = match &mut pixels {
            Some(pixels) => pixels,
            None => pixels.insert(Pixels::read(service, datastore, id, &flat, None)?),
        };
        let Some(syntax) = pixels.answered(syntax) else { continue };
        let file = match &original {
            Some(Original::Head(head)) if syntax == uids::EXPLICIT_VR_LITTLE_ENDIAN => {
                with_pixels(head, pixels)?
            }
            _ => made(pixels, syntax)?,
        };
        return Ok((syntax.to_owned(), file.into(), *multipart));
    }
    Err(Failure::not_acceptable(
        "the instance cannot be had in a transfer syntax that Accept names; transfer-syntax=* takes the \
         stored one",
    ))
}

/// Returns the original file if it has the requested transfer syntax.
fn as_it_came(
    original: Option<&Original>,
    wanted: &Syntax,
    is_unsplit: bool,
) -> Option<(String, Bytes)> {
    let Some(Original::Whole(file)) = original else { return None };
    let stated = stated_syntax(file)?;
    let is_wanted = match wanted {
        Syntax::Stored => true,
        Syntax::Unsaid => stated == uids::EXPLICIT_VR_LITTLE_ENDIAN || is_unsplit,
        Syntax::Named(uid) => uid == stated,
    };
    is_wanted.then(|| (stated.to_owned(), file.clone()))
}

/// Restores the original file, whose pixels are stored in another encoding.
fn with_pixels(head: &[u8], pixels: &Pixels) -> Result<Vec<u8>> {
    let differs =
        || Error::new(ErrorKind::Io, "the pixels are not those of the file that was stored");
    let stated = head.last_chunk::<4>().ok_or_else(differs)?;
    let length = u64::from(u32::from_le_bytes(*stated));
    let native = pixels.native()?;
    if native.len() as u64 + native.len() as u64 % 2 != length {
        return Err(differs());
    }
    let padding = &[0][..native.len() % 2];
    Ok([head, &native, padding].concat())
}

/// Creates a file from the attributes in the document and the frames in the store.
fn made(pixels: &Pixels, syntax: &str) -> Result<Vec<u8>> {
    let mut dataset = (*pixels.instance.dataset).clone();
    // Added by the service, not part of the stored object.
    dataset.remove_element(tags::WARNING_REASON);
    let out = Cursor::new(Vec::new());
    let writer = if pixels.instance.frames.is_empty() {
        P10Writer::new(out, dataset, syntax, PixelForm::None)?
    } else if syntax == uids::EXPLICIT_VR_LITTLE_ENDIAN {
        let native = pixels.native()?;
        let form = PixelForm::Native(native.len() as u64);
        let mut writer = P10Writer::new(out, dataset, syntax, form)?;
        writer.frame(&native)?;
        writer
    } else {
        let frames = pixels.frames(syntax)?;
        let form = PixelForm::Encapsulated(frames.len());
        let mut writer = P10Writer::new(out, dataset, syntax, form)?;
        frames.iter().try_for_each(|frame| writer.frame(frame))?;
        writer
    };
    Ok(writer.finish()?.into_inner())
}
