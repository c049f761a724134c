//! Connected components of all segments at once, slice by slice. Only the runs of two slices, and those
//! at the ends of a slab, are held.
//!
//! Voxels that share a face, an edge or a corner are connected. A [`Tracer`] joins the runs of a slab
//! of slices. A [`Chain`] joins the slabs and counts a component once no later slice can reach it.

use crate::disjoint::Forest;
use crate::writers::layer::Run;

/// The components of a segment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Number of components.
    pub(super) count: u64,
    /// Number of voxels of the largest.
    pub(super) largest: u64,
}

impl Tally {
    fn add(&mut self, voxels: u64) {
        self.count += 1;
        self.largest = self.largest.max(voxels);
    }

    /// Adds the components of another part.
    pub(super) fn merge(&mut self, other: Self) {
        self.count += other.count;
        self.largest = self.largest.max(other.largest);
    }
}

/// A run and the number of its component.
#[derive(Debug, Clone, Copy)]
struct Member {
    run: Run,
    component: u32,
}

/// The runs of a slice, row by row.
#[derive(Debug, Clone, Default)]
struct Plane {
    members: Vec<Member>,
    /// End index of each row's runs.
    ends: Vec<usize>,
}

impl Plane {
    fn clear(&mut self) {
        self.members.clear();
        self.ends.clear();
    }

    /// Returns the runs of a row; empty if the row does not exist.
    fn row(&self, y: usize) -> &[Member] {
        let start = y.checked_sub(1).map_or(Some(&0), |before| self.ends.get(before));
        let range = start.zip(self.ends.get(y)).map(|(&start, &end)| start..end);
        range.and_then(|range| self.members.get(range)).unwrap_or_default()
    }

    /// Returns the runs of a row and of its two neighbours.
    fn around(&self, y: usize) -> impl Iterator<Item = &[Member]> {
        (y.saturating_sub(1)..=y + 1).map(|y| self.row(y))
    }
}

/// Calls `each` for touching runs of one segment in neighbouring rows.
fn touching(a: &[Member], b: &[Member], mut each: impl FnMut(usize, u32)) {
    let mut rest = b;
    for (index, Member { run, .. }) in a.iter().enumerate() {
        // Corners touch, so a run may begin where its neighbour ends.
        while let [first, others @ ..] = rest
            && (first.run.segment, first.run.end) < (run.segment, run.start)
        {
            rest = others;
        }
        for other in rest {
            if other.run.segment != run.segment || other.run.start > run.end {
                break;
            }
            each(index, other.component);
        }
    }
}

/// A component that is not counted yet.
#[derive(Debug, Clone, Copy)]
struct Open {
    segment: u16,
    voxels: u64,
}

/// Joins the runs of consecutive slices.
#[derive(Default)]
pub(super) struct Tracer {
    forest: Forest,
    components: Vec<Open>,
    first: Option<Plane>,
    before: Plane,
    here: Plane,
}

/// The components of a slab; those at its ends are still open.
pub(super) struct Slab {
    components: Vec<Open>,
    first: Plane,
    last: Plane,
    /// For each segment, the components that no other slab can reach.
    closed: Vec<Tally>,
}

/// Marks "no component". No component has this number: each has a voxel of its own, and a layer is
/// refused if a slab has this many voxels.
const NONE: u32 = u32::MAX;

impl Tracer {
    /// Adds the runs of the next row of a slice.
    pub(super) fn row(&mut self, runs: &[Run]) {
        let y = self.here.ends.len();
        let begin = self.here.members.len();
        if runs.is_empty() {
            self.here.ends.push(begin);
            return;
        }
        self.here.members.extend(runs.iter().map(|&run| Member { run, component: NONE }));
        let Self { forest, here, before, components, .. } = self;
        let (earlier, new) = here.members.split_at_mut(begin);
        let above = match y.checked_sub(1) {
            None => &[][..],
            Some(y) => {
                let start = y.checked_sub(1).and_then(|y| here.ends.get(y)).copied().unwrap_or(0);
                earlier.get(start..).unwrap_or_default()
            }
        };
        let mut found = vec![NONE; new.len()];
        for other in before.around(y).chain([above]) {
            touching(new, other, |index, component| match &mut found[index] {
                none if *none == NONE => *none = component,
                own => forest.join(*own, component),
            });
        }
        for (member, found) in new.iter_mut().zip(found) {
            member.component = if found == NONE {
                components.push(Open { segment: member.run.segment, voxels: 0 });
                forest.push()
            } else {
                found
            };
            components[member.component as usize].voxels +=
                u64::from(member.run.end - member.run.start);
        }
        here.ends.push(here.members.len());
    }

