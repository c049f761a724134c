//! Reuses results for windows of a constant value, such as the air around a patient after clipping.
//!
//! A network returns equal results for equal inputs, so one such window stands for all windows of its
//! value. Only the result of the last value is kept: in practice there is one value, the lower end of
//! the intensity range.

use ndarray::{Array4, ArrayView4, s};

/// Largest result that is kept, in bytes: enough for 105 classes of a window of 96 × 96 × 96 voxels.
const LARGEST: usize = 512 << 20;

/// The value of each channel as bits: 0 and -0 are different inputs.
type Value = Vec<u32>;

/// How a window gets its result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// It runs through the network.
    Run,
    /// It runs through the network, and its result is reused for the following windows of the same
    /// value.
    Learn,
    /// It reuses the last learnt result.
    Known,
}

/// Windows in blending order, of which at most one batch runs through the network.
#[derive(Debug)]
pub(super) struct Batch {
    pub windows: Vec<([usize; 3], Kind)>,
}

impl Batch {
    /// Returns the windows that run through the network.
    pub fn to_run(&self) -> impl Iterator<Item = [usize; 3]> {
        self.windows.iter().filter(|(_, kind)| *kind != Kind::Known).map(|(window, _)| *window)
    }
}

/// Decides which windows need the network, from the last value learnt.
#[derive(Debug)]
pub(super) struct Constants {
    enabled: bool,
    value: Option<Value>,
}

impl Constants {
    pub fn new(enabled: bool) -> Self {
        Self { enabled, value: None }
    }

    /// Returns the first of `windows`: as many as fill a batch of `size`, with the windows between and
    /// after them that do not need the network.
    pub fn next_batch(
        &mut self,
        image: ArrayView4<f32>,
        windows: &[[usize; 3]],
        roi: [usize; 3],
        size: usize,
    ) -> Batch {
        let mut batch = Vec::new();
        let mut run = 0;
        for &window in windows {
            let value = self.value(image, window, roi);
            let known = value.is_some() && value == self.value;
            if !known {
                if run == size {
                    break;
                }
                run += 1;
            }
            let kind = match value {
                Some(_) if known => Kind::Known,
                Some(value) => {
                    self.value = Some(value);
                    Kind::Learn
                }
                None => Kind::Run,
            };
            batch.push((window, kind));
        }
        Batch { windows: batch }
    }

    fn value(
        &self,
        image: ArrayView4<f32>,
        [x, y, z]: [usize; 3],
        roi: [usize; 3],
    ) -> Option<Value> {
        let inside = s![.., x..x + roi[0], y..y + roi[1], z..z + roi[2]];
        self.enabled.then(|| constant(image.slice(inside))).flatten()
    }
}

/// The result of the last learnt value, while windows are blended in order.
#[derive(Debug, Default)]
pub(super) struct Known(Option<Array4<f32>>);

impl Known {
    /// Keeps the result of a value and drops the previous one.
    pub fn learn(&mut self, result: ArrayView4<f32>) {
        // A result too large to keep is computed every time.
        self.0 = (result.len() * size_of::<f32>() <= LARGEST).then(|| result.to_owned());
    }

    /// Returns the result, unless it was too large to keep.
    pub fn result(&self) -> Option<ArrayView4<'_, f32>> {
        self.0.as_ref().map(|result| result.view())
    }
}

/// Returns the value of each channel, if each channel is constant.
fn constant(window: ArrayView4<f32>) -> Option<Value> {
    window
        .outer_iter()
        .map(|channel| {
            let first = channel.first()?.to_bits();
            let same =
                channel.rows().into_iter().all(|row| row.iter().all(|v| v.to_bits() == first));
            same.then_some(first)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use ndarray::{Array4, Axis};

    use super::*;

    const ROI: [usize; 3] = [2, 2, 2];

    /// An image whose planes along X have the given values.
    fn image(planes: &[f32]) -> Array4<f32> {
        let mut image = Array4::zeros((1, planes.len(), 2, 2));
        for (mut plane, &value) in image.axis_iter_mut(Axis(1)).zip(planes) {
            plane.fill(value);
        }
        image
    }

    fn windows(count: usize) -> Vec<[usize; 3]> {
        (0..count).map(|i| [2 * i, 0, 0]).collect()
    }

    #[test]
    fn a_value_goes_through_once() {
        let image = image(&[0., 0., 1., 2., 0., 0., 0., 0., 3., 4., 5., 6.]);
        let windows = windows(6);
        let mut constants = Constants::new(true);
        let first = constants.next_batch(image.view(), &windows, ROI, 2);
        let kinds: Vec<Kind> = first.windows.iter().map(|(_, kind)| *kind).collect();
        assert_eq!(kinds, [Kind::Learn, Kind::Run, Kind::Known, Kind::Known]);
        assert_eq!(first.to_run().count(), 2);
        let second = constants.next_batch(image.view(), &windows[4..], ROI, 2);
        assert_eq!(second.windows, [([8, 0, 0], Kind::Run), ([10, 0, 0], Kind::Run)]);
    }

    #[test]
    fn another_value_takes_the_place() {
        let image = image(&[0., 0., -0.0, -0.0, 0., 0.]);
        let mut constants = Constants::new(true);
        let batch = constants.next_batch(image.view(), &windows(3), ROI, 4);
        assert!(batch.windows.iter().all(|(_, kind)| *kind == Kind::Learn));
    }

    #[test]
    fn without_it_every_window_runs() {
        let mut constants = Constants::new(false);
        let batch = constants.next_batch(image(&[0.; 4]).view(), &windows(2), ROI, 4);
        assert!(batch.windows.iter().all(|(_, kind)| *kind == Kind::Run));
    }
}
