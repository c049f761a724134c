//! How to handle series that are not one clean stack of slices if neither the request nor the model
//! package specifies it.

use clap::Args;

use crate::policy::{Duplicates, Gaps, Mismatch, PolicyChoice, Volumes};

/// Flags about series.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Series")]
pub struct PolicyArgs {
    /// Uneven distances between slices and missing slices: refuse the series, or interpolate onto a
    /// regular grid as fine as the smallest distance [default: refuse]
    #[arg(long, env = "GAP_POLICY", value_enum, value_name = "POLICY")]
    pub gaps: Option<Gaps>,
    /// Slices at one position that nothing tells apart: refuse the series, or take the first by
    /// InstanceNumber [default: refuse]
    #[arg(long, env = "DUPLICATE_POLICY", value_enum, value_name = "POLICY")]
    pub duplicates: Option<Duplicates>,
    /// Several volumes in a series (phases, echoes, b-values): refuse it with a list of them, take the
    /// first or the largest, or segment each [default: refuse]
    #[arg(long, env = "VOLUME_POLICY", value_enum, value_name = "POLICY")]
    pub volumes: Option<Volumes>,
    /// A series of another modality than the model's, or that does not meet its package's rules: refuse
    /// it, or warn [default: refuse]
    #[arg(long, env = "MISMATCH_POLICY", value_enum, value_name = "POLICY")]
    pub mismatch: Option<Mismatch>,
}

impl PolicyArgs {
    /// Returns the policy chosen by the flags.
    pub fn choice(&self) -> PolicyChoice {
        PolicyChoice {
            gaps: self.gaps,
            duplicates: self.duplicates,
            volumes: self.volumes,
            mismatch: self.mismatch,
        }
    }
}
