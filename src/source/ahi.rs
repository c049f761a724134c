//! AWS HealthImaging as a source.
