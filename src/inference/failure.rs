//! Classifies failures of ONNX Runtime: out of host memory, out of device memory, or neither.

use ort::ErrorCode;

use crate::error::{Error, ErrorKind};

/// Whether `error` comes from ONNX Runtime with a code that a failed allocation on the host or a device
/// has. The code has other causes too, but a broken model has different codes.
fn is_resource_failure(error: &Error) -> bool {
    cause(error).is_some_and(|e| may_be_allocation(e.code()))
}

/// Returns ONNX Runtime's own error in the causes of `error`.
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

/// Reports a failure for lack of host memory as [`ErrorKind::OutOfMemory`]. ONNX Runtime has no code
/// for it: a failed allocation has the code of any exception. So the failure counts as out of memory if
/// less than `needed` is `available` at that moment.
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

/// Phrases by which ONNX Runtime and NVIDIA's libraries report exhausted device memory: CUDA error 2 in
/// the wording of its runtime and of its driver, ONNX Runtime's device arena (`BFCArena`), the status
/// codes of cuBLAS and cuDNN, and TensorRT.
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

/// Whether a failure on a GPU is for lack of its memory. The code is checked first, but any exception
/// has it. Unlike the host, a device cannot be asked afterwards: the memory may be free again at once.
/// So this is the only code that matches on a message, and only for GPUs: on the host, the same words
/// could come from a model that fails for another reason.
pub(super) fn is_device_full(e: &ort::Error) -> bool {
    may_be_allocation(e.code()) && says_full(e.message())
}

fn says_full(message: &str) -> bool {
    DEVICE_IS_FULL.iter().any(|words| message.contains(words))
}

/// Creates the error for a GPU that ran out of memory.
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
