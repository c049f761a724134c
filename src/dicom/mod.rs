//! The crate's view of DICOM: typed attributes, series of instances, AHI's metadata, Part 10 files
//! and unique identifiers. Independent of where the bytes come from.

pub mod ahi_metadata;
pub mod attributes;
pub mod charset;
pub mod classes;
pub mod encoding;
pub mod media_type;
pub mod multipart;
pub mod p10;
pub mod passed_over;
pub mod pixel_data;
pub mod segment;
pub mod selection;
pub mod series;
pub mod slices;
pub mod uid;

pub use attributes::Attributes;
pub use passed_over::PassedOver;
pub use series::{FrameDescriptor, FrameKey, Instance, Series};
pub use slices::{NoSlice, Slices};

/// A data set without its pixel data.
pub type Dataset = dicom_object::InMemDicomObject;
