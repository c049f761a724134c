//! AHI image set metadata (JSON) to data sets.
