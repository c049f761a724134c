//! Giving back memory that the allocator keeps.

#![allow(unsafe_code)]

/// Returns memory that was freed, but that the allocator keeps for later, to the system. What a model
/// leaves behind is scattered over the arenas of many threads, and nothing may ever ask for it again.
pub fn trim() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: `malloc_trim` takes no pointer and may be called from any thread at any time
    // (malloc_trim(3), "MT-Safe").
    unsafe {
        libc::malloc_trim(0);
    }
}
