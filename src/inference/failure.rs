//! What a failure of ONNX Runtime is for want of: memory of the host, memory of a device, or neither.

use ort::ErrorCode;

use crate::error::{Error, ErrorKind};

/// Whether `error` comes from ONNX Runtime with a code that a failed allocation has, on the host or on
/// a device. Such a code has other causes, too; the ones for a model that is broken are others.
fn is_resource_failure(error: &Error) -> bool {
    cause(error).is_some_and(|e| may_be_allocation(e.code()))
}

/// ONNX Runtime's own error below `error`.
fn cause(error: &Error) -> Option<&ort::Error> {
    let first = std::error::Error::source(error);
    let mut causes = std::iter::successors(first, |e| e.source());
    causes.find_map(|e| e.downcast_ref::<ort::Error>())
}

fn may_be_allocation(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::RuntimeException
            | ErrorCode::EngineError
            | ErrorCode::GenericFailure
            | ErrorCode::ExecutionProviderFailure
    )
}

/// A failure for want of the host's memory as such. ONNX Runtime has no code of its own for it: a failed
/// allocation comes as the code of any exception inside it. So it is taken for one where, at that
/// moment, memory for the model is indeed not there.
pub fn or_out_of_memory(error: Error, needed: u64, available: Option<u64>) -> Error {
    if !is_resource_failure(&error) || available.is_none_or(|bytes| bytes >= needed) {
        return error;
    }
    Error::new(
        ErrorKind::OutOfMemory,
        format!(
            "ONNX Runtime ran out of memory: the model may need {needed} bytes more and {} are \
             left; unload another model, or let fewer requests run at once",
            available.unwrap_or(0)
        ),
    )
    .with("neededBytes", needed)
    .with("availableBytes", available)
    .caused_by(error)
}

/// What ONNX Runtime and NVIDIA's libraries say where memory of a device is not to be had: CUDA's error
/// 2 in the words of its runtime and of its driver, ONNX Runtime's arena for a device (`BFCArena`), the
/// states of cuBLAS and cuDNN, and TensorRT.
const DEVICE_IS_FULL: [&str; 8] = [
    "CUDA failure 2:",
    "cudaErrorMemoryAllocation",
    "CUDA_ERROR_OUT_OF_MEMORY",
    "Failed to allocate memory for requested buffer",
    "is smaller than requested bytes",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "DEVICE_ALLOCATION_FAILED",
    "Cuda Runtime (out of memory)",
];

/// Whether a failure on a GPU is for want of its memory. The code comes first, but it is that of any
/// exception, and unlike the host a device cannot be asked afterwards: what was wanting may have been
/// free again at once. So this is the one place that reads a message, and only a GPU's: on the host
/// the same words would be believed of a model that fails for another reason.
pub(super) fn is_device_full(e: &ort::Error) -> bool {
    may_be_allocation(e.code()) && says_full(e.message())
}

fn says_full(message: &str) -> bool {
    DEVICE_IS_FULL.iter().any(|words| message.contains(words))
}

/// A failure on a GPU for want of its memory.
pub(super) fn device_full(e: ort::Error) -> Error {
    Error::new(
        ErrorKind::OutOfMemory,
        "the GPU ran out of memory; unload another model, let fewer requests run at once, or take \
         smaller batches (sw_batch_size)",
    )
    .caused_by(e)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_failures_of_the_runtime_without_memory_left_are_for_want_of_it() {
        let exception = || {
            let cause = ort::Error::<()>::new_with_code(ErrorCode::RuntimeException, "x");
            Error::new(ErrorKind::InvalidModel, "x").caused_by(cause)
        };
        let graph = || {
            let text = "std::bad_alloc, says the text";
            let cause = ort::Error::<()>::new_with_code(ErrorCode::InvalidGraph, text);
            Error::new(ErrorKind::InvalidModel, "x").caused_by(cause)
        };
        let kind = |e: Error, available| or_out_of_memory(e, 100, available).kind();
        assert_eq!(kind(exception(), Some(99)), ErrorKind::OutOfMemory);
        assert_eq!(kind(exception(), Some(100)), ErrorKind::InvalidModel);
        assert_eq!(kind(exception(), None), ErrorKind::InvalidModel);
        assert_eq!(kind(graph(), Some(0)), ErrorKind::InvalidModel);
        let unrelated = Error::new(ErrorKind::InvalidModel, "no segments");
        assert_eq!(kind(unrelated, Some(0)), ErrorKind::InvalidModel);
    }

    #[test]
    fn a_full_device_is_told_by_code_and_words() {
        for message in [
            "CUDA failure 2: out of memory ; GPU=0 ; hostname=h ; file=cuda_allocator.cc ; \
             line=49 ; expr=cudaMalloc((void**)&p, size);",
            "Non-zero status code returned while running Conv node. Name:'/c1' Status Message: \
             bfc_arena.cc:359 AllocateRawInternal Failed to allocate memory for requested buffer \
             of size 905969664",
            "Available memory of 1024 is smaller than requested bytes of 4096",
            "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0",
        ] {
            assert!(says_full(message), "{message}");
            let e = ort::Error::<()>::new_with_code(ErrorCode::GenericFailure, message);
            assert!(is_device_full(&e));
            let e = ort::Error::<()>::new_with_code(ErrorCode::InvalidArgument, message);
            assert!(!is_device_full(&e), "another code");
        }
        for message in [
            "CUDA failure 700: an illegal memory access was encountered ; GPU=0",
            "CUDA failure 999: unknown error ; GPU=0",
            "Non-zero status code returned while running Add node: axis == 1 was false",
        ] {
            assert!(!says_full(message), "{message}");
        }
    }
}
