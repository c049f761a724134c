//! Implements the operations. Labels are an image of one channel; masks have one channel per class,
//! which MONAI calls one-hot.

use ndarray::{ArrayView4, ArrayViewMut4, Axis, Slice};

use super::LabelOperation;
use super::labelling::{Component, Components, Groups, Neighbourhood};
use crate::error::{Error, ErrorKind, Result};
use crate::postprocess::boxes::boxes_of_values;

impl LabelOperation {
    /// Applies the operation to labels or masks. `as_labels` says whether an image of one channel
    /// represents its one-hot form.
    pub(super) fn apply_to(
        &self,
        mut image: ArrayViewMut4<u8>,
        as_labels: Option<bool>,
    ) -> Result<()> {
        let channels = image.dim().0;
        match self {
            Self::KeepLargest { applied_labels, independent, onehot, connectivity, components } => {
                let onehot = as_labels.or(*onehot).unwrap_or(channels > 1);
                let near = faces(*connectivity);
                let labels = applied_labels.as_deref();
                match (onehot, independent) {
                    (true, true) => largest_of_channels(image, labels, near, *components),
                    (true, false) => largest_of_union(image, labels, near, *components),
                    (false, independent) => {
                        let channel = image.slice_axis_mut(Axis(0), Slice::from(0..1));
                        largest_of_labels(channel, labels, *independent, near, *components);
                        Ok(())
                    }
                }
            }
            Self::FillHoles { applied_labels, connectivity } => {
                let labels = applied_labels.as_deref();
                if channels > 1 {
                    fill_channels(image, labels, faces(*connectivity))
                } else {
                    fill_labels(image, labels, faces(*connectivity));
                    Ok(())
                }
            }
            Self::RemoveSmall { by_measure: true, .. } => {
                Err(Error::internal("sizes by measure are counted in voxels before"))
            }
            Self::RemoveSmall { min_size, connectivity, independent_channels, .. } => {
                remove_small(image, *min_size, *connectivity, *independent_channels);
                Ok(())
            }
            Self::Filter { applied_labels } => {
                image.par_mapv_inplace(|v| if applied_labels.contains(&v) { v } else { 0 });
                Ok(())
            }
            Self::Merge(_) | Self::OneHot { .. } | Self::Argmax | Self::Threshold(_) => {
                Err(Error::internal("this changes the form of a segmentation"))
            }
        }
    }
}

/// Returns the neighbourhood within a channel.
pub(super) fn faces(connectivity: usize) -> Neighbourhood {
    Neighbourhood { connectivity, across_channels: false }
}

/// Counts the voxels of each value.
fn histogram(image: ArrayView4<u8>) -> [u64; 256] {
    ndarray::Zip::from(image).par_fold(
        || [0; 256],
        |mut counts: [u64; 256], &v| {
            counts[v as usize] += 1;
            counts
        },
        |a, b| std::array::from_fn(|i| a[i] + b[i]),
    )
}

/// Returns, for each component, whether it is beyond the `keep` largest of its group. Of equal ones,
/// the later in C order is kept, as in MONAI.
fn beyond_largest(components: &[Component], keep: usize) -> Vec<bool> {
    let mut order: Vec<usize> = (0..components.len()).collect();
    order.sort_by_key(|&i| {
        let Component { group, voxels, first, .. } = components[i];
        (group, std::cmp::Reverse((voxels, first)))
    });
    let mut beyond = vec![false; components.len()];
    for of_group in order.chunk_by(|&a, &b| components[a].group == components[b].group) {
        for &i in of_group.iter().skip(keep) {
            beyond[i] = true;
        }
    }
    beyond
}

fn largest_of_labels(
    image: ArrayViewMut4<u8>,
    labels: Option<&[u8]>,
    independent: bool,
    near: Neighbourhood,
    keep: usize,
) {
    let applied = |v: u8| labels.map_or(v != 0, |labels| labels.contains(&v));
    let groups: Groups = std::array::from_fn(|v| match v as u8 {
        v if !applied(v) => 0,
        // Cleared background stays background.
        v if independent => v,
        _ => 1,
    });
    clear_beyond(image, &groups, near, keep);
}

pub(super) fn clear_beyond(
    image: ArrayViewMut4<u8>,
    groups: &Groups,
    near: Neighbourhood,
    keep: usize,
) {
    let components = Components::find(image.view(), groups, near);
    components.paint(image, &beyond_largest(components.all(), keep), 0);
}

/// Returns the groups in which every value except 0 is one group.
pub(super) fn foreground() -> Groups {
    std::array::from_fn(|v| u8::from(v != 0))
}

