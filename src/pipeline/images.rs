//! The images of one input, in the order the model takes them.

use std::sync::Arc;

use dicom_dictionary_std::tags;

use crate::dicom::{Attributes, Series};
use crate::error::{Error, ErrorKind, Result};
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
pub(super) fn check_names(
    given: &[(Option<String>, &dyn ImageSource)],
    model: &Model,
) -> Result<()> {
    let wanted = &model.images;
    let names: Vec<&str> = given.iter().filter_map(|(name, _)| name.as_deref()).collect();
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

/// An image's source and its series.
type Read<'s> = (&'s dyn ImageSource, Arc<Series>);

/// The images, whose names were checked, in the order of the model's.
///
/// # Errors
///
/// [`ErrorKind::InvalidRequest`] where a rule of the model package holds for none or several of
/// them, or several rules for one, naming image and series.
pub(super) fn in_order<'s>(
    given: Vec<(Option<&str>, &'s dyn ImageSource, Arc<Series>)>,
    model: &Model,
) -> Result<Vec<Read<'s>>> {
    if let [(None, source, series)] = &given[..] {
        return Ok(vec![(*source, series.clone())]);
    }
    let mut taken = vec![false; given.len()];
    let mut ordered = Vec::with_capacity(given.len());
    for (index, wanted) in model.images.iter().enumerate() {
        let meant: Vec<usize> = (0..given.len())
            .filter(|&i| match (given[i].0, model.selections.get(index)) {
                (Some(name), _) => called(name, wanted),
                (None, Some(rule)) => {
                    given[i].2.instances.first().is_some_and(|first| rule.matches(&first.dataset))
                }
                (None, None) => false,
            })
            .collect();
        let uids: Vec<&str> =
            meant.iter().map(|&i| given[i].2.series_instance_uid.as_str()).collect();
        match meant[..] {
            [one] if !taken[one] => {
                taken[one] = true;
                ordered.push((given[one].1, given[one].2.clone()));
            }
            [_] => {
                let why = format!("the rules for several images hold for series {}", uids[0]);
                return Err(refuse(&why, model));
            }
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
        let instance = series.instances.first()?;
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
