//! Medical image segmentation: from an image set in AWS HealthImaging to the finished segmentation.
//!
//! Data flows in one direction: source, codec, volume, transforms, inference, postprocess, writers.
//! Only [`pipeline`] composes the stages, and only [`server`] knows about HTTP.

#![deny(unsafe_code)]
#![warn(missing_docs)]

pub mod archive;
pub mod aws;
pub mod bundle;
pub mod cli;
pub mod codec;
pub mod config;
pub mod cpu;
pub mod dicom;
mod disjoint;
pub mod emulator;
pub mod error;
#[doc(hidden)]
pub mod fuzzing;
pub mod inference;
mod kernels;
pub mod memory;
pub mod phantom;
pub mod pipeline;
pub mod policy;
pub mod postprocess;
pub mod progress;
pub mod registry;
pub mod request;
pub mod scheduler;
pub mod server;
pub mod sink;
pub mod source;
pub mod telemetry;
pub mod traces;
pub mod transforms;
pub mod volume;
pub mod writers;