/// Returns the named channels, or all non-empty ones but the first.
fn channels_named(image: ArrayView4<u8>, labels: Option<&[u8]>) -> Result<Vec<usize>> {
    let channels = image.dim().0;
    let Some(labels) = labels else {
        let used = |c: &usize| image.index_axis(Axis(0), *c).iter().any(|v| *v != 0);
        return Ok((1..channels).filter(used).collect());
    };
    labels
        .iter()
        .map(|&label| match usize::from(label) {
            channel if channel < channels => Ok(channel),
            channel => Err(Error::new(
                ErrorKind::InvalidModel,
                format!("applied_labels names channel {channel}, the result has {channels}"),
            )),
        })
        .collect()
}

fn largest_of_channels(
    mut image: ArrayViewMut4<u8>,
    labels: Option<&[u8]>,
    near: Neighbourhood,
    keep: usize,
) -> Result<()> {
    for c in channels_named(image.view(), labels)? {
        let channel = image.slice_axis_mut(Axis(0), Slice::from(c..c + 1));
        clear_beyond(channel, &foreground(), near, keep);
    }
    Ok(())
}

fn largest_of_union(
    mut image: ArrayViewMut4<u8>,
    labels: Option<&[u8]>,
    near: Neighbourhood,
    keep: usize,
) -> Result<()> {
    let channels = channels_named(image.view(), labels)?;
    let Some((first, rest)) = channels.split_first() else { return Ok(()) };
    // This keeps the memory order of the channel.
    let mut union = image.index_axis(Axis(0), *first).map(|v| u8::from(*v != 0));
    for &c in rest {
        ndarray::Zip::from(&mut union)
            .and(image.index_axis(Axis(0), c))
            .par_for_each(|u, &v| *u |= u8::from(v != 0));
    }
    let components = Components::find(union.view().insert_axis(Axis(0)), &foreground(), near);
    let beyond = beyond_largest(components.all(), keep);
    for c in channels {
        components.paint(image.slice_axis_mut(Axis(0), Slice::from(c..c + 1)), &beyond, 0);
    }
    Ok(())
}

/// `skimage.morphology.remove_small_objects` as called by MONAI: masks are labelled with their channels
/// as a fourth axis. In a map of several labels, each label is one object.
///
/// MONAI documents that objects smaller than `min_size` are removed, and so does this function. MONAI
/// passes `min_size` by position, where scikit-image 0.26 and later expect `max_size`, so that those
/// versions also remove objects of exactly that size. This is not reproduced.
fn remove_small(
    mut image: ArrayViewMut4<u8>,
    min_size: f64,
    connectivity: usize,
    independent_channels: bool,
) {
    let counts = histogram(image.view());
    if counts.iter().filter(|n| **n > 0).count() == 1 {
        return;
    }
    let binary = counts[2..].iter().all(|n| *n == 0);
    if independent_channels && !binary {
        let small: [bool; 256] = std::array::from_fn(|v| (counts[v] as f64) < min_size);
        image.par_mapv_inplace(|v| if small[v as usize] { 0 } else { v });
        return;
    }
    let near = Neighbourhood { connectivity, across_channels: true };
    let components = Components::find(image.view(), &foreground(), near);
    let small: Vec<bool> = components.all().iter().map(|c| (c.voxels as f64) < min_size).collect();
    components.paint(image, &small, 0);
}

fn fill_channels(
    mut image: ArrayViewMut4<u8>,
    labels: Option<&[u8]>,
    near: Neighbourhood,
) -> Result<()> {
    // Background is never filled.
    let channels = channels_named(image.view(), labels)?;
    for c in channels.into_iter().filter(|c| *c != 0) {
        let channel = image.slice_axis_mut(Axis(0), Slice::from(c..c + 1));
        fill_labels(channel, Some(&[1]), near);
    }
    Ok(())
}

/// Fills the holes of each label in turn, in ascending order; the voxels in the holes are overwritten.
pub(super) fn fill_labels(
    mut image: ArrayViewMut4<u8>,
    labels: Option<&[u8]>,
    near: Neighbourhood,
) {
    let boxes = boxes_of_values(image.index_axis(Axis(0), 0), 256);
    for label in 1..=u8::MAX {
        if labels.is_some_and(|labels| !labels.contains(&label)) {
            continue;
        }
        // A hole lies within the bounding box of its label and does not touch the box's faces.
        let Some(found) = boxes[label as usize] else { continue };
        let mut part = image.view_mut();
        for (axis, (first, last)) in found.into_iter().enumerate() {
            part.slice_axis_inplace(Axis(axis + 1), Slice::from(first..last + 1));
        }
        let groups: Groups = std::array::from_fn(|v| u8::from(v != label as usize));
        let components = Components::find(part.view(), &groups, near);
        let holes: Vec<bool> = components.all().iter().map(|c| !c.at_border).collect();
        components.paint(part, &holes, label);
    }
}
