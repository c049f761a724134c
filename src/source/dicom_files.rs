//! DICOM Part 10 files on disk as a source.
