//! Any bytes as a frame, by every decoder of every transfer syntax: an error or a whole frame.
//!
//! The first eight bytes choose transfer syntax and format, the rest is the frame. A codec's panic
//! is contained and reported as an error, so the hook that aborts on one is taken out.
#![no_main]

use std::sync::Once;

use ahi_inference::codec::{FrameFormat, decode_with, transfer_syntaxes};
use libfuzzer_sys::fuzz_target;

static UNHOOK: Once = Once::new();

fuzz_target!(|input: &[u8]| {
    UNHOOK.call_once(|| std::panic::set_hook(Box::new(|_| ())));
    let Some((&[syntax, flags, stored, rows, columns, ..], data)) = input.split_first_chunk::<8>()
    else {
        return;
    };
    let bits_allocated = if flags & 1 == 0 { 8 } else { 16 };
    let format = FrameFormat {
        rows: u32::from(rows) + 1,
        columns: u32::from(columns) + 1,
        bits_allocated,
        bits_stored: u16::from(stored) % bits_allocated + 1,
        signed: flags & 2 != 0,
    };
    let table = transfer_syntaxes();
    let entry = table[usize::from(syntax) % table.len()];
    for &decoder in entry.decoders {
        if let Ok(samples) = decode_with(decoder, entry.uid, data, &format) {
            assert_eq!(samples.len(), format.pixels());
        }
    }
});
