//! Chooses the character set of an object. The source's is kept if it can represent every text, or if
//! copied texts could not be decoded reliably, so that copied names keep their bytes. Otherwise it is
//! UTF-8.

use super::source;
use crate::dicom::{Dataset, charset};

/// Sets Specific Character Set (0008,0005) of `dataset`; all other attributes must already be set.
pub(in crate::writers) fn set_character_set(source: &Dataset, dataset: &mut Dataset) {
    charset::settle(source, dataset, source::is_taken_over);
}
