//! What ONNX Runtime's error codes say of a failure.

use ort::ErrorCode;

use crate::error::Error;

/// Whether `error` comes from ONNX Runtime with a code that a failed allocation has, on the host or on
/// a device. Such a code has other causes, too; the ones for a model that is broken are others.
pub fn is_resource_failure(error: &Error) -> bool {
    let first = std::error::Error::source(error);
    let mut causes = std::iter::successors(first, |e| e.source());
    causes.find_map(|e| e.downcast_ref::<ort::Error>()).is_some_and(|e| {
        matches!(
            e.code(),
            ErrorCode::RuntimeException
                | ErrorCode::EngineError
                | ErrorCode::GenericFailure
                | ErrorCode::ExecutionProviderFailure
        )
    })
}
