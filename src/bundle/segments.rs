//! The segments of a model's result: the classes of `metadata.json`, described by `serving.json` or
//! from their names.

use std::collections::BTreeMap;

use super::anatomy;
use super::serving::{Serving, ServingSegment, fault};
use crate::dicom::segment::{Code, SegmentDescription};
use crate::error::{Error, ErrorKind, Result};

/// What the voxels of a result mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResultForm {
    /// One label per voxel: the channel with the largest value. With a single channel, 1 for
    /// foreground.
    Labels,
    /// Each channel is a separate mask, and masks may overlap.
    Masks,
    /// Masks merged into labels: the first of these channels whose mask is set gives the label beside
    /// it.
    Merged(Vec<(usize, u8)>),
}

impl ResultForm {
    /// Whether this many segments of the result can overlap. Labels that postprocessing turns into
    /// one-hot channels overlap in some results only, and count as labels.
    pub fn overlaps(&self, segments: usize) -> bool {
        *self == Self::Masks && segments > 1
    }
}

/// Returns the segments of a model, in the order of their values in the result.
///
/// `channel_def` is that of the network's output in `metadata.json`. Channel 0 is not a segment if it
/// is named `background`. The value of every other class is its channel in a label map, its channel
/// plus one among masks, and its label if masks were merged. A network with a single channel that is
/// not background has the value 1 for foreground.
///
/// Merging removes from a class the voxels that an earlier case claimed. The segment's label then says
/// so: a "whole tumor" without its core is not one.
///
/// # Errors
///
/// [`ErrorKind::InvalidModel`] if there is no foreground class, if the first of several channels of a
/// label map is not background, or if `serving.json` names a class that does not exist, names one
/// twice, or has a text that DICOM cannot represent.
pub fn segment_descriptions(
    channel_def: &BTreeMap<usize, String>,
    serving: Option<&Serving>,
    form: &ResultForm,
) -> Result<Vec<SegmentDescription>> {
    let classes = foreground(channel_def, form)?;
    let mut chosen: BTreeMap<usize, (usize, &ServingSegment)> = BTreeMap::new();
    for (index, segment) in serving.map_or(&[][..], |serving| &serving.segments).iter().enumerate()
    {
        let path = format!("segments[{index}]");
        let class = classes.iter().find(|class| class.is(segment)).ok_or_else(|| {
            let names: Vec<&str> = classes.iter().map(|class| class.name).collect();
            let names = names.join(", ");
            fault(
                &path,
                &format!("no foreground class of that label or channel; there are: {names}"),
            )
        })?;
        if let Some((other, _)) = chosen.insert(class.channel, (index, segment)) {
            return Err(fault(
                &path,
                &format!("the class {:?} is described by segments[{other}] already", class.name),
            ));
        }
    }
    let typed = |class: &Class| {
        let own = chosen.get(&class.channel).and_then(|(_, s)| s.property_type.as_ref());
        own.is_some() || anatomy::lookup(class.name).is_some()
    };
    let unknown: Vec<&str> = classes.iter().filter(|c| !typed(c)).map(|c| c.name).collect();
    if !unknown.is_empty() {
        tracing::warn!(
            classes = unknown.join(", "),
            "no code is known for these classes, they are written as Tissue; give them a type in \
             serving.json"
        );
    }
    classes
        .iter()
        .map(|class| {
            let chosen = chosen.get(&class.channel);
            let description = class.describe(chosen.map(|(_, segment)| *segment));
            description.check().map_err(|e| match chosen {
                Some((index, _)) => e.context(format!("serving.json: segments[{index}]")),
                None => e.context("metadata.json: channel_def"),
            })?;
            Ok(description)
        })
        .collect()
}

/// A foreground class of the network.
struct Class<'a> {
    channel: usize,
    /// Its value in the result.
    value: u16,
    name: &'a str,
    /// The classes that took voxels from it.
    without: Vec<&'a str>,
}

fn invalid(why: &str) -> Error {
    Error::new(ErrorKind::InvalidModel, format!("metadata.json: channel_def {why}"))
}

fn foreground<'a>(
    channel_def: &'a BTreeMap<usize, String>,
    form: &ResultForm,
) -> Result<Vec<Class<'a>>> {
    let classes = match form {
        ResultForm::Merged(cases) => merged(channel_def, cases)?,
        ResultForm::Labels | ResultForm::Masks => plain(channel_def, form)?,
    };
    if classes.is_empty() {
        return Err(invalid("names no foreground class"));
    }
    Ok(classes)
}

