//! Measurements of a network on this machine, cached so that they need not be repeated: the fastest
//! run plan for its windows, and the memory it keeps. They are cached in the process and, if a
//! folder is writable, on disk.
//!
//! Cached files are validated like any external input; an invalid file is ignored.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::cpu;
use crate::inference::RunPlan;

/// The cache folder, next to the network's file.
const FOLDER: &str = ".cache";

/// Maximum size of a cached file.
const LARGEST: u64 = 4096;

/// Maximum number of networks cached in the process.
const MOST: usize = 1024;

/// The cached measurements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Findings {
    /// How its windows share the CPU.
    pub plan: RunPlan,
    /// Bytes that the loaded model keeps.
    pub bytes: u64,
}

/// The cache entry of one network.
#[derive(Debug, Clone)]
pub(super) struct Place {
    key: String,
    folder: PathBuf,
}

static REMEMBERED: Mutex<Option<HashMap<String, Findings>>> = Mutex::new(None);

impl Place {
    /// Returns the cache entry of the network `identity`, whose file is `network`, in `folder` or
    /// by default next to the file. Entries are specific to the CPU and the program version.
    pub fn of(identity: &str, network: &Path, folder: Option<&Path>) -> Self {
        let mut hash = Sha256::new();
        for part in [env!("CARGO_PKG_VERSION"), &processor(), identity] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        let folder = folder.map_or_else(|| network.with_file_name(FOLDER), Path::to_owned);
        Self { key: format!("{:x}", hash.finalize()), folder }
    }

    /// Returns the cached measurements, if any.
    pub fn read(&self) -> Option<Findings> {
        let mut remembered = REMEMBERED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = remembered.as_ref().and_then(|all| all.get(&self.key)) {
            return Some(*found);
        }
        let mut text = String::new();
        File::open(self.file()).ok()?.take(LARGEST).read_to_string(&mut text).ok()?;
        let found: Findings = serde_json::from_str(&text)
            .inspect_err(|e| tracing::warn!(file = %self.file().display(), error = %e, "ignored"))
            .ok()?;
        remember(remembered.get_or_insert_default(), &self.key, found);
        Some(found)
    }

    /// Caches the measurements. A failure to write them to disk is not an error.
    pub fn write(&self, found: Findings) {
        let mut remembered = REMEMBERED.lock().unwrap_or_else(PoisonError::into_inner);
        remember(remembered.get_or_insert_default(), &self.key, found);
        drop(remembered);
        if let Err(e) = self.store(found) {
            tracing::debug!(folder = %self.folder.display(), error = %e, "findings are not kept on disk");
        }
    }

    /// Writes the file atomically, so that a reader sees all of it or none.
    fn store(&self, found: Findings) -> std::io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        let mut file = tempfile::NamedTempFile::new_in(&self.folder)?;
        file.write_all(&serde_json::to_vec(&found)?)?;
        file.persist(self.file())?;
        Ok(())
    }

    fn file(&self) -> PathBuf {
        self.folder.join(format!("{}.json", self.key))
    }
}

fn remember(all: &mut HashMap<String, Findings>, key: &str, found: Findings) {
    if all.len() < MOST || all.contains_key(key) {
        all.insert(key.to_owned(), found);
    }
}

/// Identifies the CPU by its name and instruction set.
fn processor() -> String {
    let fields = ["model name", "flags", "CPU part", "Features"];
    fields.map(|name| cpu::field(Path::new("/"), name).unwrap_or_default()).join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOUND: Findings = Findings { plan: RunPlan { lanes: 2, batch: 1 }, bytes: 1234 };

    fn forget() {
        *REMEMBERED.lock().unwrap() = None;
    }

    #[test]
    fn findings_come_back_from_disk_and_from_memory() {
        let dir = tempfile::tempdir().unwrap();
        let network = dir.path().join("models/model.onnx");
        fs::create_dir(dir.path().join("models")).unwrap();
        let place = Place::of("disk and memory", &network, None);
        assert_eq!(place.read(), None);
        place.write(FOUND);
        assert!(dir.path().join("models/.cache").is_dir());
        forget();
        assert_eq!(place.read(), Some(FOUND));
        fs::remove_dir_all(dir.path().join("models/.cache")).unwrap();
        assert_eq!(place.read(), Some(FOUND), "the process remembers");
        assert_eq!(Place::of("another", &network, None).read(), None);
        // If the folder is not writable, the process cache still works.
        let nowhere = Place::of("nowhere", &network, Some(Path::new("/proc/none")));
        nowhere.write(FOUND);
        assert_eq!(nowhere.read(), Some(FOUND));
    }

    #[test]
    fn what_is_not_as_it_should_be_is_as_none() {
        let dir = tempfile::tempdir().unwrap();
        for (index, text) in
            ["", "{", "[]", r#"{"plan":{"lanes":-1,"batch":1},"bytes":1}"#, r#"{"bytes":1}"#]
                .into_iter()
                .chain([&*"9".repeat(100_000)])
                .enumerate()
        {
            let place = Place::of(&format!("bad {index}"), Path::new("m"), Some(dir.path()));
            fs::write(place.file(), text).unwrap();
            assert_eq!(place.read(), None, "{text:.40}");
        }
    }
}
