//! The images of one input, in the order the model takes them.

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

/// Whether the images' names, compared without case, are those the model wants, each once; or
/// whether it can tell as many without names apart.
///
/// # Errors
///
/// [`ErrorKind::InvalidRequest`], naming the images wanted.
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
        // What a client sent by mistake may be a patient's name.
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

/// Whether images of these names, known before any of them is fetched, may be what the model takes:
/// each of its images once, or a single place in which its rules choose.
///
/// # Errors
///
/// [`ErrorKind::InvalidRequest`], naming the images wanted.
pub(super) fn check_given(names: &[Option<&str>], model: &Model) -> Result<()> {
    match names {
        [None] => Ok(()),
        _ => check_names(names, model),
    }
}

/// Modalities of objects that belong to images but are none.
const NO_IMAGES: [&str; 10] =
    ["SEG", "SR", "PR", "KO", "RTSTRUCT", "RTPLAN", "RTDOSE", "REG", "DOC", "FID"];

/// Series that are asked about at the same time: a study may have hundreds, each of them megabytes.
const AT_ONCE: usize = 4;

/// An image whose headers were read.
pub(super) struct Read<'s> {
    /// Where it is.
    pub source: &'s dyn ImageSource,
    /// Its headers.
    pub series: Arc<Series>,
    /// Which volume of the series, where the request says it.
    pub volume: Option<VolumeChoice>,
}

/// An image's name, if the request gives it one, and the image.
type Described<'s> = (Option<&'s str>, Read<'s>);

/// Reads the headers of what is given. A place that holds several series stands for the one of
/// images in it; where the package's rules choose among them, or the model takes several at once, for all of
/// them.
///
/// # Errors
/// Those of the sources; [`ErrorKind::InvalidRequest`] where names are not the model's, or where a
/// place holds several series and nothing tells which is meant.
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

/// The one series of images.
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

/// Leaves out series without slices, where there are others: pictures of a screen, scouts and reports are
/// never what is meant, whatever their other attributes say.
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

/// UID, modality and number of instances: nothing of the patient.
fn summary(series: &Series) -> String {
    let modality = modality(series);
    format!(
        "{} ({}, {} instances)",
        series.series_instance_uid,
        modality.as_deref().unwrap_or("no modality"),
        series.instances.len()
    )
}

/// The images, whose names were checked, in the order of the model's.
///
/// # Errors
///
/// [`ErrorKind::InvalidRequest`] where a rule of the model package holds for none or several of
/// them, or several rules for one, naming image and series.
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

/// Images of one input must share a frame of reference: positions of different ones cannot be
/// compared, however alike they are.
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
