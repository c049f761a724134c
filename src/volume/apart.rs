//! Volumes of one series told apart by the attributes in which their frames differ.
//!
//! A series may hold phases, echoes, b-values or time points of the same slices. Where several frames
//! lie at one position, the first attribute of [`ATTRIBUTES`] that differs between them splits the
//! frames, and so on within each part until no position is taken twice.

use std::borrow::Cow;
use std::collections::BTreeMap;

use dicom_core::Tag;
use dicom_dictionary_std::tags;

use super::affine::dot;
use super::places::Places;
use super::slice::FrameGeometry;
use crate::dicom::{Attributes, Dataset, Series};
use crate::policy::Value;

/// Keyword and value of an attribute that tells volumes apart.
pub(super) type Trait = (Cow<'static, str>, Value);

/// Distances along the normal below this, in millimetres, or below this share of a pixel smaller than a
/// millimetre, count as the same position.
const SAME_POSITION: f64 = 0.01;

/// Parts of a split that are looked at; a value of its own for every frame tells no volumes apart.
const MOST_PARTS: usize = 10_000;

/// Where an attribute stands in an enhanced instance.
struct Place {
    keyword: &'static str,
    tag: Tag,
    /// Functional group macro; the top level alone where absent.
    group: Option<Tag>,
    /// A sequence within the macro.
    within: Option<Tag>,
}

const fn top(keyword: &'static str, tag: Tag) -> Place {
    Place { keyword, tag, group: None, within: None }
}

const fn grouped(keyword: &'static str, tag: Tag, group: Tag) -> Place {
    Place { keyword, tag, group: Some(group), within: None }
}

/// In the order in which they are tried: what somebody would name a volume by comes first, numbers that
/// are merely counted and times last.
const ATTRIBUTES: [Place; 33] = [
    top("TemporalPositionIdentifier", tags::TEMPORAL_POSITION_IDENTIFIER),
    grouped("TemporalPositionIndex", tags::TEMPORAL_POSITION_INDEX, tags::FRAME_CONTENT_SEQUENCE),
    grouped(
        "TemporalPositionTimeOffset",
        tags::TEMPORAL_POSITION_TIME_OFFSET,
        tags::TEMPORAL_POSITION_SEQUENCE,
    ),
    top("TriggerTime", tags::TRIGGER_TIME),
    grouped(
        "NominalCardiacTriggerDelayTime",
        tags::NOMINAL_CARDIAC_TRIGGER_DELAY_TIME,
        tags::CARDIAC_SYNCHRONIZATION_SEQUENCE,
    ),
    grouped(
        "NominalPercentageOfCardiacPhase",
        tags::NOMINAL_PERCENTAGE_OF_CARDIAC_PHASE,
        tags::CARDIAC_SYNCHRONIZATION_SEQUENCE,
    ),
    top("EchoTime", tags::ECHO_TIME),
    grouped("EffectiveEchoTime", tags::EFFECTIVE_ECHO_TIME, tags::MR_ECHO_SEQUENCE),
    top("EchoNumbers", tags::ECHO_NUMBERS),
    top("InversionTime", tags::INVERSION_TIME),
    grouped("InversionTimes", tags::INVERSION_TIMES, tags::MR_MODIFIER_SEQUENCE),
    grouped("FlipAngle", tags::FLIP_ANGLE, tags::MR_TIMING_AND_RELATED_PARAMETERS_SEQUENCE),
    grouped("DiffusionBValue", tags::DIFFUSION_B_VALUE, tags::MR_DIFFUSION_SEQUENCE),
    grouped("DiffusionDirectionality", tags::DIFFUSION_DIRECTIONALITY, tags::MR_DIFFUSION_SEQUENCE),
    Place {
        keyword: "DiffusionGradientOrientation",
        tag: tags::DIFFUSION_GRADIENT_ORIENTATION,
        group: Some(tags::MR_DIFFUSION_SEQUENCE),
        within: Some(tags::DIFFUSION_GRADIENT_DIRECTION_SEQUENCE),
    },
    grouped(
        "ComplexImageComponent",
        tags::COMPLEX_IMAGE_COMPONENT,
        tags::MR_IMAGE_FRAME_TYPE_SEQUENCE,
    ),
    top("ImageType", tags::IMAGE_TYPE),
    grouped("FrameType", tags::FRAME_TYPE, tags::MR_IMAGE_FRAME_TYPE_SEQUENCE),
    grouped("FrameType", tags::FRAME_TYPE, tags::CT_IMAGE_FRAME_TYPE_SEQUENCE),
    grouped("FrameType", tags::FRAME_TYPE, tags::PET_FRAME_TYPE_SEQUENCE),
    grouped("ConvolutionKernel", tags::CONVOLUTION_KERNEL, tags::CT_RECONSTRUCTION_SEQUENCE),
    grouped("KVP", tags::KVP, tags::CTX_RAY_DETAILS_SEQUENCE),
    grouped("SliceThickness", tags::SLICE_THICKNESS, tags::PIXEL_MEASURES_SEQUENCE),
    grouped("StackID", tags::STACK_ID, tags::FRAME_CONTENT_SEQUENCE),
    top("AcquisitionNumber", tags::ACQUISITION_NUMBER),
    grouped("FrameAcquisitionNumber", tags::FRAME_ACQUISITION_NUMBER, tags::FRAME_CONTENT_SEQUENCE),
    top("FrameReferenceTime", tags::FRAME_REFERENCE_TIME),
    top("AcquisitionDateTime", tags::ACQUISITION_DATE_TIME),
    top("AcquisitionTime", tags::ACQUISITION_TIME),
    top("ContentTime", tags::CONTENT_TIME),
    grouped(
        "FrameReferenceDateTime",
        tags::FRAME_REFERENCE_DATE_TIME,
        tags::FRAME_CONTENT_SEQUENCE,
    ),
    grouped(
        "FrameAcquisitionDateTime",
        tags::FRAME_ACQUISITION_DATE_TIME,
        tags::FRAME_CONTENT_SEQUENCE,
    ),
    top("SeriesTime", tags::SERIES_TIME),
];

/// Attributes by whose order frames at one position are told apart, where slices of one volume have
/// different values too: a slice after the other is acquired, at every time point.
const TIMES: [&str; 6] = [
    "TriggerTime",
    "FrameReferenceTime",
    "AcquisitionTime",
    "ContentTime",
    "FrameReferenceDateTime",
    "FrameAcquisitionDateTime",
];

/// Longest value that is kept.
const LONGEST_VALUE: usize = 200;

/// Frames of one volume, and what tells it apart from the others.
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub frames: Vec<FrameGeometry>,
    pub traits: Vec<Trait>,
}