    /// Ends a slice.
    pub(super) fn end_slice(&mut self) {
        self.first.get_or_insert_with(|| self.here.clone());
        std::mem::swap(&mut self.before, &mut self.here);
        self.here.clear();
    }

    /// Ends the slab, which has `segments` segments.
    pub(super) fn finish(mut self, segments: usize) -> Slab {
        let mut first = self.first.unwrap_or_default();
        let mut last = self.before;
        let mut closed = vec![Tally::default(); segments];
        let components =
            settle(&mut self.forest, &self.components, [&mut first, &mut last], &mut closed);
        Slab { components, first, last, closed }
    }
}

/// Adds up the joined components. Those with runs in `planes` are returned, and their runs get the new
/// numbers; the others are counted.
fn settle<const N: usize>(
    forest: &mut Forest,
    components: &[Open],
    planes: [&mut Plane; N],
    closed: &mut [Tally],
) -> Vec<Open> {
    let mut whole = components.to_vec();
    for (index, one) in components.iter().enumerate() {
        let root = forest.root(index as u32) as usize;
        if root != index {
            whole[root].voxels += one.voxels;
        }
    }
    let mut number = vec![NONE; components.len()];
    let mut open = Vec::new();
    for plane in planes {
        for member in &mut plane.members {
            let root = forest.root(member.component) as usize;
            if number[root] == NONE {
                number[root] = open.len() as u32;
                open.push(whole[root]);
            }
            member.component = number[root];
        }
    }
    for (index, one) in whole.iter().enumerate() {
        if number[index] == NONE && forest.root(index as u32) as usize == index {
            closed[usize::from(one.segment)].add(one.voxels);
        }
    }
    open
}

/// Joins slabs, from first to last.
pub(super) struct Chain {
    open: Vec<Open>,
    last: Plane,
    closed: Vec<Tally>,
}

impl Chain {
    /// Creates a chain for this many segments.
    pub(super) fn new(segments: usize) -> Self {
        Self { open: vec![], last: Plane::default(), closed: vec![Tally::default(); segments] }
    }

    /// Adds the next slab.
    pub(super) fn append(&mut self, slab: Slab) {
        for (all, of_slab) in self.closed.iter_mut().zip(slab.closed) {
            all.merge(of_slab);
        }
        let before = self.open.len() as u32;
        let mut components = std::mem::take(&mut self.open);
        components.extend(slab.components);
        let mut forest = Forest::new(components.len());
        for y in 0..slab.first.ends.len() {
            let row = slab.first.row(y);
            for other in self.last.around(y) {
                touching(row, other, |index, component| {
                    forest.join(component, before + row[index].component);
                });
            }
        }
        self.last = slab.last;
        for member in &mut self.last.members {
            member.component += before;
        }
        self.open = settle(&mut forest, &components, [&mut self.last], &mut self.closed);
    }

    /// Returns the components of each segment.
    pub(super) fn finish(self) -> Vec<Tally> {
        let mut closed = self.closed;
        for one in self.open {
            closed[usize::from(one.segment)].add(one.voxels);
        }
        closed
    }
}

/// Worst-case bytes of a slab per pixel of a slice, if every second voxel begins a run: the runs of its
/// first slice, its last and the one in between, in vectors that grew by half or by doubling, and their
/// components. Solid organs need a tenth of it.
pub(super) const NOISE: usize = 3 * size_of::<Member>() + size_of::<Open>() + size_of::<u32>();