fn plain<'a>(
    channel_def: &'a BTreeMap<usize, String>,
    form: &ResultForm,
) -> Result<Vec<Class<'a>>> {
    let mut classes = Vec::new();
    for (&channel, name) in channel_def {
        let name = name.trim();
        let value = match channel {
            0 if name.eq_ignore_ascii_case("background") => continue,
            channel if *form == ResultForm::Masks => channel + 1,
            0 if channel_def.len() == 1 => 1,
            0 => {
                return Err(invalid(
                    "begins with a class that is not background, and its label would be 0, which \
                     is background",
                ));
            }
            channel => channel,
        };
        let value = u16::try_from(value).map_err(|_| {
            invalid(&format!("has channel {channel}; 65534 is the last that is supported"))
        })?;
        classes.push(Class { channel, value, name, without: Vec::new() });
    }
    Ok(classes)
}

/// Returns the classes by the label that their masks become.
fn merged<'a>(
    channel_def: &'a BTreeMap<usize, String>,
    cases: &[(usize, u8)],
) -> Result<Vec<Class<'a>>> {
    let mut classes: Vec<Class<'a>> = Vec::new();
    let mut earlier: Vec<&str> = Vec::new();
    for &(channel, label) in cases {
        let name = channel_def
            .get(&channel)
            .ok_or_else(|| invalid(&format!("does not name channel {channel}, which is a label")))?
            .trim();
        if label > 0 {
            let value = u16::from(label);
            if classes.iter().any(|class| class.value == value) {
                let why = format!("has two classes that become label {label}; they have no name");
                return Err(invalid(&why));
            }
            classes.push(Class { channel, value, name, without: earlier.clone() });
        }
        earlier.push(name);
    }
    classes.sort_by_key(|class| class.value);
    Ok(classes)
}

impl Class<'_> {
    /// Whether `segment` describes this class.
    fn is(&self, segment: &ServingSegment) -> bool {
        segment.channel == Some(self.channel)
            || segment
                .label
                .as_ref()
                .is_some_and(|label| label.trim().to_lowercase() == self.name.to_lowercase())
    }

    fn describe(&self, segment: Option<&ServingSegment>) -> SegmentDescription {
        let own_type = segment.and_then(|segment| segment.property_type.clone());
        let known = anatomy::lookup(self.name);
        let default = known.unwrap_or_else(anatomy::unknown);
        // A modifier belongs to the type it was found with.
        let default_modifier = default.type_modifier.filter(|_| own_type.is_none());
        let chosen = |field: fn(&ServingSegment) -> &Option<Code>| {
            segment.and_then(|segment| field(segment).clone())
        };
        SegmentDescription {
            value: self.value,
            label: segment
                .and_then(|segment| segment.segment_label.clone())
                .unwrap_or_else(|| self.readable()),
            category: chosen(|s| &s.category).unwrap_or(default.category),
            property_type: own_type.unwrap_or(default.property_type),
            type_modifier: chosen(|s| &s.type_modifier).or(default_modifier),
            anatomic_region: chosen(|s| &s.anatomic_region),
            color: segment.and_then(|segment| segment.color),
        }
    }

    /// Returns the name as a readable label, with the classes it lacks, as far as they fit into Segment
    /// Label.
    fn readable(&self) -> String {
        let name = readable(self.name);
        if self.without.is_empty() {
            return name;
        }
        let lacking: Vec<String> = self.without.iter().map(|name| readable(name)).collect();
        let full = format!("{name} without {}", lacking.join(", "));
        if full.chars().count() <= LONGEST_LABEL { full } else { format!("{name}, remainder") }
    }
}

/// Maximum length of Segment Label (0062,0005).
const LONGEST_LABEL: usize = 64;

