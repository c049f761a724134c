//! Separates the slices of a series from its other instances, with the reason for each of these.
//!
//! Scanners and workstations store more than slices under one SeriesInstanceUID: dose sheets,
//! screenshots, localizers, reports. An instance with the geometry of slices (PS3.3 C.7.6.2) is
//! one; the others are skipped and reported.

use std::collections::BTreeMap;

use dicom_core::Tag;
use dicom_dictionary_std::tags;

use super::{Attributes, Dataset, Instance, Series, classes};

/// Why an instance is not a slice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum NoSlice {
    /// It has no frames.
    NoPixelData,
    /// Its SOP class is that of an object derived from images: a segmentation, a dose distribution.
    Derived(&'static str),
    /// SamplesPerPixel is not 1.
    Colour,
    /// It has neither ImagePositionPatient nor ImageOrientationPatient, anywhere.
    NoGeometry,
    /// Its SOP class is a Secondary Capture.
    SecondaryCapture,
    /// ImageType has the value LOCALIZER.
    Localizer,
}

impl NoSlice {
    /// Whether an instance still counts as a slice if the series has nothing better.
    fn is_soft(self) -> bool {
        matches!(self, Self::SecondaryCapture | Self::Localizer)
    }

    fn describe(self) -> String {
        match self {
            Self::NoPixelData => "without pixel data".to_owned(),
            Self::Derived(what) => format!("of the kind {what}"),
            Self::Colour => "in colour (SamplesPerPixel is not 1)".to_owned(),
            Self::NoGeometry => {
                "without ImagePositionPatient and ImageOrientationPatient".to_owned()
            }
            Self::SecondaryCapture => "of Secondary Capture".to_owned(),
            Self::Localizer => "of localizers".to_owned(),
        }
    }
}

/// A series' instances, separated into slices and others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Slices {
    /// Indices into [`Series::instances`] of the slices, in order.
    pub instances: Vec<usize>,
    /// Indices of the others, with the reason for each.
    pub passed_over: Vec<(usize, NoSlice)>,
}

impl Slices {
    /// Returns one sentence for each reason, with the number of instances; no patient data.
    pub fn warnings(&self) -> Vec<String> {
        self.reasons()
            .into_iter()
            .map(|(reason, count)| {
                format!("{count} instance(s) {} were passed over", reason.describe())
            })
            .collect()
    }

    /// Describes what was found instead of slices, for an error.
    pub fn found(&self) -> String {
        let list: Vec<String> = self
            .reasons()
            .into_iter()
            .map(|(reason, count)| format!("{count} instance(s) {}", reason.describe()))
            .collect();
        if list.is_empty() { "no instances".to_owned() } else { list.join(", ") }
    }

    fn reasons(&self) -> BTreeMap<NoSlice, usize> {
        let mut counts = BTreeMap::new();
        for (_, reason) in &self.passed_over {
            *counts.entry(*reason).or_default() += 1;
        }
        counts
    }
}

impl Series {
    /// Separates slices from everything else in the series.
    ///
    /// Localizers and Secondary Captures with pixels, one sample per pixel and a geometry are
    /// slices if there are no others. An instance with only one of position and orientation counts
    /// as a slice: it is broken and must be rejected, not skipped.
    pub fn slices(&self) -> Slices {
        let reasons: Vec<Option<NoSlice>> = self.instances.iter().map(no_slice).collect();
        let better = reasons.iter().any(Option::is_none);
        let mut slices = Slices::default();
        for (index, reason) in reasons.into_iter().enumerate() {
            match reason {
                Some(reason) if better || !reason.is_soft() => {
                    slices.passed_over.push((index, reason));
                }
                _ => slices.instances.push(index),
            }
        }
        slices
    }

    /// Whether any instance is a slice beyond doubt, neither localizer nor Secondary Capture.
    pub fn holds_slices(&self) -> bool {
        self.instances.iter().any(|instance| no_slice(instance).is_none())
    }

    /// Returns the instance that represents the series when its attributes are needed: the first
    /// slice, or else the first instance.
    pub fn representative(&self) -> Option<&Instance> {
        let first = self.slices().instances.first().copied().unwrap_or(0);
        self.instances.get(first)
    }
}

fn no_slice(instance: &Instance) -> Option<NoSlice> {
    let dataset = &*instance.dataset;
    let class = instance.sop_class_uid.as_str();
    if instance.frames.is_empty() || classes::without_image(class).is_some() {
        return Some(NoSlice::NoPixelData);
    }
    if let Some(what) = classes::derived(class) {
        return Some(NoSlice::Derived(what));
    }
    if dataset.integer(tags::SAMPLES_PER_PIXEL).unwrap_or(1) != 1 {
        return Some(NoSlice::Colour);
    }
    let has = |group, tag| has_somewhere(dataset, group, tag);
    if !has(tags::PLANE_POSITION_SEQUENCE, tags::IMAGE_POSITION_PATIENT)
        && !has(tags::PLANE_ORIENTATION_SEQUENCE, tags::IMAGE_ORIENTATION_PATIENT)
    {
        return Some(NoSlice::NoGeometry);
    }
    if classes::is_secondary_capture(class) {
        return Some(NoSlice::SecondaryCapture);
    }
    let localizer = |value: &String| value.eq_ignore_ascii_case("LOCALIZER");
    dataset.texts(tags::IMAGE_TYPE).iter().any(localizer).then_some(NoSlice::Localizer)
}

