//! Label maps to DICOM SEG and other results.
