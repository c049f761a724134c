//! The only code that hands raw pointers to `openjp2`, whose streams are set up as in the C library
//! it was translated from. Provides an input stream over a memory buffer.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::marker::PhantomData;

use openjp2::Stream;
use openjp2::openjpeg::{
    opj_stream_set_read_function, opj_stream_set_seek_function, opj_stream_set_skip_function,
    opj_stream_set_user_data, opj_stream_set_user_data_length, opj_stream_t,
};

/// User data of a stream: bytes and the current position in them.
struct Cursor<'a> {
    data: &'a [u8],
    position: usize,
}

impl Cursor<'_> {
    /// Copies the remaining bytes, at most `out.len()`, and advances past them.
    fn read(&mut self, out: &mut [u8]) -> usize {
        let left = self.data.get(self.position..).unwrap_or_default();
        let count = left.len().min(out.len());
        out[..count].copy_from_slice(&left[..count]);
        self.position += count;
        count
    }

    /// Moves to `target`, or stays and returns false if that is outside the data.
    fn seek(&mut self, target: i64) -> bool {
        match usize::try_from(target) {
            Ok(target) if target <= self.data.len() => {
                self.position = target;
                true
            }
            _ => false,
        }
    }
}

/// An `openjp2` input stream over borrowed bytes.
pub(super) struct InputStream<'a> {
    stream: Stream,
    data: PhantomData<&'a [u8]>,
}

impl<'a> InputStream<'a> {
    /// Creates a stream that reads `data` from its start.
    pub(super) fn new(data: &'a [u8]) -> Self {
        let mut stream = Stream::new_custom(data.len().clamp(1 << 10, 1 << 16), true);
        let user_data = Box::into_raw(Box::new(Cursor { data, position: 0 }));
        let raw: *mut opj_stream_t = (&raw mut stream).cast();
        // SAFETY: `raw` points to a live `Stream`, which is what these functions cast it back to,
        // and nothing else refers to it during the calls. `user_data` comes from `Box::into_raw`;
        // the stream owns it from here on, and `free` releases it exactly once, when the stream is
        // dropped. The callbacks receive no other user data. The bytes it borrows outlive the
        // stream through `PhantomData<&'a [u8]>`.
        unsafe {
            opj_stream_set_user_data(raw, user_data.cast(), Some(free));
            opj_stream_set_user_data_length(raw, data.len() as u64);
            opj_stream_set_read_function(raw, Some(read));
            opj_stream_set_skip_function(raw, Some(skip));
            opj_stream_set_seek_function(raw, Some(seek));
        }
        Self { stream, data: PhantomData }
    }

    /// Returns the stream, for calls of a codec.
    pub(super) fn get(&mut self) -> &mut Stream {
        &mut self.stream
    }
}

/// Returns the number of bytes copied, or the C library's end of stream, `(size_t)-1`.
unsafe extern "C" fn read(buffer: *mut c_void, length: usize, user_data: *mut c_void) -> usize {
    // SAFETY: `user_data` is the `Cursor` set in `InputStream::new`, alive as long as the stream
    // that calls this and used by nothing else; `buffer` is writable for `length` bytes, and
    // initialised, because the stream passes a slice of its own buffer.
    let (cursor, out) = unsafe {
        (
            &mut *user_data.cast::<Cursor<'_>>(),
            std::slice::from_raw_parts_mut(buffer.cast::<u8>(), length),
        )
    };
    match cursor.read(out) {
        0 => usize::MAX,
        count => count,
    }
}

/// Returns the number of bytes skipped, or -1.
unsafe extern "C" fn skip(count: i64, user_data: *mut c_void) -> i64 {
    // SAFETY: as in `read`.
    let cursor = unsafe { &mut *user_data.cast::<Cursor<'_>>() };
    let target = i64::try_from(cursor.position).ok().and_then(|p| p.checked_add(count));
    if target.is_some_and(|t| cursor.seek(t)) { count } else { -1 }
}

/// Returns 1 if the position was reached, else 0.
unsafe extern "C" fn seek(target: i64, user_data: *mut c_void) -> i32 {
    // SAFETY: as in `read`.
    let cursor = unsafe { &mut *user_data.cast::<Cursor<'_>>() };
    i32::from(cursor.seek(target))
}

unsafe extern "C" fn free(user_data: *mut c_void) {
    // SAFETY: `user_data` came from `Box::into_raw` in `InputStream::new`, and the stream calls
    // this once, from its destructor.
    drop(unsafe { Box::from_raw(user_data.cast::<Cursor<'_>>()) });
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_stream_reads_what_it_was_given(
            data in prop::collection::vec(any::<u8>(), 1..5000),
            steps in prop::collection::vec((any::<bool>(), 0_usize..700), 1..20),
        ) {
            let mut input = InputStream::new(&data);
            let mut position = 0;
            for (is_skip, count) in steps {
                if position + count > data.len() {
                    break;
                }
                if is_skip {
                    prop_assert_eq!(input.get().skip(count as i64).unwrap(), count as i64);
                } else {
                    let mut out = vec![0; count];
                    prop_assert_eq!(input.get().read(&mut out).unwrap(), count);
                    prop_assert_eq!(&out[..], &data[position..position + count]);
                }
                position += count;
            }
            prop_assert_eq!(input.get().tell(), position as i64);
        }

        #[test]
        fn a_cursor_stays_inside_its_data(
            data in prop::collection::vec(any::<u8>(), 0..50),
            targets in prop::collection::vec(prop_oneof![any::<i64>(), -5..60_i64], 1..20),
        ) {
            let mut cursor = Cursor { data: &data, position: 0 };
            for target in targets {
                let inside = (0..=data.len() as i64).contains(&target);
                prop_assert_eq!(cursor.seek(target), inside);
                let left = data.len() - cursor.position;
                prop_assert_eq!(cursor.read(&mut [0; 64]), left.min(64));
            }
        }
    }
}
