//! Separates the volumes of one series by the attributes in which their frames differ.
//!
//! A series may hold phases, echoes, b-values or time points of the same slices. If several frames
//! lie at one position, the first attribute of [`ATTRIBUTES`](super::traits::ATTRIBUTES) that
//! differs between them splits the frames, and so on within each part, until every position has a
//! single frame.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use super::affine::dot;
use super::slice::FrameGeometry;
use super::traits::{TIMES, name_of, values};
use crate::dicom::Series;
use crate::policy::Value;

/// Keyword and value of an attribute that distinguishes volumes.
pub(super) type Trait = (Cow<'static, str>, Value);

/// Tolerance along the normal within which positions count as equal, in millimetres; for pixels
/// smaller than a millimetre, as a fraction of the pixel.
const SAME_POSITION: f64 = 0.01;

/// Maximum number of parts of a split; a different value for every frame does not distinguish
/// volumes.
const MOST_PARTS: usize = 10_000;

/// The frames of one volume, and the traits that distinguish it.
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub frames: Vec<FrameGeometry>,
    pub traits: Vec<Trait>,
}

/// Splits frames on one grid, along `normal`, into volumes. Returns a single one without traits if
/// every position has one frame. Frames at one position that nothing distinguishes stay together.
pub(super) fn split(series: &Series, frames: Vec<FrameGeometry>, normal: [f64; 3]) -> Vec<Part> {
    let slots = slots(&frames, normal);
    if most_in_a_slot(&slots, &(0..frames.len()).collect::<Vec<_>>()) < 2 {
        return vec![Part { frames, traits: Vec::new() }];
    }
    let table = Table { known: Known::of(series, &frames), slots };
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

/// Splits by one attribute into parts whose ranges along the normal overlap and each of which is a
/// regular stack by itself, as decided by `regular`: acquisitions with interleaved slices.
pub(super) fn interleaved(
    series: &Series,
    frames: &[FrameGeometry],
    normal: [f64; 3],
    regular: impl Fn(&[FrameGeometry]) -> bool,
) -> Option<Vec<Part>> {
    const MOST: usize = 16;
    let known = Known::of(series, frames);
    for (&key, name) in &known.names {
        let groups = known.grouped(&(0..frames.len()).collect::<Vec<_>>(), key);
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

/// Returns for each frame the index of its position along the normal.
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

/// Returns the distance along the normal within which another frame has the same position as this
/// one.
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

/// The attributes of frames and their positions, by index.
struct Table {
    known: Known,
    slots: Vec<usize>,
}

/// Members of a part, and its traits.
type Members = (Vec<usize>, Vec<Trait>);

impl Table {
    /// Divides `members` by the attributes from `first` on. The recursion is as deep as there are
    /// attributes.
    fn divide(&self, members: Vec<usize>, first: usize, traits: Vec<Trait>, to: &mut Vec<Members>) {
        let most = most_in_a_slot(&self.slots, &members);
        if most < 2 {
            to.push((members, traits));
            return;
        }
        for (&key, name) in self.known.names.range(first..) {
            if !self.tells_apart(&members, key) {
                continue;
            }
            let groups = self.known.grouped(&members, key);
            if !self.is_a_split(&members, &groups, most) {
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
        let mut seen: BTreeMap<usize, Option<u32>> = BTreeMap::new();
        members.iter().any(|&index| {
            let value = self.known.id(index, key);
            *seen.entry(self.slots[index]).or_insert(value) != value
        })
    }

    /// Whether groups are volumes: there are no more groups than frames at a position, or each has
    /// several slices.
    fn is_a_split(&self, members: &[usize], groups: &[Group], most: usize) -> bool {
        let one_slice = members.iter().all(|&m| self.slots[m] == self.slots[members[0]]);
        let stacks = || {
            groups.iter().all(|(_, group)| {
                group.iter().any(|&index| self.slots[index] != self.slots[group[0]])
            })
        };
        groups.len() <= most || (groups.len() <= MOST_PARTS && (one_slice || stacks()))
    }

    /// Divides the frames at each position by the order of their times: the first frame of every
    /// position forms the first volume. Only if every position has the same number of frames.
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
        let times = self.known.names.iter().filter(|(_, name)| by_time(name));
        for (key, name) in times.filter(|_| complete) {
            let mut volumes = vec![Vec::with_capacity(by_slot.len()); most];
            let distinct = by_slot.values().all(|slot| {
                let mut slot: Vec<(&Value, usize)> = slot
                    .iter()
                    .filter_map(|&index| Some((self.known.value(index, *key)?, index)))
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

/// Values of frames. Each distinct value is stored once, because frames of an enhanced instance
/// share most of them.
struct Known {
    /// Attributes in the order they are tried.
    names: BTreeMap<usize, Cow<'static, str>>,
    /// For each frame its values by key, in ascending order of keys.
    frames: Vec<Vec<(u16, u32)>>,
    distinct: Vec<Value>,
}

impl Known {
    fn of(series: &Series, frames: &[FrameGeometry]) -> Self {
        let mut known = Self { names: BTreeMap::new(), frames: Vec::new(), distinct: Vec::new() };
        let mut ids: HashMap<(Option<u64>, String), u32> = HashMap::new();
        for frame in frames {
            let mut own = Vec::new();
            for (key, value) in values(series, frame) {
                let same = match &value {
                    Value::Number(number) => (Some(number.to_bits()), String::new()),
                    Value::Text(text) => (None, text.clone()),
                };
                let id = *ids.entry(same).or_insert_with(|| {
                    known.distinct.push(value);
                    (known.distinct.len() - 1) as u32
                });
                known.names.entry(key).or_insert_with(|| name_of(key));
                own.push((key as u16, id));
            }
            known.frames.push(own);
        }
        known
    }

    fn id(&self, index: usize, key: usize) -> Option<u32> {
        let own = &self.frames[index];
        let place = own.binary_search_by_key(&key, |&(key, _)| usize::from(key)).ok()?;
        Some(own[place].1)
    }

    fn value(&self, index: usize, key: usize) -> Option<&Value> {
        self.id(index, key).map(|id| &self.distinct[id as usize])
    }

    /// Groups members by value, in the order of the values; those without a value first.
    fn grouped(&self, members: &[usize], key: usize) -> Vec<Group> {
        let mut by_id: HashMap<Option<u32>, Vec<usize>> = HashMap::new();
        for &index in members {
            by_id.entry(self.id(index, key)).or_default().push(index);
        }
        let value = |id: Option<u32>| id.map(|id| self.distinct[id as usize].clone());
        let mut groups: Vec<Group> =
            by_id.into_iter().map(|(id, group)| (value(id), group)).collect();
        groups.sort_by(|(a, _), (b, _)| match (a, b) {
            (Some(a), Some(b)) => a.compare(b),
            (a, b) => a.is_some().cmp(&b.is_some()),
        });
        groups
    }
}
