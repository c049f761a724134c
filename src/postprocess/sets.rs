//! Overlapping classes in a single image.
//!
//! `AsDiscreted(to_onehot=n)` creates one channel per class, and later operations treat each channel
//! separately: a filled hole may belong to two classes, a removed voxel to none. Full-size channels are
//! never created. Instead, each voxel stores the code of its set of classes, and there are few distinct
//! sets.

use std::collections::HashMap;

use ndarray::{Array3, ArrayView3, Axis, Slice};

use super::arrays::like;
use super::boxes::{Bounds, boxes_of_values, widen};
use crate::error::{Error, ErrorKind, Result};

/// An image of sets of classes.
#[derive(Debug, Clone, PartialEq)]
pub struct ClassSets {
    /// The code of each voxel, axes (X, Y, Z).
    codes: Array3<u16>,
    /// The classes of each code, ascending. Code 0 is the empty set.
    members: Vec<Vec<u16>>,
    index: HashMap<Vec<u16>, u16>,
    classes: usize,
}

impl ClassSets {
    /// Creates the one-hot form of labels: each voxel belongs to the class of its label, including
    /// background.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidModel`] if a label is not one of the classes.
    pub fn one_hot(labels: ArrayView3<u8>, classes: usize) -> Result<Self> {
        let wrong = labels.iter().find(|label| usize::from(**label) >= classes);
        if let Some(label) = wrong {
            return Err(Error::new(
                ErrorKind::InvalidModel,
                format!("postprocessing: to_onehot is {classes}, and the result has label {label}"),
            ));
        }
        let mut codes = like(&labels)?;
        ndarray::Zip::from(&mut codes)
            .and(&labels)
            .par_for_each(|code, &label| *code = u16::from(label) + 1);
        let mut this = Self { codes, members: Vec::new(), index: HashMap::new(), classes };
        this.code_of(Vec::new())?;
        for class in 0..classes.min(256) as u16 {
            this.code_of(vec![class])?;
        }
        Ok(this)
    }

    /// Returns codes on another grid with the same sets.
    pub(super) fn with_codes(&self, codes: Array3<u16>) -> Self {
        let (members, index) = (self.members.clone(), self.index.clone());
        Self { codes, members, index, classes: self.classes }
    }

