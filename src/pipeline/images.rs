//! Puts the images of one input into the model's order.

use std::sync::Arc;

use dicom_dictionary_std::tags;
use futures::{StreamExt, TryStreamExt};

use super::Given;
use crate::dicom::{Attributes, Series};
use crate::error::{Error, ErrorKind, Result};
use crate::policy::VolumeChoice;
use crate::registry::Model;
use crate::source::ImageSource;

fn refuse(why: &str, model: &Model) -> Error {
    let names = model.images.join(", ");
    let how = match (model.images.len(), model.selections.is_empty()) {
        (0 | 1, _) => "give one image set".to_owned(),
        (_, true) => format!("give \"images\" with one image set for each of: {names}"),
        (_, false) => format!(
            "give \"images\" with one image set for each of: {names}; without names they are told \
             apart by the rules in the package's serving.json"
        ),
    };
    Error::new(ErrorKind::InvalidRequest, format!("{why}; {how}")).with("images", names)
}

fn called(name: &str, wanted: &str) -> bool {
    name.trim().to_lowercase() == wanted.trim().to_lowercase()
}

/// Checks that the images' names, compared case-insensitively, are those of the model, each once; or
/// that the model can distinguish as many images without names.
///
/// # Errors
///
/// [`ErrorKind::InvalidRequest`] with the names of the wanted images.
fn check_names(given: &[Option<&str>], model: &Model) -> Result<()> {
    let wanted = &model.images;
    let names: Vec<&str> = given.iter().copied().flatten().collect();
    if names.is_empty() {
        let told_apart = wanted.len() == 1 || !model.selections.is_empty();
        if given.len() == wanted.len() && told_apart {
            return Ok(());
        }
        return Err(refuse(&format!("the model takes {} images at once", wanted.len()), model));
    }
    if let Some(name) = names.iter().find(|name| !wanted.iter().any(|w| called(name, w))) {
        // A mistaken value may be a patient's name.
        let length = name.chars().count();
        let why = format!("an image has a name ({length} characters) the model does not know");
        return Err(refuse(&why, model));
    }
    for wanted in wanted {
        match names.iter().filter(|name| called(name, wanted)).count() {
            1 => {}
            0 => return Err(refuse(&format!("the image {wanted} is missing"), model)),
            _ => return Err(refuse(&format!("the image {wanted} is there twice"), model)),
        }
    }
    Ok(())
}

/// Checks, before anything is fetched, whether images with these names can be the model's input: each
/// of its images once, or a single place from which its rules choose.
///
/// # Errors
///
/// [`ErrorKind::InvalidRequest`] with the names of the wanted images.
pub(super) fn check_given(names: &[Option<&str>], model: &Model) -> Result<()> {
    match names {
        [None] => Ok(()),
        _ => check_names(names, model),
    }
}

/// Modalities of objects that accompany images but are not images.
const NO_IMAGES: [&str; 10] =
    ["SEG", "SR", "PR", "KO", "RTSTRUCT", "RTPLAN", "RTDOSE", "REG", "DOC", "FID"];

/// Number of series whose headers are read at the same time: a study may have hundreds, each of them
/// megabytes.
const AT_ONCE: usize = 4;

/// An image with its headers.
pub(super) struct Read<'s> {
    /// Its source.
    pub source: &'s dyn ImageSource,
    /// Its headers.
    pub series: Arc<Series>,
    /// The volume of the series, if the request names one.
    pub volume: Option<VolumeChoice>,
}

/// An image and its name, if the request gives one.
type Described<'s> = (Option<&'s str>, Read<'s>);

/// Reads the headers of the given images. A place with several series stands for its only series of
/// images; if the package's rules choose among them, or the model takes several images, it stands for
/// all of them.
///
/// # Errors
/// Propagates the errors of the sources; [`ErrorKind::InvalidRequest`] if names are not the model's, or
/// if a place has several series and the choice is ambiguous.
pub(super) async fn described<'s>(
    given: &'s [Given<'s>],
    model: &Model,
) -> Result<Vec<Described<'s>>> {
    let rules = !model.selections.is_empty();
    let choosing = match given {
        [only] if only.name.is_none() => {
            rules && (only.sources.len() > 1 || model.images.len() > 1)
        }
        _ => false,
    };
    if !choosing {
        let names: Vec<Option<&str>> = given.iter().map(|image| image.name.as_deref()).collect();
        check_names(&names, model)?;
    }
    let mut described = Vec::new();
    for image in given {
        let read = |source: &'s dyn ImageSource| async move {
            let series = Arc::new(source.series().await?);
            Ok::<_, Error>(Read { source, series, volume: image.volume.clone() })
        };
        let reads: Vec<_> = image.sources.iter().map(|source| read(*source)).collect();
        let mut series: Vec<Read<'s>> =
            futures::stream::iter(reads).buffered(AT_ONCE).try_collect().await?;
        if choosing {
            keep_slices(&mut series);
        } else {
            series = vec![only_image(series)?];
        }
        let name = image.name.as_deref();
        described.extend(series.into_iter().map(|read| (name, read)));
    }
    Ok(described)
}