/// Splits frames on one grid, along `normal`, into volumes; a single one without traits where no
/// position is taken twice. Where nothing tells frames at one position apart they stay together.
pub(super) fn split(series: &Series, frames: Vec<FrameGeometry>, normal: [f64; 3]) -> Vec<Part> {
    let slots = slots(&frames, normal);
    if most_in_a_slot(&slots, &(0..frames.len()).collect::<Vec<_>>()) < 2 {
        return vec![Part { frames, traits: Vec::new() }];
    }
    let known: Vec<BTreeMap<usize, Value>> = frames.iter().map(|f| values(series, f)).collect();
    let table = Table { names: names(&known), known, slots };
    let mut parts = Vec::new();
    table.divide((0..frames.len()).collect(), 0, Vec::new(), &mut parts);
    parts
        .into_iter()
        .map(|(members, traits)| Part {
            frames: members.into_iter().map(|index| frames[index].clone()).collect(),
            traits,
        })
        .collect()
}

/// Parts by one attribute whose ranges along the normal overlap and each of which is a stack by
/// itself, as `regular` tells: acquisitions that lie between each other's slices.
pub(super) fn interleaved(
    series: &Series,
    frames: &[FrameGeometry],
    normal: [f64; 3],
    regular: impl Fn(&[FrameGeometry]) -> bool,
) -> Option<Vec<Part>> {
    const MOST: usize = 16;
    let known: Vec<BTreeMap<usize, Value>> = frames.iter().map(|f| values(series, f)).collect();
    let names = names(&known);
    for (&key, name) in &names {
        let groups = grouped_by(&(0..frames.len()).collect::<Vec<_>>(), |i| known[i].get(&key));
        if !(2..=MOST).contains(&groups.len()) || groups.iter().any(|(_, g)| g.len() < 3) {
            continue;
        }
        let parts: Vec<Part> = groups
            .into_iter()
            .map(|(value, members)| Part {
                frames: members.into_iter().map(|index| frames[index].clone()).collect(),
                traits: vec![(name.clone(), value.unwrap_or_else(absent))],
            })
            .collect();
        let range = |part: &Part| {
            let heights = part.frames.iter().map(|f| dot(f.position, normal));
            heights.fold((f64::MAX, f64::MIN), |(low, high), h| (low.min(h), high.max(h)))
        };
        let ranges: Vec<(f64, f64)> = parts.iter().map(range).collect();
        let overlap = ranges.iter().enumerate().any(|(i, a)| {
            ranges[i + 1..].iter().any(|b| a.0.max(b.0) + SAME_POSITION < a.1.min(b.1))
        });
        if overlap && parts.iter().all(|part| regular(&part.frames)) {
            return Some(parts);
        }
    }
    None
}

