//! How much memory a session's arena took from the system, as ONNX Runtime counts it.

#![allow(unsafe_code)]

use std::ffi::CStr;
use std::ptr;

use ort::AsPointer;
use ort::memory::Allocator;
use ort::session::Session;
use ort::sys;

/// Bytes the allocator of `session` took: weights, what kernels made of them, and the buffers of the
/// largest run so far, which it keeps for the next one. `None` where it keeps no account.
pub(super) fn allocated(session: &Session) -> Option<u64> {
    let info = session.allocator().memory_info();
    let allocator = Allocator::new(session, info.to_owned()).ok()?;
    let statistics = Statistics::of(&allocator)?;
    statistics.get(c"TotalAllocated")
}

/// The statistics of an allocator, owned.
struct Statistics(ptr::NonNull<sys::OrtKeyValuePairs>);

impl Statistics {
    fn of(allocator: &Allocator) -> Option<Self> {
        let mut pairs = ptr::null_mut();
        // SAFETY: the allocator is alive for the call, and the call writes one pointer, which is ours
        // to release, or none.
        let status = unsafe { (ort::api().AllocatorGetStats)(allocator.ptr(), &raw mut pairs) };
        if !status.0.is_null() {
            // SAFETY: a status that is not null is an owned one, released once, here.
            unsafe { (ort::api().ReleaseStatus)(status.0) };
            return None;
        }
        ptr::NonNull::new(pairs).map(Self)
    }

    fn get(&self, key: &CStr) -> Option<u64> {
        // SAFETY: the pairs are alive until `self` is dropped, the key ends with a zero.
        let value = unsafe { (ort::api().GetKeyValue)(self.0.as_ptr(), key.as_ptr()) };
        if value.is_null() {
            return None;
        }
        // SAFETY: a value that is not null is a string that ends with a zero and lives as long as
        // the pairs (onnxruntime_c_api.h, `GetKeyValue`).
        unsafe { CStr::from_ptr(value) }.to_str().ok()?.parse().ok()
    }
}

impl Drop for Statistics {
    fn drop(&mut self) {
        // SAFETY: owned since `of`, released once.
        unsafe { (ort::api().ReleaseKeyValuePairs)(self.0.as_ptr()) };
    }
}
