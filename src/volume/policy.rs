//! What is done with series that are not a clean stack of slices.

/// How far a series may be from a clean stack before it is refused.
#[derive(Debug, Clone, PartialEq)]
pub struct VolumePolicy {
    /// What to do where the distance between neighbours is not the usual one.
    pub gaps: GapPolicy,
    /// What to do where several slices lie at one position.
    pub duplicates: DuplicatePolicy,
    /// Largest deviation of a neighbour distance from the median one, as a share of it.
    pub spacing_tolerance: f64,
    /// Largest difference of orientation cosines and pixel spacings between slices.
    pub attribute_tolerance: f64,
}

/// Gaps and uneven distances.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GapPolicy {
    /// Refuse the series, naming the instances on both sides. The default: a missing slice must not
    /// become a silently distorted segmentation.
    Refuse,
    /// Take the mean distance for all, with a warning.
    Average,
}

/// Several slices at one position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DuplicatePolicy {
    /// Refuse the series, naming two instances that share a position. The default: which one is
    /// meant (phase, acquisition, reconstruction) cannot be guessed.
    Refuse,
    /// Keep the slice with the lowest InstanceNumber, with a warning.
    KeepFirst,
}

impl Default for VolumePolicy {
    fn default() -> Self {
        Self {
            gaps: GapPolicy::Refuse,
            duplicates: DuplicatePolicy::Refuse,
            spacing_tolerance: 0.05,
            attribute_tolerance: 1e-4,
        }
    }
}