/// Whether an attribute has a value at the top level, or in its macro of the shared or any
/// per-frame functional groups (PS3.3 C.7.6.16).
fn has_somewhere(dataset: &Dataset, group: Tag, tag: Tag) -> bool {
    let items = |sequence| -> &[Dataset] {
        let element = dataset.get(sequence);
        element.and_then(|e| e.items()).unwrap_or_default()
    };
    let in_macro = |item: &Dataset| {
        let group = item.get(group);
        group.and_then(|e| e.items()?.first()).is_some_and(|item| item.text(tag).is_some())
    };
    dataset.text(tag).is_some()
        || items(tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE).iter().any(in_macro)
        || items(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE).iter().any(in_macro)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use dicom_core::{DataElement, PrimitiveValue, VR, dicom_value};

    use super::*;
    use crate::dicom::FrameDescriptor;

    const CT: &str = "1.2.840.10008.5.1.4.1.1.2";
    const CAPTURE: &str = "1.2.840.10008.5.1.4.1.1.7";

    fn instance(class: &str, frames: usize, change: impl FnOnce(&mut Dataset)) -> Instance {
        let mut dataset = Dataset::new_empty();
        let position = dicom_value!(Strs, ["0", "0", "1"]);
        dataset.put(DataElement::new(tags::IMAGE_POSITION_PATIENT, VR::DS, position));
        let orientation = dicom_value!(Strs, ["1", "0", "0", "0", "1", "0"]);
        dataset.put(DataElement::new(tags::IMAGE_ORIENTATION_PATIENT, VR::DS, orientation));
        change(&mut dataset);
        Instance {
            dataset: Arc::new(dataset),
            sop_instance_uid: "1.2".to_owned(),
            sop_class_uid: class.to_owned(),
            transfer_syntax: "1.2.840.10008.1.2.1".to_owned(),
            frames: vec![FrameDescriptor::default(); frames],
        }
    }

    fn series(instances: Vec<Instance>) -> Series {
        let (study, series) = ("1.2.3".to_owned(), "1.2.3.4".to_owned());
        Series { study_instance_uid: study, series_instance_uid: series, instances }
    }

    fn no_geometry(dataset: &mut Dataset) {
        dataset.remove_element(tags::IMAGE_POSITION_PATIENT);
        dataset.remove_element(tags::IMAGE_ORIENTATION_PATIENT);
    }

    fn colour(dataset: &mut Dataset) {
        let three = PrimitiveValue::from(3_u16);
        dataset.put(DataElement::new(tags::SAMPLES_PER_PIXEL, VR::US, three));
    }

    fn localizer(dataset: &mut Dataset) {
        let image_type = dicom_value!(Strs, ["ORIGINAL", "PRIMARY", "LOCALIZER"]);
        dataset.put(DataElement::new(tags::IMAGE_TYPE, VR::CS, image_type));
    }

    #[test]
    fn what_is_no_slice_is_told_with_its_reason() {
        let mixed = series(vec![
            instance(CAPTURE, 1, no_geometry),
            instance(CT, 1, |_| {}),
            instance("1.2.840.10008.5.1.4.1.1.88.67", 0, no_geometry),
            instance(CT, 1, colour),
            instance(CAPTURE, 1, |_| {}),
            instance(CT, 1, localizer),
            instance("1.2.840.10008.5.1.4.1.1.66.4", 1, |_| {}),
            instance(CT, 1, |_| {}),
        ]);
        let slices = mixed.slices();
        assert_eq!(slices.instances, [1, 7]);
        let reasons: Vec<NoSlice> = slices.passed_over.iter().map(|(_, reason)| *reason).collect();
        use NoSlice::{Colour, Derived, Localizer, NoGeometry, NoPixelData, SecondaryCapture};
        let expected =
            [NoGeometry, NoPixelData, Colour, SecondaryCapture, Localizer, Derived("segmentation")];
        assert_eq!(reasons, expected);
        assert_eq!(slices.warnings().len(), 6);
        assert!(mixed.holds_slices());
        assert_eq!(mixed.representative().unwrap().sop_class_uid, CT);
    }

    #[test]
    fn localizers_and_captures_are_slices_where_there_is_nothing_better() {
        let scouts = series(vec![instance(CT, 1, localizer), instance(CT, 1, localizer)]);
        assert_eq!(scouts.slices().instances, [0, 1]);
        assert!(!scouts.holds_slices());
        let sheets = series(vec![instance(CAPTURE, 1, no_geometry), instance(CAPTURE, 1, colour)]);
        assert!(sheets.slices().instances.is_empty());
        assert!(sheets.slices().found().contains("1 instance(s) in colour"));
    }

    #[test]
    fn a_slice_that_lacks_half_its_geometry_is_not_left_out() {
        let broken = series(vec![
            instance(CT, 1, |_| {}),
            instance(CT, 1, |d| assert!(d.remove_element(tags::IMAGE_POSITION_PATIENT))),
        ]);
        assert_eq!(broken.slices().instances, [0, 1]);
    }

    #[test]
    fn geometry_in_functional_groups_is_geometry() {
        let enhanced = instance("1.2.840.10008.5.1.4.1.1.4.1", 2, |dataset| {
            let position = dataset.element(tags::IMAGE_POSITION_PATIENT).unwrap().clone();
            no_geometry(dataset);
            let sequence = |tag, items: Vec<Dataset>| {
                let items = dicom_core::value::DataSetSequence::from(items);
                DataElement::new(tag, VR::SQ, items)
            };
            let plane = Dataset::from_element_iter([position]);
            let group = sequence(tags::PLANE_POSITION_SEQUENCE, vec![plane]);
            let frame = Dataset::from_element_iter([group]);
            dataset.put(sequence(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE, vec![frame]));
        });
        assert_eq!(series(vec![enhanced]).slices().instances, [0]);
    }
}
