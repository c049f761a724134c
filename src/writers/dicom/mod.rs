//! The shared parts of all DICOM objects of a result: patient, study and equipment, their UIDs, the
//! planes of the source, and building blocks of data sets.

mod charset;
mod checked;
pub(in crate::writers) mod color;
mod elements;
mod equipment;
mod identity;
mod meaning;
mod part10;
mod series;
mod source;
mod times;

use crate::dicom::Instance;

pub(in crate::writers) use charset::set_character_set;
pub(in crate::writers) use checked::Checked;
pub use color::display_color;
pub(in crate::writers) use elements::{Put, code_item, decimal_string, reference};
pub(in crate::writers) use equipment::{MANUFACTURER, algorithm_item, put_equipment};
pub use identity::Identity;
pub(in crate::writers) use meaning::put_meaning;
pub(in crate::writers) use part10::{LARGEST_VALUE, Part10};
pub(in crate::writers) use series::{SeriesHead, put_frame_of_reference, put_series};
pub(in crate::writers) use source::{
    Plane, check_consistent, copy_context, copy_lossy_compression, instances,
};
pub(in crate::writers) use times::put_times;

/// One source slice, in volume order.
#[derive(Debug, Clone, Copy)]
pub struct SourceSlice<'a> {
    /// The instance that contains the slice.
    pub instance: &'a Instance,
    /// The frame within the instance, counted from zero; 0 for a single-frame instance.
    pub frame: usize,
}