/// Returns the only series of images.
fn only_image(mut series: Vec<Read<'_>>) -> Result<Read<'_>> {
    keep_slices(&mut series);
    if series.len() > 1 {
        let list: Vec<String> = series.iter().map(|read| summary(&read.series)).collect();
        return Err(Error::new(
            ErrorKind::InvalidRequest,
            format!(
                "there are {} series; name one by seriesInstanceUID, or put rules into the model \
                 package's serving.json: {}",
                list.len(),
                list.join("; ")
            ),
        )
        .with("series", list));
    }
    series.pop().ok_or_else(|| Error::internal("a place without series"))
}

/// Removes series without slices if there are others: screenshots, scouts and reports are never meant,
/// whatever their other attributes.
fn keep_slices(series: &mut Vec<Read<'_>>) {
    if series.iter().any(|read| is_image(&read.series)) {
        series.retain(|read| is_image(&read.series));
    }
}

fn modality(series: &Series) -> Option<String> {
    series.representative().and_then(|first| first.dataset.text(tags::MODALITY))
}

fn is_image(series: &Series) -> bool {
    series.holds_slices() && !modality(series).is_some_and(|m| NO_IMAGES.contains(&m.trim()))
}

/// Describes a series by UID, modality and number of instances, without anything about the patient.
fn summary(series: &Series) -> String {
    let modality = modality(series);
    format!(
        "{} ({}, {} instances)",
        series.series_instance_uid,
        modality.as_deref().unwrap_or("no modality"),
        series.instances.len()
    )
}

/// Returns the images, whose names were checked, in the model's order.
///
/// # Errors
///
/// [`ErrorKind::InvalidRequest`] if a rule of the model package matches none or several of them, or
/// several rules match one. The error names the image and the series.
pub(super) fn in_order<'s>(given: Vec<Described<'s>>, model: &Model) -> Result<Vec<Read<'s>>> {
    if let [(None, _)] = &given[..] {
        return Ok(given.into_iter().map(|(_, read)| read).collect());
    }
    let mut given: Vec<(Option<&str>, Option<Read<'s>>)> =
        given.into_iter().map(|(name, read)| (name, Some(read))).collect();
    let series: Vec<Arc<Series>> =
        given.iter().flat_map(|(_, read)| read).map(|read| read.series.clone()).collect();
    let mut ordered = Vec::with_capacity(given.len());
    for (index, wanted) in model.images.iter().enumerate() {
        let meant: Vec<usize> = (0..given.len())
            .filter(|&i| match (given[i].0, model.selections.get(index)) {
                (Some(name), _) => called(name, wanted),
                (None, Some(rule)) => {
                    series[i].representative().is_some_and(|first| rule.matches(&first.dataset))
                }
                (None, None) => false,
            })
            .collect();
        let uids: Vec<&str> =
            meant.iter().map(|&i| series[i].series_instance_uid.as_str()).collect();
        match meant[..] {
            [one] => match given[one].1.take() {
                Some(read) => ordered.push(read),
                None => {
                    let why = format!("the rules for several images hold for series {}", uids[0]);
                    return Err(refuse(&why, model));
                }
            },
            [] => return Err(refuse(&format!("no series is the image {wanted}"), model)),
            _ => {
                let why = format!("several series are the image {wanted}: {}", uids.join(", "));
                return Err(refuse(&why, model));
            }
        }
    }
    Ok(ordered)
}

/// Checks that images of one input share a frame of reference: positions in different frames of
/// reference cannot be compared, however similar they are.
pub(super) fn check_frame_of_reference(first: Option<&Arc<Series>>, other: &Series) -> Result<()> {
    let of = |series: &Series| {
        let instance = series.representative()?;
        instance.dataset.text(tags::FRAME_OF_REFERENCE_UID)
    };
    let Some(first) = first else { return Ok(()) };
    match (of(first), of(other)) {
        (Some(a), Some(b)) if a != b => Err(Error::new(
            ErrorKind::InvalidImage,
            format!(
                "the series {} and {} have different FrameOfReferenceUIDs, so that their voxels \
                 cannot be brought together; register them before",
                first.series_instance_uid, other.series_instance_uid
            ),
        )
        .with("seriesInstanceUID", other.series_instance_uid.as_str())),
        _ => Ok(()),
    }
}
