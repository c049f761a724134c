//! DICOM SEG of both types, and NIfTI, written from synthetic sources and from a real series' headers, read back
//! with `dicom-object`. Every case is also left in a folder (`AHI_SEG_FIXTURES`, or `seg-fixtures` in the
//! target folder) for `tests/python/test_seg.py` and `test_labelmap.py`, which read it with highdicom,
//! pydicom, nibabel, dcmqi and dciodvfy.

mod attributes;
mod labelmap;
mod nifti;
mod pixels;
mod planes;
mod refusals;
mod round_trip;
pub(crate) mod sources;
