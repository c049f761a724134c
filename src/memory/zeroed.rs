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
    // SAFETY: the global allocator gave the memory for exactly this layout, which is that of a
    // vector of capacity `count`; all `count` elements are initialised, because zero bits are a value
    // of every `Zeroed` type; nothing else owns the memory.
    Ok(unsafe { Vec::from_raw_parts(memory.cast::<T>(), count, count) })
}

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
