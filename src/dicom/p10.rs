//! DICOM Part 10 files.
