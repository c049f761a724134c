//! `serving.json`: what a model package may say beyond MONAI's bundle, about the objects that are
//! made of its results. The file is optional, and so is every field:
//!
//! ```json
//! {
//!   "seriesDescription": "Spleen segmentation, not for clinical use",
//!   "segments": [
//!     {
//!       "label": "spleen",
//!       "segmentLabel": "Spleen",
//!       "category": {"value": "91723000", "scheme": "SCT", "meaning": "Anatomical Structure"},
//!       "type": {"value": "78961009", "scheme": "SCT", "meaning": "Spleen"},
//!       "color": [157, 108, 162]
//!     }
//!   ],
//!   "algorithm": {"name": "spleen_ct_segmentation", "version": "0.5.9"},
//!   "outputs": ["dicom-seg"]
//! }
//! ```
//!
//! A segment names its class by `label`, the name in the bundle's `channel_def`, or by `channel`,
//! its number. What it leaves out, and every class it does not list, gets a default: the name in
//! `channel_def` as Segment Label and the codes that are known for such a name. Fields that do not
//! exist are an error, because a misspelt one would be silently without effect.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::anatomy;
use crate::dicom::segment::{Algorithm, Code, SegmentDescription, check_text};
use crate::error::{Error, ErrorKind, Result};
use crate::request::OutputKind;

/// The contents of `serving.json`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Serving {
    /// Series Description of the objects written, at most 64 characters.
    pub series_description: Option<String>,
    /// Classes that differ from their defaults.
    #[serde(default)]
    pub segments: Vec<ServingSegment>,
    /// Name and version of the algorithm, where they are not the bundle's own.
    pub algorithm: Option<Algorithm>,
    /// What is made of a result when a request does not say.
    #[serde(default)]
    pub outputs: Vec<OutputKind>,
}

/// One class.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ServingSegment {
    /// The class's name in `channel_def`, compared without case. Either this or `channel`.
    pub label: Option<String>,
    /// The class's number in `channel_def`.
    pub channel: Option<usize>,
    /// Segment Label, at most 64 characters.
    pub segment_label: Option<String>,
    /// Segmented Property Category.
    pub category: Option<Code>,
    /// Segmented Property Type.
    #[serde(rename = "type")]
    pub property_type: Option<Code>,
    /// Segmented Property Type Modifier, such as left or right.
    pub type_modifier: Option<Code>,
    /// Anatomic Region of an abnormality.
    pub anatomic_region: Option<Code>,
    /// Display colour, sRGB.
    pub color: Option<[u8; 3]>,
}

impl Serving {
    /// Reads the file; `None` where there is none.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`] where it cannot be read, otherwise those of [`parse`](Self::parse).
    pub fn read(path: &Path) -> Result<Option<Self>> {
        match std::fs::read(path) {
            Ok(bytes) => Self::parse(&bytes).map(Some),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::new(ErrorKind::Io, "serving.json cannot be read").caused_by(e)),
        }
    }

    /// Reads the file's contents.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidModel`], naming the JSON path at fault.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let mut json = serde_json::Deserializer::from_slice(bytes);
        let serving: Self = serde_path_to_error::deserialize(&mut json)
            .map_err(|e| fault(&e.path().to_string(), &e.inner().to_string()))?;
        json.end().map_err(|e| fault(".", &e.to_string()))?;
        if let Some(text) = &serving.series_description {
            check_text(text, 64, "seriesDescription").map_err(|e| e.context("serving.json"))?;
        }
        if let Some(algorithm) = &serving.algorithm {
            algorithm.check().map_err(|e| e.context("serving.json"))?;
        }
        for (index, segment) in serving.segments.iter().enumerate() {
            if segment.label.is_some() == segment.channel.is_some() {
                return Err(fault(
                    &format!("segments[{index}]"),
                    "one of label and channel says which class is meant; give exactly one",
                ));
            }
        }
        Ok(serving)
    }
}

/// The segments of a model, in the order of its channels.
///
/// `channel_def` is that of the network's output in `metadata.json`. Channel 0 named `background`
/// is no segment, and the value of every other class in the label map is its channel. A network
/// with a single channel that is not background has the value 1 where it says yes.
///
/// # Errors
///
/// [`ErrorKind::InvalidModel`] where there is no foreground class, where the first of several
/// channels is not background (then they may overlap, and no label map holds them), or where
/// `serving.json` names a class that does not exist, names one twice, or has a text that DICOM
/// cannot hold.
pub fn segment_descriptions(
    channel_def: &BTreeMap<usize, String>,
    serving: Option<&Serving>,
) -> Result<Vec<SegmentDescription>> {
    let classes = foreground(channel_def)?;
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
    /// Its value in the label map.
    value: u16,
    name: &'a str,
}

