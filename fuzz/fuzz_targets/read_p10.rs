//! Any bytes as a DICOM Part 10 file: an error or an instance no larger than the file.
//!
//! A panic of the parser is contained and reported as an error, so the hook that aborts on one is
//! taken out. Run with `-rss_limit_mb=512`: memory beyond the input's size is a finding.
#![no_main]

use std::sync::Once;

use ahi_inference::dicom::p10;
use libfuzzer_sys::fuzz_target;

static UNHOOK: Once = Once::new();

fuzz_target!(|input: &[u8]| {
    UNHOOK.call_once(|| std::panic::set_hook(Box::new(|_| ())));
    if let Ok(instance) = p10::read_bytes(input) {
        let total: usize = instance.frames.iter().map(|f| f.len()).sum();
        assert!(total <= input.len());
    }
});
