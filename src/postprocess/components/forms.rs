//! `AsDiscreted` on an already discretised result: converts the classes to another form.

use ndarray::{ArrayView4, Axis};

use super::LabelOperation;
use crate::error::{Error, ErrorKind, Result};
use crate::postprocess::arrays::like;
use crate::postprocess::{ClassSets, Segmentation};

/// Converts a segmentation as `operation` says.
pub(super) fn apply(operation: &LabelOperation, segmentation: &mut Segmentation) -> Result<()> {
    let made = match (operation, &mut *segmentation) {
        (LabelOperation::OneHot { classes }, Segmentation::Labels(labels)) => {
            Segmentation::Sets(ClassSets::one_hot(labels.view(), *classes)?)
        }
        (LabelOperation::OneHot { classes }, Segmentation::Masks(masks)) if masks.dim().0 == 1 => {
            Segmentation::Sets(ClassSets::one_hot(masks.index_axis(Axis(0), 0), *classes)?)
        }
        (LabelOperation::Argmax, Segmentation::Sets(sets)) => {
            Segmentation::Labels(sets.labels(|set| set.first().map_or(0, |&class| class as u8))?)
        }
        (LabelOperation::Argmax, Segmentation::Masks(masks)) if masks.dim().0 > 1 => {
            first_of_masks(masks.view())?
        }
        (LabelOperation::Threshold(t), Segmentation::Labels(labels)) => {
            labels.par_mapv_inplace(|label| u8::from(f32::from(label) >= *t));
            return Ok(());
        }
        // Channels are 0 or 1, and the threshold lies in between.
        (LabelOperation::Threshold(_), _) => return Ok(()),
        _ => {
            return Err(Error::new(
                ErrorKind::InvalidModel,
                "postprocessing: the second AsDiscreted does not suit the number of channels that \
                 the network gives",
            ));
        }
    };
    *segmentation = made;
    Ok(())
}

/// Returns the first channel of each voxel that is 1.
fn first_of_masks(masks: ArrayView4<u8>) -> Result<Segmentation> {
    let mut labels = like(&masks.index_axis(Axis(0), 0))?;
    for (channel, mask) in masks.outer_iter().enumerate().skip(1).rev() {
        ndarray::Zip::from(&mut labels).and(&mask).par_for_each(|label, &m| {
            if m != 0 {
                *label = channel as u8;
            }
        });
    }
    ndarray::Zip::from(&mut labels).and(&masks.index_axis(Axis(0), 0)).par_for_each(|label, &m| {
        if m != 0 {
            *label = 0;
        }
    });
    Ok(Segmentation::Labels(labels))
}