fn foreground(channel_def: &BTreeMap<usize, String>) -> Result<Vec<Class<'_>>> {
    let invalid = |why: &str| {
        Err(Error::new(ErrorKind::InvalidModel, format!("metadata.json: channel_def {why}")))
    };
    let is_background = |name: &str| name.trim().eq_ignore_ascii_case("background");
    let mut classes = Vec::new();
    for (&channel, name) in channel_def {
        let name = name.trim();
        let value = match channel {
            0 if is_background(name) => continue,
            0 if channel_def.len() == 1 => 1,
            0 => {
                return invalid(
                    "begins with a class that is not background: several classes that may overlap \
                     do not fit into one label map",
                );
            }
            channel => channel,
        };
        let Ok(value) = u16::try_from(value) else {
            return invalid(&format!("has channel {channel}; 65535 is the last that is supported"));
        };
        classes.push(Class { channel, value, name });
    }
    if classes.is_empty() {
        return invalid("names no foreground class");
    }
    Ok(classes)
}

impl Class<'_> {
    /// Whether `segment` means this class.
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
        if known.is_none() && own_type.is_none() {
            tracing::warn!(
                channel = self.channel,
                name = self.name,
                "no code is known for this class, it is written as Tissue; give it a type in \
                 serving.json"
            );
        }
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
                .unwrap_or_else(|| readable(self.name)),
            category: chosen(|s| &s.category).unwrap_or(default.category),
            property_type: own_type.unwrap_or(default.property_type),
            type_modifier: chosen(|s| &s.type_modifier).or(default_modifier),
            anatomic_region: chosen(|s| &s.anatomic_region),
            color: segment.and_then(|segment| segment.color),
        }
    }
}

/// `kidney_right` as a label for people: `Kidney right`.
fn readable(name: &str) -> String {
    let name = name.replace('_', " ");
    let mut characters = name.chars();
    characters
        .next()
        .map_or_else(String::new, |first| first.to_uppercase().chain(characters).collect())
}

fn fault(path: &str, why: &str) -> Error {
    Error::new(ErrorKind::InvalidModel, format!("serving.json: {path}: {why}")).with("path", path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channels(names: &[&str]) -> BTreeMap<usize, String> {
        names.iter().map(|&name| name.to_owned()).enumerate().collect()
    }

    fn parse(json: &str) -> Serving {
        Serving::parse(json.as_bytes()).unwrap()
    }

    fn refusal(json: &str) -> Error {
        Serving::parse(json.as_bytes()).unwrap_err()
    }

    #[test]
    fn defaults_come_from_the_names() {
        let found = segment_descriptions(
            &channels(&["background", "spleen", "kidney_right", "blob"]),
            None,
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
        )
        .unwrap();
        let [lung, kidney] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!(lung.property_type, Code::new("1", "99X", "Blob"));
        // Left belonged to the lung.
        assert_eq!(lung.type_modifier, None);
        assert_eq!((kidney.label.as_str(), kidney.color), ("Right kidney", Some([1, 2, 3])));
        assert_eq!(kidney.property_type.meaning, "Kidney");
    }

    #[test]
    fn everything_in_the_file_is_read() {
        let serving = parse(
            r#"{"seriesDescription": "S", "algorithm": {"name": "a", "version": "2"},
                "outputs": ["dicom-seg", "nifti"]}"#,
        );
        assert_eq!(serving.series_description.as_deref(), Some("S"));
        assert_eq!(serving.algorithm, Some(Algorithm::new("a", "2")));
        assert_eq!(serving.outputs, [OutputKind::DicomSeg, OutputKind::Nifti]);
        assert_eq!(parse("{}"), Serving::default());
    }

    #[test]
    fn errors_name_the_path() {
        for (json, path) in [
            (r#"{"seriesdescription": "x"}"#, "seriesdescription"),
            (
                r#"{"segments": [{"label": "a"}, {"label": "b", "colour": 1}]}"#,
                "segments[1].colour",
            ),
            (r#"{"segments": [{"label": "a", "type": {"value": 7}}]}"#, "segments[0].type.value"),
            (r#"{"segments": [{"label": "a", "color": [1, 2, 300]}]}"#, "segments[0].color[2]"),
            (r#"{"segments": [{"segmentLabel": "a"}]}"#, "segments[0]"),
            (r#"{"segments": [{"label": "a", "channel": 1}]}"#, "segments[0]"),
            (r#"{"outputs": ["stl"]}"#, "outputs[0]"),
            (r#"{"seriesDescription": ""}"#, "seriesDescription"),
            (r#"{"algorithm": {"name": "a", "version": " "}}"#, "algorithm.version"),
            (r#"{} {}"#, "trailing"),
        ] {
            let e = refusal(json);
            assert_eq!(e.kind(), ErrorKind::InvalidModel);
            assert!(e.message().contains(path), "{json}: {e}");
        }
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
            let e = segment_descriptions(&classes, Some(&parse(json))).unwrap_err();
            assert!(e.message().contains(what), "{json}: {e}");
        }
    }

    #[test]
    fn channels_without_background() {
        let single = segment_descriptions(&channels(&["spleen"]), None).unwrap();
        assert_eq!(single.first().map(|segment| segment.value), Some(1));
        for names in [&["Tumor core", "Whole tumor"][..], &["background"], &[]] {
            let e = segment_descriptions(&channels(names), None).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::InvalidModel, "{names:?}");
        }
    }

    #[test]
    fn an_absent_file_is_none() {
        assert_eq!(Serving::read(Path::new("no such folder/serving.json")).unwrap(), None);
    }
}
