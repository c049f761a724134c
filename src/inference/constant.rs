//! Windows that hold one value throughout: the air around a patient, once it is clipped.
//!
//! A network gives equal results for equal inputs, so one such window stands for all of its value.
//! The last value's result alone is kept: in practice there is one, the lower end of the range.

use ndarray::{Array4, ArrayView4, s};

/// Largest result that is kept, in bytes: 105 classes of a window of 96 × 96 × 96 voxels.
const LARGEST: usize = 512 << 20;

/// The value of each channel, by its bits: 0 and -0 are different inputs.
type Value = Vec<u32>;

/// What becomes of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// It goes through the network.
    Run,
    /// It does, and its result is that of the windows of its value that follow.
    Learn,
    /// It has the result of the last one that was learnt.
    Known,
}

/// Windows in the order in which they are blended, of which a batch goes through the network.
#[derive(Debug)]
pub(super) struct Batch {
    pub windows: Vec<([usize; 3], Kind)>,
}

impl Batch {
    /// The windows that go through the network.
    pub fn to_run(&self) -> impl Iterator<Item = [usize; 3]> {
        self.windows.iter().filter(|(_, kind)| *kind != Kind::Known).map(|(window, _)| *window)
    }
}

/// Tells which windows need the network, by the value of the last that was to be learnt.
#[derive(Debug)]
pub(super) struct Constants {
    enabled: bool,
    value: Option<Value>,
}

impl Constants {
    pub fn new(enabled: bool) -> Self {
        Self { enabled, value: None }
    }

    /// The first of `windows`: as many as fill a batch of `size`, with those between them and behind
    /// them that need no network.
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

/// The result of the value that was learnt last, as windows are blended in their order.
#[derive(Debug, Default)]
pub(super) struct Known(Option<Array4<f32>>);

impl Known {
    /// Keeps the result of a value in place of the one before.
    pub fn learn(&mut self, result: ArrayView4<f32>) {
        // One that is too large for the memory is asked for every time.
        self.0 = (result.len() * size_of::<f32>() <= LARGEST).then(|| result.to_owned());
    }

    /// The result, unless it was too large.
    pub fn result(&self) -> Option<ArrayView4<'_, f32>> {
        self.0.as_ref().map(|result| result.view())
    }
}

/// The value of each channel, where each has one throughout.
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

    /// Planes of X along which the value is as given.
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
