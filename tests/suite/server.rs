//! The server over real connections, with a stand-in for the pipeline.

mod contract;
mod harness;
mod hostile;
mod lifecycle;
mod load;
mod models;
mod observability;
mod program;
