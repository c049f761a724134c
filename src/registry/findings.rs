//! What was found out about a network on this machine, kept so that it need not be found out again: the plan by
//! which its windows take the least time, and the memory it keeps. The process remembers it, and a folder does
//! where one can be written.
//!
//! What is read back is checked as anything from outside is; a file that is not as it should be is as none.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::inference::RunPlan;

/// Folder beside a network's file.
const FOLDER: &str = ".cache";

/// Largest file that is read.
const LARGEST: u64 = 4096;

/// Networks that a process remembers.
const MOST: usize = 1024;

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Findings {
    /// How its windows share the CPU.
    pub plan: RunPlan,
    /// Bytes that the loaded model keeps.
    pub bytes: u64,
}

/// The place of one network's findings.
#[derive(Debug, Clone)]
pub(super) struct Place {
    key: String,
    folder: PathBuf,
}

static REMEMBERED: Mutex<Option<HashMap<String, Findings>>> = Mutex::new(None);

impl Place {
    /// Of the network `identity`, whose file is `network`, in `folder` or else beside it. Findings are of one
    /// CPU and of one version of this program.
    pub fn of(identity: &str, network: &Path, folder: Option<&Path>) -> Self {
        let mut hash = Sha256::new();
        for part in [env!("CARGO_PKG_VERSION"), &cpu(), identity] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        let folder = folder.map_or_else(|| network.with_file_name(FOLDER), Path::to_owned);
        Self { key: format!("{:x}", hash.finalize()), folder }
    }

    /// What was found before.
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

    /// Keeps what was found. That it cannot be written is no failure.
    pub fn write(&self, found: Findings) {
        let mut remembered = REMEMBERED.lock().unwrap_or_else(PoisonError::into_inner);
        remember(remembered.get_or_insert_default(), &self.key, found);
        drop(remembered);
        if let Err(e) = self.store(found) {
            tracing::debug!(folder = %self.folder.display(), error = %e, "findings are not kept on disk");
        }
    }

    /// A reader sees the whole file or none.
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

/// What tells this CPU from others: its name and its instructions.
fn cpu() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let told = |line: &&str| {
        let name = line.split(':').next().unwrap_or_default().trim();
        ["model name", "flags", "CPU part", "Features"].contains(&name)
    };
    // Of the first core; the others repeat it.
    info.lines().take_while(|line| !line.is_empty()).filter(told).collect::<Vec<_>>().join("\n")
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
        // Where nothing can be written, the process remembers all the same.
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
