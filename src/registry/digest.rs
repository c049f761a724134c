//! A digest of everything in a model package that affects its results.

use std::path::Path;

use sha2::{Digest, Sha256};

use crate::error::{Error, ErrorKind, Result};

/// Maximum size of a settings file in the digest; usual ones are a few kilobytes.
const LARGEST: u64 = 64 << 20;

/// Returns the SHA-256, in hexadecimal, of the network's own digest, the files in `configs` and
/// `serving.json` of the package `dir`, in the order of their names.
///
/// # Errors
/// [`ErrorKind::InvalidModel`], naming the file that cannot be read.
pub(super) fn digest(dir: &Path, network_sha256: &str) -> Result<String> {
    let unreadable = |path: &Path, e: std::io::Error| {
        let message = format!("{} cannot be read: {}", path.display(), e.kind());
        Error::new(ErrorKind::InvalidModel, message).caused_by(e)
    };
    let configs = dir.join("configs");
    let mut files = Vec::new();
    for entry in std::fs::read_dir(&configs).map_err(|e| unreadable(&configs, e))? {
        let path = entry.map_err(|e| unreadable(&configs, e))?.path();
        if path.is_file() {
            files.push(path);
        }
    }
    let serving = dir.join("serving.json");
    if serving.is_file() {
        files.push(serving);
    }
    files.sort();
    let mut hash = Sha256::new();
    hash.update(network_sha256);
    for path in files {
        let bytes = std::fs::metadata(&path).map_err(|e| unreadable(&path, e))?.len();
        if bytes > LARGEST {
            continue;
        }
        let content = std::fs::read(&path).map_err(|e| unreadable(&path, e))?;
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        for part in [name, &content[..]] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
    }
    Ok(format!("{:x}", hash.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_and_the_network_count() {
        let dir = tempfile::tempdir().unwrap();
        let configs = dir.path().join("configs");
        std::fs::create_dir(&configs).unwrap();
        std::fs::write(configs.join("inference.json"), "{}").unwrap();
        let first = digest(dir.path(), "a").unwrap();
        assert_eq!(digest(dir.path(), "a").unwrap(), first);
        assert_ne!(digest(dir.path(), "b").unwrap(), first);
        std::fs::write(dir.path().join("serving.json"), "{}").unwrap();
        let second = digest(dir.path(), "a").unwrap();
        assert_ne!(second, first);
        std::fs::write(configs.join("inference.json"), "{\"a\":1}").unwrap();
        assert_ne!(digest(dir.path(), "a").unwrap(), second);
        assert!(digest(&dir.path().join("none"), "a").is_err());
    }
}
