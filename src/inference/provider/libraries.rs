//! Finds the shared libraries that a library needs and the dynamic linker would not find. It lists all
//! of them at once: the linker itself stops at the first.

use std::collections::{BTreeSet, HashSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use object::elf::{DT_NEEDED, DT_RPATH, DT_RUNPATH, FileHeader64};
use object::read::ReadCache;
use object::read::elf::{Dyn, FileHeader};
use object::{Endianness, ReadRef};

/// Folders that the linker searches by default.
const DEFAULT: [&str; 6] =
    ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu", "lib64", "usr/lib64", "lib", "usr/lib"];

/// Nesting limit of `include` lines.
const DEPTH: usize = 4;

/// The search path for libraries.
pub(super) struct Search {
    folders: Vec<PathBuf>,
}

impl Search {
    /// Creates the search path: the folders of `LD_LIBRARY_PATH` and `ld.so.conf`, and the default
    /// ones, below `root`.
    pub fn new(root: &Path, library_path: Option<&OsStr>) -> Self {
        let mut folders: Vec<PathBuf> = library_path
            .map(|paths| std::env::split_paths(paths).filter(|p| p.is_absolute()).collect())
            .unwrap_or_default();
        configured(root, &root.join("etc/ld.so.conf"), DEPTH, &mut folders);
        folders.extend(DEFAULT.map(|folder| root.join(folder)));
        Self { folders }
    }

    /// Whether a library is in one of the folders.
    pub fn has(&self, name: &str) -> bool {
        self.find(name, &[]).is_some()
    }

    fn find(&self, name: &str, first: &[PathBuf]) -> Option<PathBuf> {
        let folders = first.iter().chain(&self.folders);
        folders.map(|folder| folder.join(name)).find(|path| path.is_file())
    }

    /// Returns the names of the direct and transitive dependencies of `library` that are not found
    /// anywhere.
    pub fn missing(&self, library: &Path) -> Vec<String> {
        let mut missing = BTreeSet::new();
        let mut seen = HashSet::new();
        let mut waiting = vec![library.to_owned()];
        while let Some(path) = waiting.pop() {
            // An unreadable library is left to the linker, which reports the error.
            let Some(needs) = needs(&path) else { continue };
            for name in needs.names {
                if !seen.insert(name.clone()) {
                    continue;
                }
                match self.find(&name, &needs.folders) {
                    Some(found) => waiting.push(found),
                    None => drop(missing.insert(name)),
                }
            }
        }
        missing.into_iter().collect()
    }
}

/// Adds the folders listed in a linker configuration file.
fn configured(root: &Path, file: &Path, depth: usize, folders: &mut Vec<PathBuf>) {
    let Ok(text) = fs::read_to_string(file) else { return };
    let below = |path: &str| root.join(path.trim_start_matches('/'));
    for line in text.lines().map(|line| line.split('#').next().unwrap_or_default().trim()) {
        match line.strip_prefix("include") {
            Some(pattern) if depth > 0 => {
                // In practice, patterns match the files of one folder with one extension.
                let pattern = below(pattern.trim());
                let Some(parent) = pattern.parent() else { continue };
                let mut files: Vec<PathBuf> = fs::read_dir(parent)
                    .into_iter()
                    .flatten()
                    .flatten()
                    .map(|entry| entry.path())
                    .filter(|path| path.extension() == pattern.extension())
                    .collect();
                files.sort();
                files.iter().for_each(|file| configured(root, file, depth - 1, folders));
            }
            None if line.starts_with('/') => folders.push(below(line)),
            _ => {}
        }
    }
}

struct Needs {
    names: Vec<String>,
    /// The library's own search path, searched first.
    folders: Vec<PathBuf>,
}

/// Returns the dependencies of an ELF file; `None` if it is not one.
fn needs(path: &Path) -> Option<Needs> {
    let file = ReadCache::new(File::open(path).ok()?);
    let header = FileHeader64::<Endianness>::parse(&file).ok()?;
    read_needs(header, &file, path)
}

fn read_needs<'d, R: ReadRef<'d>>(
    header: &FileHeader64<Endianness>,
    file: R,
    path: &Path,
) -> Option<Needs> {
    let endian = header.endian().ok()?;
    let sections = header.sections(endian, file).ok()?;
    let (entries, strings) = sections.dynamic(endian, file).ok()??;
    let strings = sections.strings(endian, file, strings).ok()?;
    let mut needs = Needs { names: Vec::new(), folders: Vec::new() };
    let origin = fs::canonicalize(path).ok()?;
    let origin = origin.parent()?.to_str()?;
    for entry in entries {
        let text = || {
            let text = strings.get(u32::try_from(entry.d_val(endian)).ok()?).ok()?;
            std::str::from_utf8(text).ok().map(str::to_owned)
        };
        match entry.d_tag(endian) {
            DT_NEEDED => needs.names.extend(text()),
            DT_RPATH | DT_RUNPATH => {
                let text = text().unwrap_or_default();
                let folders = text.split(':').filter(|folder| !folder.is_empty());
                needs.folders.extend(folders.map(|folder| {
                    folder.replace("$ORIGIN", origin).replace("${ORIGIN}", origin).into()
                }));
            }
            _ => {}
        }
    }
    Some(needs)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Builds a shared library with the linker that built this test.
    fn library(folder: &Path, name: &str, needs: &[&str], flags: &[&str]) {
        fs::create_dir_all(folder).unwrap();
        let file = folder.join(name);
        let done = Command::new("cc")
            .args(["-shared", "-nostdlib", "-x", "c", "/dev/null", "-Wl,--no-as-needed", "-o"])
            .arg(&file)
            .arg(format!("-Wl,-soname,{name}"))
            .arg("-L")
            .arg(folder)
            .args(needs.iter().map(|need| format!("-l:{need}")))
            .args(flags)
            .output()
            .unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }

    #[test]
    fn all_that_is_missing_is_found_through_those_that_are_there() {
        let root = tempfile::tempdir().unwrap();
        let build = root.path().join("build");
        for name in ["libdeep.so.1", "liblost.so.2", "libnext.so.3"] {
            library(&build, name, &[], &[]);
        }
        library(&build, "libmid.so.9", &["libdeep.so.1"], &[]);
        let needs = ["libmid.so.9", "liblost.so.2", "libnext.so.3"];
        library(&build, "libtop.so", &needs, &["-Wl,-rpath,$ORIGIN/beside"]);
        let place = |name: &str, folder: &str| {
            let folder = root.path().join(folder);
            fs::create_dir_all(&folder).unwrap();
            fs::copy(build.join(name), folder.join(name)).unwrap();
        };
        place("libtop.so", "ort");
        place("libnext.so.3", "ort/beside");
        place("libmid.so.9", "opt/cuda");
        fs::create_dir_all(root.path().join("etc/ld.so.conf.d")).unwrap();
        fs::write(root.path().join("etc/ld.so.conf"), "include /etc/ld.so.conf.d/*.conf\n")
            .unwrap();
        fs::write(root.path().join("etc/ld.so.conf.d/cuda.conf"), "# CUDA\n/opt/cuda\n").unwrap();
        let top = root.path().join("ort/libtop.so");
        let search = Search::new(root.path(), None);
        assert_eq!(search.missing(&top), ["libdeep.so.1", "liblost.so.2"]);
        assert!(search.has("libmid.so.9") && !search.has("libdeep.so.1"));
        let search = Search::new(root.path(), Some(build.as_os_str()));
        assert!(search.missing(&top).is_empty());
    }

    #[test]
    fn what_is_no_library_needs_nothing() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("x.so");
        for content in
            [&b""[..], b"\x7fELF", b"\x7fELF\x02\x01\x01 and then something else entirely"]
        {
            fs::write(&file, content).unwrap();
            assert!(Search::new(root.path(), None).missing(&file).is_empty());
        }
    }
}
