//! The images of one input, in the order the model takes them.

use dicom_dictionary_std::tags;

use crate::dicom::{Attributes, Series};
use crate::error::{Error, ErrorKind, Result};
use crate::source::ImageSource;

/// `given` in the order of `wanted`, the names of the model's images, compared without case. A
/// model of one image takes one without a name. What does not fit is
/// [`ErrorKind::InvalidRequest`], naming the images wanted.
pub(super) fn in_order<'s>(
    given: &[(Option<String>, &'s dyn ImageSource)],
    wanted: &[String],
) -> Result<Vec<&'s dyn ImageSource>> {
    let refuse = |why: String| {
        let names = wanted.join(", ");
        let how = if wanted.len() > 1 {
            format!("give \"images\" with one image set for each of: {names}")
        } else {
            "give one image set".to_owned()
        };
        Err(Error::new(ErrorKind::InvalidRequest, format!("{why}; {how}")).with("images", names))
    };
    if let ([(None, only)], [_]) = (given, wanted) {
        return Ok(vec![*only]);
    }
    if given.iter().any(|(name, _)| name.is_none()) {
        return refuse(format!("the model takes {} images at once", wanted.len()));
    }
    let called = |name: &Option<String>, wanted: &str| {
        name.as_ref().is_some_and(|name| name.trim().to_lowercase() == wanted.to_lowercase())
    };
    if let Some((Some(name), _)) =
        given.iter().find(|(name, _)| !wanted.iter().any(|wanted| called(name, wanted)))
    {
        // What a client sent by mistake may be a patient's name.
        let length = name.chars().count();
        return refuse(format!(
            "an image has a name ({length} characters) the model does not know"
        ));
    }
    let mut ordered = Vec::with_capacity(wanted.len());
    for wanted in wanted {
        let mut found = given.iter().filter(|(name, _)| called(name, wanted));
        match (found.next(), found.next()) {
            (Some((_, source)), None) => ordered.push(*source),
            (None, _) => return refuse(format!("the image {wanted} is missing")),
            (Some(_), Some(_)) => return refuse(format!("the image {wanted} is there twice")),
        }
    }
    Ok(ordered)
}

/// Images of one input must share a frame of reference: positions of different ones cannot be
/// compared, however alike they are.
pub(super) fn check_frame_of_reference(
    first: Option<&std::sync::Arc<Series>>,
    other: &Series,
) -> Result<()> {
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
