//! One request from source to outputs.

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use crate::error::Result;
use crate::request::{InferenceRequest, Outcome};

/// Something that answers requests: the pipeline itself, and in the server's own tests a stand-in.
#[async_trait]
pub trait Invoke: Send + Sync {
    /// Runs one request. Once `cancel` is cancelled it stops at the next stage or window with
    /// [`ErrorKind::Cancelled`](crate::error::ErrorKind::Cancelled).
    async fn invoke(&self, request: InferenceRequest, cancel: CancellationToken) -> Result<Outcome>;
}
