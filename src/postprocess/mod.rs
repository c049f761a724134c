//! Turns the network's blended result into labels on the source's grid.
//!
//! [`PostPlan`] describes a bundle's postprocessing. [`Segmenter`] receives the result plane by plane
//! as the sliding window finishes it. So activation, inverse resampling and discretisation are one
//! pass, and nothing of size classes × full resolution is ever held. Operations on labels
//! ([`LabelOperation`]) run on the network's grid or on the source's, in the bundle's order.

mod activation;
mod arrays;
mod back;
mod boxes;
mod components;
mod decide;
mod engine;
mod forecast;
mod fused;
mod gather;
mod held;
mod inverse;
mod merge;
mod oblique;
mod plan;
mod route;
mod segmenter;
mod sets;

use ndarray::{Array3, Array4};

use crate::memory::keep;

pub use activation::Activation;
pub use components::LabelOperation;
pub use forecast::PostForecast;
pub use inverse::Inverse;
pub use merge::Merge;
pub use plan::{Discretise, InvertSpec, PostPlan};
pub use segmenter::Segmenter;
pub use sets::ClassSets;

/// A finished segmentation on the source's grid, axes (X, Y, Z), X varying fastest in memory.
#[derive(Debug, Clone, PartialEq)]
pub enum Segmentation {
    /// One label per voxel, 0 for background.
    Labels(Array3<u8>),
    /// One mask per channel (axes channel, X, Y, Z; 0 or 1); masks may overlap.
    Masks(Array4<u8>),
    /// One-hot classes, some of which overlap.
    Sets(ClassSets),
}

impl Segmentation {
    /// Keeps the buffer for the next request.
    pub fn recycle(self) {
        match self {
            Self::Labels(labels) => keep(labels.into_raw_vec_and_offset().0),
            Self::Masks(masks) => keep(masks.into_raw_vec_and_offset().0),
            Self::Sets(_) => {}
        }
    }
}
