//! Typed settings, and the flags and environment variables they come from.
//!
//! Every flag has an environment twin, because SageMaker starts a container with the one word
//! `serve` and configures it through its environment; a flag wins over its twin. The `…Args` types
//! are what clap reads, the `…Settings` types are what the rest of the crate works with: checked,
//! free of contradictions, and never a string that still has to be understood. Values of endpoints
//! are redacted in `Debug` and in errors, because some people put credentials into URLs.

mod access;
mod aws;
mod compute;
mod connections;
mod endpoint;
mod environment;
mod log;
mod memory;
mod parse;
mod policy;
mod results;
mod secret;
mod serve;
mod store;
mod traces;
mod ui;

pub use access::{AccessArgs, AccessSettings, Allowed, Place};
pub use aws::{AhiArgs, AhiSettings, AwsArgs, AwsSettings, S3Settings};
pub use compute::{ComputeArgs, ComputeSettings, CpuPrecisionChoice, ExecutionProvider};
pub use connections::{ConnectionArgs, ConnectionSettings, PROBE_CONNECTIONS, Pace};
pub use endpoint::EndpointUrl;
pub use environment::refuse_unknown_variables;
pub use log::{LogArgs, LogFormat};
pub use memory::MemoryArgs;
pub(crate) use parse::seconds;
pub use policy::PolicyArgs;
pub use results::ResultArgs;
pub use secret::{Secret, SecretSource};
pub use serve::{
    AdmissionSettings, HttpSettings, MOST_INPUTS, MemorySettings, ModelSettings, ServeArgs,
    ServeSettings,
};
pub use store::{Credentials, StoreArgs, StoreSettings};
pub use traces::TraceArgs;
pub use ui::{UiArgs, UiSettings};

use crate::error::{Error, ErrorKind};

/// An error that names the flag at fault.
fn wrong(flag: &str, problem: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Configuration, format!("{flag}: {problem}")).with("flag", flag)
}
