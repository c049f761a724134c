//! AWS on this machine, for demos and tests: HealthImaging's REST API on loopback over a folder
//! ([`api`]) with its DICOMweb, what fills the folder ([`import`]), S3 beside it ([`s3`]), and SageMaker's runtime in
//! front of servers ([`runtime`]). Not for production: requests to HealthImaging and SageMaker are not
//! authenticated, they only have to carry an `Authorization` header as a signed one does.

pub mod api;
mod binary;
mod changes;
pub mod cli;
mod copy;
mod datastores;
mod dicomweb;
mod documents;
mod encode;
mod failure;
mod image_sets;
pub mod import;
mod import_jobs;
mod jobs;
mod model;
pub mod objects;
mod originals;
mod placing;
pub mod runtime;
pub mod s3;
mod search;
mod service;
pub mod store;
mod tags;
mod update;
mod warnings;
