//! Large buffers, reserved fallibly.
//!
//! `vec![0; n]` ends the process where the memory is not there. These functions return an error
//! instead, and leave the zeroing to the system, which does it page by page as they are touched.

#![allow(unsafe_code)]

use std::alloc::{Layout, alloc_zeroed};

use ndarray::Array4;

use crate::error::{Error, ErrorKind, Result};

/// Numbers for which all bits zero is the value zero.
pub trait Zeroed: Copy + private::Number {}

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

/// Buffers from this size on are asked to be kept in large pages.
const LARGE: usize = 8 << 20;

/// `count` zeros. `what` names the buffer in the error.
///
/// # Errors
/// [`ErrorKind::OutOfMemory`] where the memory is not to be had.
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
    // SAFETY: the global allocator gave the memory for exactly this layout, which is that of a
    // vector of capacity `count`; all `count` elements are initialised, because zero bits are a value
    // of every `Zeroed` type; nothing else owns the memory.
    Ok(unsafe { Vec::from_raw_parts(memory.cast::<T>(), count, count) })
}

/// Asks the system to map the fresh memory in large pages: a volume of 512 × 512 × 160 is 40 000 pages of the
/// usual size, each of them a trap when it is first written, and all of them together cost as much as
/// decoding a quarter of its frames. It is a wish: where the system has none, or does not want to, nothing
/// changes.
#[cfg(target_os = "linux")]
fn prefer_large_pages(memory: *mut u8, bytes: usize) {
    /// Of the large pages of x86-64, and of aarch64 with pages of 4 KiB.
    const PAGE: usize = 2 << 20;
    // Whole ones within the block: what lies around it is somebody else's.
    let skipped = memory.align_offset(PAGE);
    let length = bytes.saturating_sub(skipped) / PAGE * PAGE;
    if length > 0 {
        // SAFETY: the range lies within the block that the caller has just allocated and nobody else
        // knows of (`skipped + length <= bytes`), it begins at a page, and the advice changes how
        // memory is mapped, never what is in it (madvise(2)).
        unsafe { libc::madvise(memory.wrapping_add(skipped).cast(), length, libc::MADV_HUGEPAGE) };
    }
}

#[cfg(not(target_os = "linux"))]
fn prefer_large_pages(_: *mut u8, _: usize) {}

/// An array of zeros in standard layout. `what` names it in the error.
///
/// # Errors
/// As [`zeroed`]; a size that overflows is one that no memory has.
pub fn zeros<T: Zeroed>(shape: [usize; 4], what: &str) -> Result<Array4<T>> {
    let count = shape.iter().fold(1, |product: usize, &n| product.saturating_mul(n));
    Array4::from_shape_vec(shape, zeroed(count, what)?)
        .map_err(|e| Error::internal("an array has another shape").caused_by(e))
}

/// Room for `more` elements behind those there are. `what` names the buffer in the error.
///
/// # Errors
/// [`ErrorKind::OutOfMemory`] where the memory is not to be had.
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
