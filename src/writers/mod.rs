//! Label maps to DICOM SEG and other results.

pub mod sink;
