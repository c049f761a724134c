//! `Flipd` and `Rotate90d`: reverse and swap axes, as views.

use super::orientation::{turned, turned_extent};
use super::{Extent, Image, Transform};
use crate::bundle::Args;
use crate::error::Result;

/// `monai.transforms.Flipd` and `monai.transforms.Rotate90d`.
#[derive(Debug, Clone, PartialEq)]
pub struct Turn {
    /// The input axis of each output axis.
    source: [usize; 3],
    /// Whether it is reversed.
    flipped: [bool; 3],
}

impl Turn {
    /// Parses `Flipd`: flips the axes in `spatial_axis`, or all if it is absent.
    pub(super) fn flip(args: &mut Args) -> Result<Self> {
        let mut flipped = [false; 3];
        match args.whole_numbers("spatial_axis")? {
            None => flipped = [true; 3],
            Some(axes) => {
                for axis in axes {
                    let axis = axis_of(axis)
                        .ok_or_else(|| args.invalid("spatial_axis", "axes from 0 to 2"))?;
                    flipped[axis] = true;
                }
            }
        }
        Ok(Self { source: [0, 1, 2], flipped })
    }

    /// Parses `Rotate90d`: `k` quarter turns from the first of `spatial_axes` to the second.
    pub(super) fn quarter_turns(args: &mut Args) -> Result<Self> {
        let turns = match args.whole_numbers("k")?.as_deref() {
            None => 1,
            Some(&[turns]) => turns.rem_euclid(4),
            Some(_) => return Err(args.invalid("k", "a whole number")),
        };
        let axes = args.whole_numbers("spatial_axes")?.unwrap_or_else(|| vec![0, 1]);
        let axes: Vec<Option<usize>> = axes.into_iter().map(axis_of).collect();
        let [Some(a), Some(b)] = axes[..] else {
            return Err(args.invalid("spatial_axes", "two axes from 0 to 2"));
        };
        if a == b {
            return Err(args.invalid("spatial_axes", "two different axes"));
        }
        let mut this = Self { source: [0, 1, 2], flipped: [false; 3] };
        if turns % 2 == 1 {
            this.source.swap(a, b);
        }
        this.flipped[a] = matches!(turns, 1 | 2);
        this.flipped[b] = matches!(turns, 2 | 3);
        Ok(this)
    }
}

/// Resolves an axis; negative ones count from the end.
fn axis_of(axis: i64) -> Option<usize> {
    let axis = if axis < 0 { axis + 3 } else { axis };
    usize::try_from(axis).ok().filter(|axis| *axis < 3)
}

impl Transform for Turn {
    fn extent(&self, image: Extent) -> Result<Extent> {
        Ok(turned_extent(image, self.source, self.flipped))
    }

    fn apply(&self, image: Image) -> Result<Image> {
        Ok(turned(image, self.source, self.flipped))
    }
}