    /// Returns the code of each voxel, axes (X, Y, Z).
    pub fn codes(&self) -> ArrayView3<'_, u16> {
        self.codes.view()
    }

    pub(super) fn codes_mut(&mut self) -> &mut Array3<u16> {
        &mut self.codes
    }

    /// Returns the classes of each code, ascending.
    pub fn members(&self) -> &[Vec<u16>] {
        &self.members
    }

    /// Returns the number of classes, including background.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Returns the code of a set of classes.
    pub(super) fn code_of(&mut self, set: Vec<u16>) -> Result<u16> {
        if let Some(&code) = self.index.get(&set) {
            return Ok(code);
        }
        let code = u16::try_from(self.members.len()).map_err(|_| {
            Error::new(
                ErrorKind::InvalidImage,
                "classes of the result overlap in more than 65536 combinations",
            )
        })?;
        self.members.push(set.clone());
        self.index.insert(set, code);
        Ok(code)
    }

    /// Returns the number of voxels of each code.
    pub fn histogram(&self) -> Vec<u64> {
        let none = || vec![0_u64; self.members.len()];
        ndarray::Zip::from(&self.codes).par_fold(
            none,
            |mut counts, &code| {
                counts[usize::from(code)] += 1;
                counts
            },
            |mut a, b| {
                a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
                a
            },
        )
    }

    /// Whether any voxel belongs to two classes other than background.
    pub fn overlap(&self) -> bool {
        let several = |set: &[u16]| set.iter().filter(|class| **class != 0).count() > 1;
        let counts = self.histogram();
        self.members.iter().zip(counts).any(|(set, count)| count > 0 && several(set))
    }

    /// Converts the image to labels, by a function from a set of classes to a label.
    pub(super) fn labels(&self, label: impl Fn(&[u16]) -> u8) -> Result<Array3<u8>> {
        let table: Vec<u8> = self.members.iter().map(|set| label(set)).collect();
        let mut labels = like(&self.codes.view())?;
        ndarray::Zip::from(&mut labels)
            .and(&self.codes)
            .par_for_each(|label, &code| *label = table[usize::from(code)]);
        Ok(labels)
    }

    /// Returns, for each code, whether its set contains one of `classes`.
    fn having(&self, classes: &[u16]) -> Vec<bool> {
        self.members.iter().map(|set| set.iter().any(|class| classes.contains(class))).collect()
    }

    /// Returns the bounding box of each class; `None` for a class without voxels.
    pub(super) fn boxes(&self) -> Vec<Option<Bounds>> {
        let by_code = boxes_of_values(self.codes.view(), self.members.len());
        let mut boxes = vec![None; self.classes];
        for (set, found) in self.members.iter().zip(by_code) {
            if let Some(found) = found {
                set.iter().for_each(|&class| widen(&mut boxes[usize::from(class)], found));
            }
        }
        boxes
    }

    /// Returns a mask of a box: 1 if a voxel belongs to one of `classes`.
    pub(super) fn mask(&self, classes: &[u16], bounds: Bounds) -> Result<Array3<u8>> {
        let having = self.having(classes);
        let part = within(self.codes.view(), bounds);
        let mut mask = like(&part)?;
        ndarray::Zip::from(&mut mask)
            .and(&part)
            .par_for_each(|m, &code| *m = u8::from(having[usize::from(code)]));
        Ok(mask)
    }

    /// Sets, within a box, the voxels of `class` to those where the mask is not 0.
    pub(super) fn set_mask(
        &mut self,
        class: u16,
        bounds: Bounds,
        mask: ArrayView3<u8>,
    ) -> Result<()> {
        let having = self.having(&[class]);
        self.recode(
            bounds,
            mask,
            |code, m| having[code] != (m != 0),
            |set| match set.binary_search(&class) {
                Ok(at) => {
                    set.remove(at);
                }
                Err(at) => set.insert(at, class),
            },
        )
    }

    /// Removes `classes` from voxels of a box that belong to one of them where the mask is 0.
    pub(super) fn keep(
        &mut self,
        classes: &[u16],
        bounds: Bounds,
        mask: ArrayView3<u8>,
    ) -> Result<()> {
        let having = self.having(classes);
        self.recode(
            bounds,
            mask,
            |code, m| having[code] && m == 0,
            |set| {
                set.retain(|class| !classes.contains(class));
            },
        )
    }

    /// Removes all voxels from all classes.
    pub(super) fn clear(&mut self) {
        self.codes.par_mapv_inplace(|_| 0);
    }

    /// Changes the sets of voxels of a box that `wanted` selects by code and mask.
    fn recode(
        &mut self,
        bounds: Bounds,
        mask: ArrayView3<u8>,
        wanted: impl Fn(usize, u8) -> bool + Sync,
        change: impl Fn(&mut Vec<u16>),
    ) -> Result<()> {
        let known = self.members.len();
        let none = || vec![false; known];
        let part = within(self.codes.view(), bounds);
        let changing = ndarray::Zip::from(&part).and(&mask).par_fold(
            none,
            |mut changing, &code, &m| {
                changing[usize::from(code)] |= wanted(usize::from(code), m);
                changing
            },
            |mut a, b| {
                a.iter_mut().zip(b).for_each(|(a, b)| *a |= b);
                a
            },
        );
        let mut next: Vec<u16> = vec![0; known];
        for (code, _) in changing.iter().enumerate().filter(|(_, changing)| **changing) {
            let mut set = self.members[code].clone();
            change(&mut set);
            next[code] = self.code_of(set)?;
        }
        let mut part = self.codes.view_mut();
        for (axis, (first, last)) in bounds.into_iter().enumerate() {
            part.slice_axis_inplace(Axis(axis), Slice::from(first..last + 1));
        }
        ndarray::Zip::from(&mut part).and(&mask).par_for_each(|code, &m| {
            if wanted(usize::from(*code), m) {
                *code = next[usize::from(*code)];
            }
        });
        Ok(())
    }

    /// Removes classes from all sets.
    pub(crate) fn forget(&mut self, classes: &[u16]) {
        for set in &mut self.members {
            set.retain(|class| !classes.contains(class));
        }
        self.index.clear();
        for (set, code) in self.members.iter().zip(0_u16..) {
            self.index.entry(set.clone()).or_insert(code);
        }
    }

    /// Returns the mask of one class, X varying fastest as in the codes.
    pub fn class_mask(&self, class: u16) -> Result<Array3<u8>> {
        let (x, y, z) = self.codes.dim();
        let whole = [x, y, z].map(|n| (0, n.saturating_sub(1)));
        self.mask(&[class], whole)
    }
}

fn within(mut image: ArrayView3<u16>, bounds: Bounds) -> ArrayView3<u16> {
    for (axis, (first, last)) in bounds.into_iter().enumerate() {
        image.slice_axis_inplace(Axis(axis), Slice::from(first..last + 1));
    }
    image
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_overlap_and_are_empty() {
        let labels = Array3::from_shape_fn((3, 1, 1), |(x, _, _)| x as u8);
        assert!(ClassSets::one_hot(labels.view(), 2).is_err());
        let mut sets = ClassSets::one_hot(labels.view(), 3).unwrap();
        let whole = [(0, 2), (0, 0), (0, 0)];
        assert_eq!(sets.class_mask(1).unwrap().iter().copied().collect::<Vec<_>>(), [0, 1, 0]);
        assert_eq!(sets.boxes()[2], Some([(2, 2), (0, 0), (0, 0)]));
        assert!(!sets.overlap());

        let everywhere = Array3::from_elem((3, 1, 1), 1_u8);
        sets.set_mask(1, whole, everywhere.view()).unwrap();
        assert!(sets.overlap());
        let of = |sets: &ClassSets| {
            sets.codes().iter().map(|c| sets.members()[usize::from(*c)].clone()).collect::<Vec<_>>()
        };
        assert_eq!(of(&sets), [vec![0, 1], vec![1], vec![1, 2]]);
        sets.keep(&[1, 2], whole, Array3::zeros((3, 1, 1)).view()).unwrap();
        assert_eq!(of(&sets), [vec![0], vec![], vec![]]);
        let first = |set: &[u16]| set.first().map_or(0, |class| *class as u8);
        assert_eq!(sets.labels(first).unwrap().sum(), 0);
    }
}
