#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| ahi_inference::fuzzing::run("multipart", input));
