//! AWS HealthImaging on this machine, for demos and tests: its REST API on loopback over a folder
//! ([`api`]), and what fills the folder ([`import`]). Not for production: requests are not
//! authenticated, they only have to carry an `Authorization` header as a signed one does.

pub mod api;
pub mod cli;
mod failure;
pub mod import;
mod search;
pub mod store;
