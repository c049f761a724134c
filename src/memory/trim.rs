//! What the allocator keeps, and what it returns to the system.

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

/// Makes the allocator map every block of at least `LARGE` bytes by itself, for the life of the process.
///
/// Once a large block has been freed, glibc takes blocks of up to 32 MiB from its heap (mallopt(3),
/// `M_MMAP_THRESHOLD`). A zeroed one then consists of used memory, which the calling thread clears before anything
/// is done with it; fresh memory is cleared by the system, page by page, on the threads that fill it.
pub fn map_large_blocks() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: `mallopt` takes no pointer and may be called at any time (mallopt(3)). If it refuses a value, the
    // allocator stays as it is.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, super::zeroed::LARGE as libc::c_int);
        // Setting one threshold ends the adjustment of all. This is what 32 MiB would have led to.
        libc::mallopt(libc::M_TRIM_THRESHOLD, 64 << 20);
    }
}
