//! The global allocator: the system's, with a reserve block for when memory runs out.
//!
//! Rust aborts the process if a small allocation fails, and small allocations are everywhere. Large
//! buffers are reserved fallibly and charged beforehand. But nothing controls what ONNX Runtime,
//! threads and connections allocate, and if the address space is limited, it can run out in the
//! middle of growing a list. Then the reserve block is returned to the system, and the small
//! allocation is retried. Whatever uses up the memory fails soon afterwards at a large allocation,
//! with an error; the block is allocated again once there is room for it.

#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// Size of the reserve block: enough for the errors of all running requests.
const BLOCK: usize = 32 << 20;

/// Page alignment.
const PAGE: usize = 4096;

/// Allocations up to this size may use the reserve; larger ones are made by code that handles
/// errors.
const SMALL: usize = 1 << 20;

/// The reserve block, while it is held.
static RESERVE: AtomicPtr<u8> = AtomicPtr::new(ptr::null_mut());

/// The system's allocator with a reserve block.
#[derive(Debug, Clone, Copy, Default)]
pub struct Parachute;

/// Returns the layout of the block: its size is not zero, and its alignment a power of two.
fn block() -> Option<Layout> {
    Layout::from_size_align(BLOCK, PAGE).ok()
}

/// Allocates the reserve block if it is missing and the system has the memory. Cheap if it is
/// already held.
pub fn arm() {
    if !RESERVE.load(Ordering::Acquire).is_null() {
        return;
    }
    let Some(layout) = block() else { return };
    // SAFETY: the layout's size is not zero.
    let memory = unsafe { System.alloc(layout) };
    if memory.is_null() {
        return;
    }
    let null = ptr::null_mut();
    if RESERVE.compare_exchange(null, memory, Ordering::AcqRel, Ordering::Acquire).is_err() {
        // SAFETY: allocated above with this layout, and not visible to any other thread.
        unsafe { System.dealloc(memory, layout) };
    }
}

/// Whether the reserve block is held.
pub fn is_armed() -> bool {
    !RESERVE.load(Ordering::Acquire).is_null()
}

/// Returns the block to the system; false if it was not held.
fn release() -> bool {
    let memory = RESERVE.swap(ptr::null_mut(), Ordering::AcqRel);
    let Some(layout) = block().filter(|_| !memory.is_null()) else { return false };
    // SAFETY: RESERVE holds memory allocated with this layout, and the swap made this thread its
    // only owner.
    unsafe { System.dealloc(memory, layout) };
    true
}

/// Returns the result of `allocate`, retried once without the block if it fails.
fn with_reserve(size: usize, allocate: impl Fn() -> *mut u8) -> *mut u8 {
    let memory = allocate();
    // Retries in any case: another thread may have just released the block.
    if memory.is_null() && size <= SMALL {
        release();
        return allocate();
    }
    memory
}

// SAFETY: every call is forwarded to the system's allocator with its layout, and its result is
// returned. Nothing here allocates through the global allocator, panics or unwinds.
unsafe impl GlobalAlloc for Parachute {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's guarantees for this layout are passed on.
        with_reserve(layout.size(), || unsafe { System.alloc(layout) })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's guarantees for this layout are passed on.
        with_reserve(layout.size(), || unsafe { System.alloc_zeroed(layout) })
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the memory came from the system's allocator with this layout.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above; on failure, the old memory is untouched and the call may be repeated.
        with_reserve(size, || unsafe { System.realloc(memory, layout, size) })
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use proptest::prelude::*;

    use super::*;

    /// A single test, because the block belongs to the process.
    #[test]
    fn a_small_allocation_that_fails_has_the_block() {
        let tried = Cell::new(0);
        let mut byte = 0u8;
        let place = &raw mut byte;
        let second = || {
            tried.set(tried.get() + 1);
            if tried.get() == 2 { place } else { ptr::null_mut() }
        };
        arm();
        assert!(is_armed());
        assert!(!with_reserve(1, second).is_null());
        assert_eq!((tried.get(), is_armed()), (2, false));
        arm();
        arm();
        assert!(is_armed(), "it is taken again");
        tried.set(0);
        assert!(with_reserve(SMALL + 1, ptr::null_mut).is_null());
        assert!(is_armed(), "a large one is an error of whoever asked");
        assert!(release() && !release());
    }

    proptest! {
        /// Memory keeps its content through any growing and shrinking.
        #[test]
        fn it_is_the_systems_allocator(sizes in proptest::collection::vec(1usize..100_000, 1..20)) {
            let mut layout = Layout::from_size_align(sizes[0], 8).unwrap();
            // SAFETY: sizes are not zero; each layout is the one that the memory has at that time.
            unsafe {
                let mut memory = Parachute.alloc_zeroed(layout);
                prop_assert!(!memory.is_null());
                prop_assert_eq!(*memory.add(layout.size() - 1), 0);
                *memory = 7;
                for &size in &sizes[1..] {
                    memory = Parachute.realloc(memory, layout, size);
                    prop_assert!(!memory.is_null());
                    layout = Layout::from_size_align(size, 8).unwrap();
                    prop_assert_eq!(*memory, 7);
                }
                Parachute.dealloc(memory, layout);
            }
        }
    }
}
