//! Which character set an object is written in. The source's own is kept wherever it can carry
//! every text, or where texts that were taken over could not be decoded for certain, so that copied names
//! keep their bytes; otherwise it is UTF-8.

use super::source;
use crate::dicom::{Dataset, charset};

/// Sets Specific Character Set (0008,0005) of `dataset`, whose other attributes are all there.
pub(in crate::writers) fn set_character_set(source: &Dataset, dataset: &mut Dataset) {
    charset::settle(source, dataset, source::is_taken_over);
}