/// Turns `kidney_right` into the readable label `Kidney right`.
fn readable(name: &str) -> String {
    let name = name.replace('_', " ");
    let mut characters = name.chars();
    characters
        .next()
        .map_or_else(String::new, |first| first.to_uppercase().chain(characters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Serving {
        Serving::parse(json.as_bytes()).unwrap()
    }

    fn channels(names: &[&str]) -> BTreeMap<usize, String> {
        names.iter().map(|&name| name.to_owned()).enumerate().collect()
    }

    #[test]
    fn defaults_come_from_the_names() {
        let found = segment_descriptions(
            &channels(&["background", "spleen", "kidney_right", "blob"]),
            None,
            &ResultForm::Labels,
        )
        .unwrap();
        let [spleen, kidney, blob] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!((spleen.value, spleen.label.as_str()), (1, "Spleen"));
        assert_eq!(spleen.category, Code::sct("91723000", "Anatomical Structure"));
        assert_eq!(spleen.property_type, Code::sct("78961009", "Spleen"));
        assert_eq!(kidney.label, "Kidney right");
        assert_eq!(kidney.type_modifier, Some(Code::sct("24028007", "Right")));
        assert_eq!((blob.value, &blob.property_type), (3, &Code::sct("85756007", "Tissue")));
    }

    #[test]
    fn a_package_overrides_by_label_or_channel() {
        let serving = parse(
            r#"{"segments": [
                {"label": "KIDNEY_right", "segmentLabel": "Right kidney", "color": [1, 2, 3]},
                {"channel": 1, "type": {"value": "1", "scheme": "99X", "meaning": "Blob"}}
            ]}"#,
        );
        let found = segment_descriptions(
            &channels(&["background", "left lung", "kidney_right"]),
            Some(&serving),
            &ResultForm::Labels,
        )
        .unwrap();
        let [lung, kidney] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!(lung.property_type, Code::new("1", "99X", "Blob"));
        // The modifier "left" belonged to the lung.
        assert_eq!(lung.type_modifier, None);
        assert_eq!((kidney.label.as_str(), kidney.color), ("Right kidney", Some([1, 2, 3])));
        assert_eq!(kidney.property_type.meaning, "Kidney");
    }

    #[test]
    fn a_segment_must_be_one_of_the_classes() {
        let classes = channels(&["background", "spleen"]);
        for (json, what) in [
            (r#"{"segments": [{"label": "liver"}]}"#, "there are: spleen"),
            (r#"{"segments": [{"channel": 0}]}"#, "there are: spleen"),
            (r#"{"segments": [{"channel": 1}, {"label": "Spleen"}]}"#, "by segments[0] already"),
            (
                r#"{"segments": [{"channel": 1, "segmentLabel": "a\\b"}]}"#,
                "segments[0]: segment of",
            ),
        ] {
            let e = segment_descriptions(&classes, Some(&parse(json)), &ResultForm::Labels)
                .unwrap_err();
            assert!(e.message().contains(what), "{json}: {e}");
        }
    }

    #[test]
    fn channels_without_background() {
        let single =
            segment_descriptions(&channels(&["spleen"]), None, &ResultForm::Labels).unwrap();
        assert_eq!(single.first().map(|segment| segment.value), Some(1));
        for names in [&["Tumor core", "Whole tumor"][..], &["background"], &[]] {
            let e = segment_descriptions(&channels(names), None, &ResultForm::Labels).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::InvalidModel, "{names:?}");
        }
    }

    #[test]
    fn masks_count_from_one() {
        let found = segment_descriptions(
            &channels(&["Tumor core", "Whole tumor"]),
            None,
            &ResultForm::Masks,
        );
        let values: Vec<u16> = found.unwrap().iter().map(|s| s.value).collect();
        assert_eq!(values, [1, 2]);
        let found = segment_descriptions(&channels(&["Background", "a"]), None, &ResultForm::Masks)
            .unwrap();
        assert_eq!((found.len(), found[0].value), (1, 2));
    }

    #[test]
    fn merged_masks_say_what_they_lack() {
        let classes = channels(&["Tumor core", "Whole tumor", "Enhancing tumor"]);
        let form = ResultForm::Merged(vec![(2, 4), (0, 1), (1, 2)]);
        let found = segment_descriptions(&classes, None, &form).unwrap();
        let named: Vec<(u16, &str)> = found.iter().map(|s| (s.value, s.label.as_str())).collect();
        assert_eq!(
            named,
            [
                (1, "Tumor core without Enhancing tumor"),
                (2, "Whole tumor without Enhancing tumor, Tumor core"),
                (4, "Enhancing tumor"),
            ]
        );
        let serving = parse(r#"{"segments": [{"channel": 1, "segmentLabel": "Edema"}]}"#);
        let found = segment_descriptions(&classes, Some(&serving), &form).unwrap();
        assert_eq!(found[1].label, "Edema");
        let unknown = ResultForm::Merged(vec![(3, 1)]);
        assert!(segment_descriptions(&classes, None, &unknown).is_err());
    }
}