fn absent() -> Value {
    Value::Text("none".to_owned())
}

/// For each frame the number of its position along the normal.
fn slots(frames: &[FrameGeometry], normal: [f64; 3]) -> Vec<usize> {
    let heights: Vec<f64> = frames.iter().map(|f| dot(f.position, normal)).collect();
    let mut order: Vec<usize> = (0..frames.len()).collect();
    order.sort_by(|&a, &b| heights[a].total_cmp(&heights[b]));
    let mut slots = vec![0; frames.len()];
    let (mut slot, mut start) = (0, f64::MIN);
    for index in order {
        if heights[index] - start > same_position(&frames[index]) {
            slot += 1;
            start = heights[index];
        }
        slots[index] = slot;
    }
    slots
}

/// Distance along the normal below which another frame lies at the position of this one.
pub(super) fn same_position(frame: &FrameGeometry) -> f64 {
    SAME_POSITION * frame.pixel_spacing[0].min(1.0)
}

fn most_in_a_slot(slots: &[usize], members: &[usize]) -> usize {
    let mut counts = BTreeMap::new();
    for &member in members {
        *counts.entry(slots[member]).or_insert(0) += 1;
    }
    counts.into_values().max().unwrap_or(0)
}

/// What is known of frames, by index.
struct Table {
    /// Attributes in the order in which they are tried.
    names: BTreeMap<usize, Cow<'static, str>>,
    known: Vec<BTreeMap<usize, Value>>,
    slots: Vec<usize>,
}

/// Members of a part, and its traits.
type Members = (Vec<usize>, Vec<Trait>);

impl Table {
    /// Divides `members` by the attributes from `first` on. As deep as there are attributes.
    fn divide(&self, members: Vec<usize>, first: usize, traits: Vec<Trait>, to: &mut Vec<Members>) {
        let most = most_in_a_slot(&self.slots, &members);
        if most < 2 {
            to.push((members, traits));
            return;
        }
        for (&key, name) in self.names.range(first..) {
            let groups = grouped_by(&members, |index| self.known[index].get(&key));
            if !self.tells_apart(&members, key) || !self.is_a_split(&members, &groups, most) {
                continue;
            }
            for (value, group) in groups {
                let mut traits = traits.clone();
                traits.push((name.clone(), value.unwrap_or_else(absent)));
                self.divide(group, key + 1, traits, to);
            }
            return;
        }
        self.divide_by_order(members, most, traits, to);
    }

    /// Whether frames at one position differ in an attribute.
    fn tells_apart(&self, members: &[usize], key: usize) -> bool {
        let mut seen: BTreeMap<usize, Option<&Value>> = BTreeMap::new();
        members.iter().any(|&index| {
            let value = self.known[index].get(&key);
            *seen.entry(self.slots[index]).or_insert(value) != value
        })
    }

