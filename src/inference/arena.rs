//! Reads how much memory a session's arena has allocated, from ONNX Runtime's statistics.

#![allow(unsafe_code)]

use std::ffi::CStr;
use std::ptr;

use ort::AsPointer;
use ort::memory::Allocator;
use ort::session::Session;
use ort::sys;

/// Returns the bytes that the allocator of `session` holds: weights, kernel state, and the buffers of
/// the largest run so far, which it keeps for the next one. `None` if the allocator keeps no
/// statistics.
pub(super) fn allocated(session: &Session) -> Option<u64> {
    let info = session.allocator().memory_info();
    let allocator = Allocator::new(session, info.to_owned()).ok()?;
    let statistics = Statistics::of(&allocator)?;
    statistics.get(c"TotalAllocated")
}

/// Owned statistics of an allocator.
struct Statistics(ptr::NonNull<sys::OrtKeyValuePairs>);

impl Statistics {
    fn of(allocator: &Allocator) -> Option<Self> {
        let mut pairs = ptr::null_mut();
        // SAFETY: the allocator outlives the call. The call writes one pointer, either null or owned by
        // us.
        let status = unsafe { (ort::api().AllocatorGetStats)(allocator.ptr(), &raw mut pairs) };
        if !status.0.is_null() {
            // SAFETY: a non-null status is owned and is released once, here.
            unsafe { (ort::api().ReleaseStatus)(status.0) };
            return None;
        }
        ptr::NonNull::new(pairs).map(Self)
    }

    fn get(&self, key: &CStr) -> Option<u64> {
        // SAFETY: the pairs live until `self` is dropped, and the key is NUL-terminated.
        let value = unsafe { (ort::api().GetKeyValue)(self.0.as_ptr(), key.as_ptr()) };
        if value.is_null() {
            return None;
        }
        // SAFETY: a non-null value is a NUL-terminated string that lives as long as the pairs
        // (onnxruntime_c_api.h, `GetKeyValue`).
        unsafe { CStr::from_ptr(value) }.to_str().ok()?.parse().ok()
    }
}

impl Drop for Statistics {
    fn drop(&mut self) {
        // SAFETY: owned since `of` and released once, here.
        unsafe { (ort::api().ReleaseKeyValuePairs)(self.0.as_ptr()) };
    }
}
