//! Operations on one-hot channels, one class at a time.

use ndarray::Axis;

use super::LabelOperation;
use super::channels::ChannelComponents;
use super::labelling::Neighbourhood;
use super::operations::{clear_beyond, faces, fill_labels, foreground};
use crate::error::{Error, ErrorKind, Result};
use crate::postprocess::ClassSets;
use crate::postprocess::boxes::{Bounds, widen};

/// Applies an operation to the channels that `sets` represents.
pub(super) fn apply(operation: &LabelOperation, sets: &mut ClassSets) -> Result<()> {
    match operation {
        LabelOperation::KeepLargest {
            applied_labels,
            independent,
            connectivity,
            components,
            ..
        } => {
            let channels = channels_named(sets, applied_labels.as_deref())?;
            let near = faces(*connectivity);
            if *independent {
                largest_of_each(sets, &channels, near, *components)
            } else {
                largest_of_union(sets, &channels, near, *components)
            }
        }
        LabelOperation::FillHoles { applied_labels, connectivity } => {
            let channels = channels_named(sets, applied_labels.as_deref())?;
            fill(sets, &channels, faces(*connectivity))
        }
        LabelOperation::RemoveSmall { min_size, connectivity, .. } => {
            let components = ChannelComponents::find(sets, *connectivity);
            components.remove(sets, |voxels| (voxels as f64) < *min_size)
        }
        LabelOperation::Filter { applied_labels } => {
            // Channels contain 0 and 1, whatever their class.
            if !applied_labels.contains(&1) {
                sets.clear();
            }
            Ok(())
        }
        _ => Err(Error::internal("this changes the form of a segmentation")),
    }
}

/// Returns the named channels, or all but the first, with their bounding boxes. Empty channels are left
/// out.
fn channels_named(sets: &ClassSets, labels: Option<&[u8]>) -> Result<Vec<(u16, Bounds)>> {
    let boxes = sets.boxes();
    let all: Vec<u16> = match labels {
        None => (1..sets.classes() as u16).collect(),
        Some(labels) => labels.iter().map(|label| u16::from(*label)).collect(),
    };
    let mut channels = Vec::new();
    for channel in all {
        let Some(found) = boxes.get(usize::from(channel)) else {
            return Err(Error::new(
                ErrorKind::InvalidModel,
                format!(
                    "postprocessing: applied_labels names channel {channel}, to_onehot makes {}",
                    sets.classes()
                ),
            ));
        };
        channels.extend(found.map(|bounds| (channel, bounds)));
    }
    Ok(channels)
}

fn largest_of_each(
    sets: &mut ClassSets,
    channels: &[(u16, Bounds)],
    near: Neighbourhood,
    keep: usize,
) -> Result<()> {
    for &(channel, bounds) in channels {
        let mut mask = sets.mask(&[channel], bounds)?;
        clear_beyond(mask.view_mut().insert_axis(Axis(0)), &foreground(), near, keep);
        sets.set_mask(channel, bounds, mask.view())?;
    }
    Ok(())
}

fn largest_of_union(
    sets: &mut ClassSets,
    channels: &[(u16, Bounds)],
    near: Neighbourhood,
    keep: usize,
) -> Result<()> {
    let mut bounds = None;
    channels.iter().for_each(|(_, part)| widen(&mut bounds, *part));
    let Some(bounds) = bounds else { return Ok(()) };
    let channels: Vec<u16> = channels.iter().map(|(channel, _)| *channel).collect();
    let mut union = sets.mask(&channels, bounds)?;
    clear_beyond(union.view_mut().insert_axis(Axis(0)), &foreground(), near, keep);
    sets.keep(&channels, bounds, union.view())
}

/// Fills the holes of each class in its own channel; filled voxels also keep their other classes.
fn fill(sets: &mut ClassSets, channels: &[(u16, Bounds)], near: Neighbourhood) -> Result<()> {
    // Background is never filled.
    for &(channel, bounds) in channels.iter().filter(|(channel, _)| *channel != 0) {
        let mut mask = sets.mask(&[channel], bounds)?;
        fill_labels(mask.view_mut().insert_axis(Axis(0)), Some(&[1]), near);
        sets.set_mask(channel, bounds, mask.view())?;
    }
    Ok(())
}
