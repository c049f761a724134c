//! Writes DICOM SEG objects of both types and NIfTI files, from synthetic sources and from the headers of a real
//! series, and reads them back with `dicom-object`. Every case is also saved to a folder (`AHI_SEG_FIXTURES`, or
//! `seg-fixtures` in the target folder) for `tests/python/test_seg.py` and `test_labelmap.py`, which read it
//! with highdicom, pydicom, nibabel, dcmqi and dciodvfy.

mod attributes;
mod labelmap;
mod nifti;
mod pixels;
mod planes;
mod refusals;
mod round_trip;
pub(crate) mod sources;
