//! Local AWS for demos and tests: HealthImaging's REST API over a folder ([`api`]), including
//! DICOMweb; imports into that folder ([`import`]); S3 ([`s3`]); and the SageMaker runtime in front
//! of local servers ([`runtime`]). Not for production: requests to HealthImaging and SageMaker are
//! not authenticated; they only need an `Authorization` header, as a signed request has one.

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
