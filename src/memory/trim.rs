//! Releases memory cached by the allocator to the system.

#![allow(unsafe_code)]

/// Releases free memory cached by the allocator to the system. What a model leaves behind is
/// scattered over the arenas of many threads, and may never be needed again.
pub fn trim() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: `malloc_trim` takes no pointer and may be called from any thread at any time
    // (malloc_trim(3), "MT-Safe").
    unsafe {
        libc::malloc_trim(0);
    }
}
