//! Large buffers, reserved fallibly.
//!
//! `vec![0; n]` aborts the process if the memory cannot be allocated. These functions return an
//! error instead, and leave the zeroing to the system, which does it page by page on first touch.

#![allow(unsafe_code)]

use std::alloc::{Layout, alloc_zeroed};

use crate::error::{Error, ErrorKind, Result};

/// Number types whose value zero is all zero bits.
pub trait Zeroed: Copy + Default + Send + 'static + private::Number {}

mod private {
    pub trait Number {}
}

macro_rules! numbers {
    ($($number:ty),*) => {$(
        impl private::Number for $number {}
        impl Zeroed for $number {}
    )*};
}

numbers!(u8, u16, i16, u32, f32, f64);

/// Buffers of at least this size are mapped by themselves, and advised to use large pages.
pub(super) const LARGE: usize = 8 << 20;

/// Allocates `count` zeros. `what` names the buffer in the error.
///
/// # Errors
/// [`ErrorKind::OutOfMemory`] if the memory cannot be allocated.
pub fn zeroed<T: Zeroed>(count: usize, what: &str) -> Result<Vec<T>> {
    let refused = || refused(count as u64, size_of::<T>() as u64, what);
    let layout = Layout::array::<T>(count).map_err(|_| refused())?;
    if layout.size() == 0 {
        return Ok(Vec::new());
    }
    // SAFETY: the layout's size is not zero.
    let memory = unsafe { alloc_zeroed(layout) };
    if memory.is_null() {
        return Err(refused());
    }
    if layout.size() >= LARGE {
        prefer_large_pages(memory, layout.size());
    }
    // SAFETY: the global allocator returned the memory for exactly this layout, which is that of a
    // vector of capacity `count`; all `count` elements are initialised, because zero bits are a
    // valid value of every `Zeroed` type; nothing else owns the memory.
    Ok(unsafe { Vec::from_raw_parts(memory.cast::<T>(), count, count) })
}

/// Asks the system to map fresh memory in large pages: a volume of 512 × 512 × 160 has 40 000 pages
/// of the usual size, each of which traps on its first write, and together they cost as much as
/// decoding a quarter of its frames. Only a hint: if the system does not support or honour it,
/// nothing changes.
#[cfg(target_os = "linux")]
fn prefer_large_pages(memory: *mut u8, bytes: usize) {
    /// Size of large pages on x86-64, and on aarch64 with 4 KiB pages.
    const PAGE: usize = 2 << 20;
    // Only whole large pages within the block: the memory around it has other owners.
    let skipped = memory.align_offset(PAGE);
    let length = bytes.saturating_sub(skipped) / PAGE * PAGE;
    if length > 0 {
        // SAFETY: the range lies within the block that the caller has just allocated and that
        // nothing else refers to (`skipped + length <= bytes`), it begins at a page boundary, and
        // the advice changes how memory is mapped, never its content (madvise(2)).
        unsafe { libc::madvise(memory.wrapping_add(skipped).cast(), length, libc::MADV_HUGEPAGE) };
    }
}

#[cfg(not(target_os = "linux"))]
fn prefer_large_pages(_: *mut u8, _: usize) {}

/// Reserves room for `more` elements after the existing ones. `what` names the buffer in the error.
///
/// # Errors
/// [`ErrorKind::OutOfMemory`] if the memory cannot be allocated.
pub fn reserve<T>(buffer: &mut Vec<T>, more: usize, what: &str) -> Result<()> {
    buffer.try_reserve_exact(more).map_err(|_| refused(more as u64, size_of::<T>() as u64, what))
}

fn refused(count: u64, size: u64, what: &str) -> Error {
    let bytes = count.saturating_mul(size);
    Error::new(
        ErrorKind::OutOfMemory,
        format!("the system has no {bytes} bytes for {what}; let fewer requests run at once"),
    )
    .with("neededBytes", bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn buffers_are_zero_and_can_be_written_grown_and_freed(count in 0usize..5000) {
            fn check<T: Zeroed + PartialEq + std::fmt::Debug>(count: usize, zero: T, one: T) {
                let mut buffer = zeroed::<T>(count, "a test").unwrap();
                assert_eq!(buffer.len(), count);
                assert!(buffer.iter().all(|v| *v == zero));
                buffer.fill(one);
                buffer.push(zero);
                buffer.shrink_to_fit();
                assert!(buffer[..count].iter().all(|v| *v == one));
            }
            check(count, 0u8, 1);
            check(count, 0i16, -1);
            check(count, 0u32, 7);
            check(count, 0f32, 1.5);
            check(count, 0f64, 1.5);
        }
    }

    #[test]
    fn large_buffers_are_zero_to_both_ends() {
        for count in [LARGE, LARGE + 1, 3 * LARGE / 2 - 7] {
            let mut buffer = zeroed::<u8>(count, "a test").unwrap();
            assert!(buffer.iter().all(|&v| v == 0));
            buffer.fill(7);
            assert!(buffer.iter().all(|&v| v == 7) && buffer.len() == count);
        }
    }

    #[test]
    fn what_is_not_there_is_an_error() {
        for count in [usize::MAX, usize::MAX / 8, 1 << 60] {
            let error = zeroed::<f32>(count, "the volume").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::OutOfMemory);
            assert!(error.message().contains("the volume"), "{error}");
            let error = reserve(&mut vec![1f64], count, "a file").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::OutOfMemory);
        }
    }
}
