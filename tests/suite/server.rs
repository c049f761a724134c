//! The server over real connections, with a stand-in for the pipeline.

mod connections;
mod contract;
mod events;
mod harness;
mod hostile;
mod lifecycle;
mod lines;
mod load;
mod models;
mod observability;
mod program;
