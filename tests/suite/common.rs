//! Helpers shared by the integration tests.

#![allow(dead_code)]

use std::path::PathBuf;

use ahi_inference::codec::FrameFormat;

/// Returns a file or folder of the reference material beside the checkout (`../shared`, or the folder that
/// `AHI_SHARED` names). If it is missing, prints why a test is skipped and returns `None`.
pub fn shared(relative: &str) -> Option<PathBuf> {
    let root = std::env::var_os("AHI_SHARED")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared"), PathBuf::from);
    let path = root.join(relative);
    if path.exists() {
        return Some(path);
    }
    eprintln!(
        "skipped: {} is not there (set AHI_SHARED to the reference material)",
        path.display()
    );
    None
}

/// Returns the format stated in the SIZ segment at the start of a codestream (ISO/IEC 15444-1 A.5.1).
pub fn format_of(codestream: &[u8]) -> FrameFormat {
    let be32 = |at: usize| u32::from_be_bytes(codestream[at..at + 4].try_into().unwrap());
    assert_eq!(codestream[..4], [0xFF, 0x4F, 0xFF, 0x51], "SOC and SIZ");
    let depth = codestream[42];
    FrameFormat {
        rows: be32(12),
        columns: be32(8),
        bits_allocated: 16,
        bits_stored: u16::from(depth & 0x7F) + 1,
        signed: depth & 0x80 != 0,
        float: false,
    }
}
