//! AWS on this machine, for demos and tests: HealthImaging's REST API on loopback over a folder
//! ([`api`]), what fills the folder ([`import`]), S3 beside it ([`s3`]), and SageMaker's runtime in
//! front of servers ([`runtime`]). Not for production: requests to HealthImaging and SageMaker are not
//! authenticated, they only have to carry an `Authorization` header as a signed one does.

pub mod api;
pub mod cli;
mod failure;
pub mod import;
mod import_jobs;
mod jobs;
pub mod objects;
pub mod runtime;
pub mod s3;
mod search;
pub mod store;
