//! Selects the segments of a model that a request wants.

use ndarray::Array3;

use crate::dicom::segment::SegmentDescription;
use crate::error::{Error, ErrorKind, Result};
use crate::postprocess::Segmentation;

/// Returns the segments with the `wanted` labels, in the model's order; all if none are given. Labels
/// are compared case-insensitively.
///
/// # Errors
/// [`ErrorKind::InvalidRequest`] if a name is not a segment's; the message lists the labels.
pub(super) fn segments(
    all: &[SegmentDescription],
    wanted: &[String],
) -> Result<Vec<SegmentDescription>> {
    let same = |name: &str, label: &str| name.to_lowercase() == label.to_lowercase();
    if wanted.is_empty() {
        return Ok(all.to_vec());
    }
    if wanted.iter().any(|name| !all.iter().any(|segment| same(name, &segment.label))) {
        let labels: Vec<&str> = all.iter().map(|segment| segment.label.as_str()).collect();
        return Err(Error::new(
            ErrorKind::InvalidRequest,
            format!("segments names one that the model has not; it has {}", labels.join(", ")),
        )
        .with("field", "segments")
        .with("segments", labels));
    }
    let chosen =
        |segment: &&SegmentDescription| wanted.iter().any(|name| same(name, &segment.label));
    Ok(all.iter().filter(chosen).cloned().collect())
}

/// Removes everything from a result that does not belong to `chosen`; `all` are the model's segments. A
/// label that the model does not describe is kept, because writers report it as an error.
pub(super) fn restrict(
    segmentation: &mut Segmentation,
    all: &[SegmentDescription],
    chosen: &[SegmentDescription],
) {
    if all.len() == chosen.len() {
        return;
    }
    let given_up: Vec<u16> = all
        .iter()
        .map(|segment| segment.value)
        .filter(|value| chosen.iter().all(|segment| segment.value != *value))
        .collect();
    match segmentation {
        Segmentation::Labels(labels) => clear(labels, &given_up),
        // Channels that are not requested are never read.
        Segmentation::Masks(_) => {}
        Segmentation::Sets(sets) => sets.forget(&given_up),
    }
}

fn clear(labels: &mut Array3<u8>, values: &[u16]) {
    let mut table: [u8; 256] = std::array::from_fn(|value| value as u8);
    for &value in values {
        if let Some(entry) = table.get_mut(usize::from(value)) {
            *entry = 0;
        }
    }
    labels.par_mapv_inplace(|label| table[usize::from(label)]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postprocess::ClassSets;

    #[test]
    fn segments_are_named_by_their_labels() {
        let all = [
            SegmentDescription::tissue(1, "Liver"),
            SegmentDescription::tissue(2, "Spleen"),
            SegmentDescription::tissue(3, "Aorta"),
        ];
        let names =
            |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let chosen = |wanted: &[&str]| {
            segments(&all, &names(wanted))
                .map(|chosen| chosen.iter().map(|s| s.value).collect::<Vec<_>>())
        };
        assert_eq!(chosen(&[]).unwrap(), [1, 2, 3]);
        assert_eq!(chosen(&["aorta", "LIVER"]).unwrap(), [1, 3], "in the model's order");
        let error = chosen(&["Liver", "Kidney"]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidRequest);
        assert!(error.message().contains("Liver, Spleen, Aorta"), "{error}");
        assert!(!error.message().contains("Kidney"), "the client's words are not repeated");
    }

    #[test]
    fn what_is_not_asked_for_becomes_background() {
        let all = [SegmentDescription::tissue(1, "a"), SegmentDescription::tissue(2, "b")];
        let labels = Array3::from_shape_fn((3, 2, 2), |(x, _, _)| x as u8);
        let mut one = Segmentation::Labels(labels.clone());
        restrict(&mut one, &all, &all[1..]);
        let Segmentation::Labels(kept) = &one else { unreachable!() };
        assert_eq!(kept, &labels.mapv(|label| if label == 2 { 2 } else { 0 }));
        let mut sets = Segmentation::Sets(ClassSets::one_hot(labels.view(), 3).unwrap());
        restrict(&mut sets, &all, &all[1..]);
        let Segmentation::Sets(sets) = &sets else { unreachable!() };
        assert_eq!(sets.class_mask(1).unwrap().iter().filter(|v| **v != 0).count(), 0);
        assert_eq!(sets.class_mask(2).unwrap().iter().filter(|v| **v != 0).count(), 4);
    }
}