    /// Whether groups are volumes: no more than frames lie at a position, or each of several slices.
    fn is_a_split(&self, members: &[usize], groups: &[Group], most: usize) -> bool {
        let one_slice = members.iter().all(|&m| self.slots[m] == self.slots[members[0]]);
        let stacks = || {
            groups.iter().all(|(_, group)| {
                group.iter().any(|&index| self.slots[index] != self.slots[group[0]])
            })
        };
        groups.len() <= most || (groups.len() <= MOST_PARTS && (one_slice || stacks()))
    }

    /// The frames at each position in the order of their times: the first of every position is the
    /// first volume. Only where every position has as many.
    fn divide_by_order(
        &self,
        members: Vec<usize>,
        most: usize,
        traits: Vec<Trait>,
        to: &mut Vec<Members>,
    ) {
        let mut by_slot: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for &index in &members {
            by_slot.entry(self.slots[index]).or_default().push(index);
        }
        let complete = by_slot.len() > 1 && by_slot.values().all(|slot| slot.len() == most);
        let by_time = |name: &Cow<str>| TIMES.contains(&name.as_ref());
        let times = self.names.iter().filter(|(_, name)| by_time(name));
        for (key, name) in times.filter(|_| complete) {
            let mut volumes = vec![Vec::with_capacity(by_slot.len()); most];
            let distinct = by_slot.values().all(|slot| {
                let mut slot: Vec<(&Value, usize)> = slot
                    .iter()
                    .filter_map(|&index| Some((self.known[index].get(key)?, index)))
                    .collect();
                slot.sort_by(|(a, _), (b, _)| a.compare(b));
                for (volume, (_, index)) in volumes.iter_mut().zip(&slot) {
                    volume.push(*index);
                }
                slot.len() == most && slot.windows(2).all(|pair| pair[0].0 != pair[1].0)
            });
            if distinct {
                for (rank, volume) in volumes.into_iter().enumerate() {
                    let mut traits = traits.clone();
                    let name = Cow::Owned(format!("{name} order"));
                    traits.push((name, Value::Number((rank + 1) as f64)));
                    to.push((volume, traits));
                }
                return;
            }
        }
        to.push((members, traits));
    }
}

/// Members that share a value.
type Group = (Option<Value>, Vec<usize>);

/// Members by value, in the order of the values; those without one first.
fn grouped_by<'v>(members: &[usize], value: impl Fn(usize) -> Option<&'v Value>) -> Vec<Group> {
    let mut sorted: Vec<(Option<&Value>, usize)> =
        members.iter().map(|&index| (value(index), index)).collect();
    sorted.sort_by(|(a, _), (b, _)| match (a, b) {
        (Some(a), Some(b)) => a.compare(b),
        (a, b) => a.is_some().cmp(&b.is_some()),
    });
    let mut groups: Vec<Group> = Vec::new();
    for (value, index) in sorted {
        match groups.last_mut() {
            Some((last, group)) if last.as_ref() == value => group.push(index),
            _ => groups.push((value.cloned(), vec![index])),
        }
    }
    groups
}

/// First key of the dimension indices, which follow the attributes.
const DIMENSIONS: usize = ATTRIBUTES.len();
/// Key of the instance, which comes last.
const INSTANCE: usize = DIMENSIONS + MOST_DIMENSIONS;
/// Dimensions of a multi-frame instance that are looked at.
const MOST_DIMENSIONS: usize = 32;

fn names(known: &[BTreeMap<usize, Value>]) -> BTreeMap<usize, Cow<'static, str>> {
    let mut names = BTreeMap::new();
    for key in known.iter().flat_map(BTreeMap::keys) {
        names.entry(*key).or_insert_with(|| match *key {
            INSTANCE => Cow::Borrowed("SOPInstanceUID"),
            key if key >= DIMENSIONS => {
                Cow::Owned(format!("DimensionIndexValues.{}", key - DIMENSIONS + 1))
            }
            key => Cow::Borrowed(ATTRIBUTES[key].keyword),
        });
    }
    names
}

