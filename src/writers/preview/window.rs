//! Maps values to grey levels (VOI LUT, PS3.3 C.11.2).

use dicom_core::Tag;
use dicom_dictionary_std::tags;

use crate::dicom::{Attributes, Dataset};

/// A displayed range of values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Window {
    /// Window Center (0028,1050).
    pub center: f64,
    /// Window Width (0028,1051), above 0.
    pub width: f64,
    /// How values become grey levels.
    pub function: VoiFunction,
}

/// VOI LUT Function (0028,1056).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum VoiFunction {
    /// `LINEAR`: for whole numbers; the default.
    #[default]
    Linear,
    /// `LINEAR_EXACT`.
    LinearExact,
    /// `SIGMOID`.
    Sigmoid,
}

impl Window {
    /// Soft tissue window in Hounsfield units.
    pub const SOFT_TISSUE: Self =
        Self { center: 40.0, width: 400.0, function: VoiFunction::LinearExact };

    /// Returns the first window in the header for a frame; for a CT without one, soft tissue; `None` if
    /// nothing is known. The window of an image that is stored inverted (MONOCHROME1) is ignored,
    /// because it refers to the values before they are inverted on reading.
    pub fn of(dataset: &Dataset, frame: usize) -> Option<Self> {
        let stated = || stated(dataset, frame);
        let inverted =
            dataset.text(tags::PHOTOMETRIC_INTERPRETATION).as_deref() == Some("MONOCHROME1");
        let usual = || {
            let is_ct = dataset.text(tags::MODALITY).as_deref() == Some("CT");
            is_ct.then_some(Self::SOFT_TISSUE)
        };
        (!inverted).then(stated).flatten().or_else(usual)
    }

    /// Returns the grey level of a value, from 0 to 1; black for NaN.
    pub fn grey(&self, value: f32) -> f32 {
        let (value, Self { center, width, .. }) = (f64::from(value), *self);
        let grey = match self.function {
            VoiFunction::Linear if width > 1.0 => (value - (center - 0.5)) / (width - 1.0) + 0.5,
            VoiFunction::Linear => f64::from(u8::from(value > center - 0.5)),
            VoiFunction::LinearExact => (value - center) / width + 0.5,
            VoiFunction::Sigmoid => 1.0 / (1.0 + (-4.0 * (value - center) / width).exp()),
        };
        if grey.is_nan() { 0.0 } else { grey.clamp(0.0, 1.0) as f32 }
    }

    /// Creates a window that clips the darkest and the brightest hundredth of `values`.
    pub(super) fn of_values(mut values: Vec<f32>) -> Self {
        values.retain(|value| value.is_finite());
        values.sort_unstable_by(f32::total_cmp);
        let at = |hundredth: usize| {
            let index = values.len().saturating_sub(1) * hundredth / 100;
            values.get(index).copied().map_or(0.0, f64::from)
        };
        let (low, high) = (at(1), at(99));
        let width = if high > low { high - low } else { 1.0 };
        Self { center: low + width / 2.0, width, function: VoiFunction::LinearExact }
    }
}

/// Returns the first window of a frame, from its own functional group, the shared one, or the top
/// level.
fn stated(dataset: &Dataset, frame: usize) -> Option<Window> {
    let group = |sequence: Tag, item: usize| -> Option<&Dataset> {
        let groups = dataset.get(sequence)?.items()?;
        groups.get(item)?.get(tags::FRAME_VOILUT_SEQUENCE)?.items()?.first()
    };
    let places = [
        group(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE, frame),
        group(tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE, 0),
        Some(dataset),
    ];
    places.into_iter().flatten().find_map(|place| {
        let center = place.number(tags::WINDOW_CENTER).filter(|x| x.is_finite())?;
        let width = place.number(tags::WINDOW_WIDTH).filter(|x| x.is_finite() && *x > 0.0)?;
        let function = match place.text(tags::VOILUT_FUNCTION).as_deref() {
            None | Some("LINEAR") => VoiFunction::Linear,
            Some("LINEAR_EXACT") => VoiFunction::LinearExact,
            Some("SIGMOID") => VoiFunction::Sigmoid,
            Some(_) => return None,
        };
        Some(Window { center, width, function })
    })
}

