//! Typed settings, and the flags and environment variables they come from.
//!
//! Every flag has a matching environment variable, because SageMaker starts a container with the
//! single argument `serve` and configures it through its environment; the flag takes precedence.
//! The `…Args` types are parsed by clap. The `…Settings` types are used by the rest of the crate:
//! validated, consistent, and never an unparsed string. Endpoint values are redacted in `Debug` and
//! in errors, because URLs sometimes contain credentials.

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

/// Returns an error that names the invalid flag.
fn wrong(flag: &str, problem: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Configuration, format!("{flag}: {problem}")).with("flag", flag)
}
