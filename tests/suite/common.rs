//! What several integration tests need.

#![allow(dead_code)]

use std::path::PathBuf;

/// A file or folder of the reference material beside the checkout (`../shared`, or where
/// `AHI_SHARED` points); prints why a test is skipped and returns `None` where it is not there.
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