/// What a frame has of [`ATTRIBUTES`], its dimension indices (PS3.3 C.7.6.17), and for a multi-frame
/// instance its UID, by key.
fn values(series: &Series, frame: &FrameGeometry) -> BTreeMap<usize, Value> {
    let instance = &series.instances[frame.key.instance];
    let dataset = &*instance.dataset;
    let mut values = BTreeMap::new();
    for (key, place) in ATTRIBUTES.iter().enumerate() {
        if let Some(value) = place.value(dataset, frame.key.frame) {
            values.insert(key, value);
        }
    }
    for (tag, value) in [
        (tags::DIFFUSION_B_VALUE, private_b_value(dataset).map(Value::Number)),
        (tags::COMPLEX_IMAGE_COMPONENT, private_component(dataset)),
    ] {
        let key = ATTRIBUTES.iter().position(|place| place.tag == tag);
        if let (Some(key), Some(value)) = (key, value) {
            values.entry(key).or_insert(value);
        }
    }
    if instance.frames.len() > 1 {
        let content = Places::new(dataset, frame.key.frame, tags::FRAME_CONTENT_SEQUENCE);
        let indices = content.texts(tags::DIMENSION_INDEX_VALUES);
        for (dimension, index) in indices.into_iter().take(MOST_DIMENSIONS).enumerate() {
            if let Some(value) = value_of(&[index]) {
                values.insert(DIMENSIONS + dimension, value);
            }
        }
        let uid: String = instance.sop_instance_uid.chars().take(64).collect();
        values.insert(INSTANCE, Value::Text(uid));
    }
    values
}

impl Place {
    fn value(&self, dataset: &Dataset, frame: usize) -> Option<Value> {
        let Some(group) = self.group else { return value_of(&dataset.texts(self.tag)) };
        match self.within {
            None => value_of(&Places::new(dataset, frame, group).texts(self.tag)),
            Some(within) => {
                let own = Places::new(dataset, frame, group).item(within)?;
                value_of(&own.texts(self.tag))
            }
        }
    }
}

/// A number where there is a single one, otherwise the texts with backslashes between them.
fn value_of(texts: &[String]) -> Option<Value> {
    match texts {
        [] => None,
        [one] if one.is_empty() => None,
        [one] => match one.parse::<f64>() {
            Ok(number) if number.is_finite() => Some(Value::Number(number)),
            _ => Some(Value::Text(one.chars().take(LONGEST_VALUE).collect())),
        },
        several => Some(Value::Text(several.join("\\").chars().take(LONGEST_VALUE).collect())),
    }
}

/// The b-value where manufacturers kept it before DICOM had an attribute for it: group, private
/// creator, element within its block.
const B_VALUES: [(u16, &str, u8); 3] = [
    (0x0019, "SIEMENS MR HEADER", 0x0C),
    (0x0043, "GEMS_PARM_01", 0x39),
    (0x2001, "Philips Imaging DD 001", 0x03),
];

fn private_b_value(dataset: &Dataset) -> Option<f64> {
    // GE adds a thousand million where the direction is a vendor's.
    const MARK: f64 = 1e7;
    let number = |&(group, creator, element): &(u16, &str, u8)| -> Option<f64> {
        private_value(dataset, group, creator, element)?.parse().ok()
    };
    B_VALUES.iter().find_map(number).filter(|b| b.is_finite() && *b >= 0.0).map(|b| b % MARK)
}

/// GE's number for what ComplexImageComponent says.
fn private_component(dataset: &Dataset) -> Option<Value> {
    let component = match private_value(dataset, 0x0043, "GEMS_PARM_01", 0x2F)?.as_str() {
        "0" => "MAGNITUDE",
        "1" => "PHASE",
        "2" => "REAL",
        "3" => "IMAGINARY",
        _ => return None,
    };
    Some(Value::Text(component.to_owned()))
}

/// The first value of a private attribute as text without padding.
fn private_value(dataset: &Dataset, group: u16, creator: &str, element: u8) -> Option<String> {
    let element = dataset.private_element(group, creator, element).ok()?;
    let text = match element.value().primitive()? {
        // Of implicit VR, where its representation is not known.
        dicom_core::PrimitiveValue::U8(bytes) => String::from_utf8(bytes.to_vec()).ok()?,
        other => other.to_multi_str().first()?.clone(),
    };
    let first = text.split('\\').next()?;
    Some(first.trim_matches(|c: char| c == '\0' || c.is_whitespace()).to_owned())
}
