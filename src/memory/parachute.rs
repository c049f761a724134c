//! The allocator of the program: the system's, with a block in hand for when it has no more.
//!
//! Rust ends the process where a small allocation fails, and small ones are everywhere. Large buffers
//! are reserved fallibly and charged beforehand; but what ONNX Runtime, threads and connections take is in
//! nobody's hand, and where the address space is bounded it can end in the middle of a list that
//! grows. Then a block kept for that is given back to the system, and the small allocation is tried
//! again. What needs the memory fails soon after at a large one, by an error; the block is taken
//! again once there is room for it.

#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// The block: enough for the error of every request that runs.
const BLOCK: usize = 32 << 20;

/// Alignment of a page.
const PAGE: usize = 4096;

/// Allocations up to this size may have the block; larger ones are made by code that expects errors.
const SMALL: usize = 1 << 20;

/// The block, while it is in hand.
static RESERVE: AtomicPtr<u8> = AtomicPtr::new(ptr::null_mut());

/// The system's allocator with a block in hand.
#[derive(Debug, Clone, Copy, Default)]
pub struct Parachute;

/// The layout of the block: its size is not zero, and its alignment a power of two.
fn block() -> Option<Layout> {
    Layout::from_size_align(BLOCK, PAGE).ok()
}

/// Takes the block in hand, where it is not there and the system has it. Cheap where it is there.
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
        // SAFETY: allocated above with this layout, and nobody else has seen it.
        unsafe { System.dealloc(memory, layout) };
    }
}

/// Whether the block is in hand.
pub fn is_armed() -> bool {
    !RESERVE.load(Ordering::Acquire).is_null()
}

/// Gives the block back to the system; false where it was gone.
fn release() -> bool {
    let memory = RESERVE.swap(ptr::null_mut(), Ordering::AcqRel);
    let Some(layout) = block().filter(|_| !memory.is_null()) else { return false };
    // SAFETY: what is stored in RESERVE was allocated with this layout, and the swap made it ours alone.
    unsafe { System.dealloc(memory, layout) };
    true
}

/// What `allocate` gives, tried once more without the block where it gives nothing.
fn with_reserve(size: usize, allocate: impl Fn() -> *mut u8) -> *mut u8 {
    let memory = allocate();
    // Another thread may have given the block back a moment ago.
    if memory.is_null() && size <= SMALL {
        release();
        return allocate();
    }
    memory
}

// SAFETY: every call is handed to the system's allocator with the layout it came with; what is
// returned is what that returned. Nothing here allocates by way of the global allocator, panics or
// unwinds.
unsafe impl GlobalAlloc for Parachute {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises for this layout are passed on.
        with_reserve(layout.size(), || unsafe { System.alloc(layout) })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises for this layout are passed on.
        with_reserve(layout.size(), || unsafe { System.alloc_zeroed(layout) })
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the memory came from the system's allocator with this layout.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above; where it fails, the old memory is untouched and may be tried again.
        with_reserve(size, || unsafe { System.realloc(memory, layout, size) })
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use proptest::prelude::*;

    use super::*;

    /// One test, for the block is the process's.
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
        /// Memory keeps what is in it through any growing and shrinking.
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
