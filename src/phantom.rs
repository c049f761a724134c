//! Synthetic CT phantoms as DICOM files, for the demo.