#[cfg(test)]
mod tests {
    use dicom_core::{DataElement, PrimitiveValue, VR};

    use super::*;

    fn put(dataset: &mut Dataset, tag: Tag, vr: VR, text: &str) {
        dataset.put(DataElement::new(tag, vr, PrimitiveValue::from(text)));
    }

    #[test]
    fn functions_of_the_standard() {
        let window = |function| Window { center: 2048.0, width: 4096.0, function };
        // The example of PS3.3 C.11.2.1.2.1: 0 and below are black, above 4095 is white.
        let linear = window(VoiFunction::Linear);
        assert_eq!(linear.grey(-1.0), 0.0);
        assert_eq!(linear.grey(0.0), 0.0);
        assert_eq!(linear.grey(4095.0), 1.0);
        assert!((linear.grey(2047.5) - 0.5).abs() < 1e-6);
        let exact = window(VoiFunction::LinearExact);
        assert!((exact.grey(1024.0) - 0.25).abs() < 1e-6);
        let sigmoid = window(VoiFunction::Sigmoid);
        assert!((sigmoid.grey(2048.0) - 0.5).abs() < 1e-6);
        assert!((sigmoid.grey(3072.0) - 0.731_058_6).abs() < 1e-5);
        assert_eq!(sigmoid.grey(f32::NAN), 0.0);
        let step = Window { center: 10.0, width: 1.0, function: VoiFunction::Linear };
        assert_eq!((step.grey(9.5), step.grey(9.6)), (0.0, 1.0));
    }

    #[test]
    fn the_first_window_of_the_header_counts() {
        let mut dataset = Dataset::new_empty();
        assert_eq!(Window::of(&dataset, 0), None);
        put(&mut dataset, tags::MODALITY, VR::CS, "CT");
        assert_eq!(Window::of(&dataset, 0), Some(Window::SOFT_TISSUE));
        for (tag, texts) in
            [(tags::WINDOW_CENTER, ["60", "-600 "]), (tags::WINDOW_WIDTH, ["360", "1500"])]
        {
            dataset.put(DataElement::new(
                tag,
                VR::DS,
                PrimitiveValue::Strs(texts.map(str::to_owned).into_iter().collect()),
            ));
        }
        let first = Window { center: 60.0, width: 360.0, function: VoiFunction::Linear };
        assert_eq!(Window::of(&dataset, 0), Some(first));
        put(&mut dataset, tags::VOILUT_FUNCTION, VR::CS, "SIGMOID");
        assert_eq!(Window::of(&dataset, 0).unwrap().function, VoiFunction::Sigmoid);
        put(&mut dataset, tags::WINDOW_WIDTH, VR::DS, "0");
        assert_eq!(Window::of(&dataset, 0), Some(Window::SOFT_TISSUE), "a width of nothing");
        put(&mut dataset, tags::WINDOW_WIDTH, VR::DS, "10");
        put(&mut dataset, tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "MONOCHROME1");
        put(&mut dataset, tags::MODALITY, VR::CS, "CR");
        assert_eq!(Window::of(&dataset, 0), None);
    }

    #[test]
    fn outliers_do_not_decide() {
        let mut values: Vec<f32> = (0..1000).map(|i| i as f32).collect();
        values[3] = 1e9;
        values[4] = f32::NAN;
        let window = Window::of_values(values);
        assert!(window.grey(20.0) < 0.05 && window.grey(980.0) > 0.95);
        assert!(Window::of_values(vec![5.0; 9]).grey(5.0) < 0.1);
        assert_eq!(Window::of_values(Vec::new()).width, 1.0);
    }
}
