//! Unpacks `model.tar.gz` without trusting its contents.

use std::fs::File;
use std::io::Read;
use std::path::{Component, Path};

use flate2::read::GzDecoder;
use tar::{Archive, EntryType};

use crate::error::{Error, ErrorKind, Result};

/// Maximum number of bytes that an archive may expand to.
const MOST_BYTES: u64 = 16 << 30;

/// Maximum number of files and folders in an archive.
const MOST_ENTRIES: usize = 100_000;

/// Unpacks the files and folders of a gzip-compressed tar into `folder`, which is created.
///
/// # Errors
/// [`ErrorKind::InvalidModel`] if it is not such an archive, contains links, devices or paths that
/// lead outside the folder, or is too large; [`ErrorKind::Io`] if the folder cannot be written.
pub fn unpack(archive: &Path, folder: &Path) -> Result<()> {
    let file = File::open(archive).map_err(|e| io(archive, e))?;
    std::fs::create_dir_all(folder).map_err(|e| io(folder, e))?;
    let mut archive = Archive::new(GzDecoder::new(file).take(MOST_BYTES));
    // Ignores the archive's times and permissions.
    archive.set_preserve_mtime(false);
    archive.set_preserve_permissions(false);
    let entries = archive.entries().map_err(broken)?;
    for (number, entry) in entries.enumerate() {
        let mut entry = entry.map_err(broken)?;
        let path = entry.path().map_err(broken)?.into_owned();
        let plain =
            path.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
        let kind = entry.header().entry_type();
        let file = matches!(kind, EntryType::Regular | EntryType::Continuous);
        if matches!(kind, EntryType::XGlobalHeader) {
            continue;
        }
        if number >= MOST_ENTRIES {
            return Err(refused(format!("holds more than {MOST_ENTRIES} files")));
        }
        if !plain || !(file || kind == EntryType::Directory) {
            let problem =
                format!("holds {}, which is neither a file nor a folder in it", path.display());
            return Err(refused(problem));
        }
        let unpacked = entry.unpack_in(folder).map_err(broken)?;
        if !unpacked {
            return Err(refused(format!("holds {}, which leads out of it", path.display())));
        }
    }
    Ok(())
}

fn refused(problem: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::InvalidModel, format!("the model's archive {problem}"))
}

fn broken(e: std::io::Error) -> Error {
    refused(format!("is not a whole .tar.gz: {e}")).caused_by(e)
}

fn io(path: &Path, e: std::io::Error) -> Error {
    Error::new(ErrorKind::Io, format!("{} cannot be read or written", path.display())).caused_by(e)
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use tar::{Builder, Header};

    use super::*;

    /// Builds an archive with one entry, whose name is written verbatim.
    fn archive(folder: &Path, name: &str, kind: EntryType, link: &str) -> std::path::PathBuf {
        let path = folder.join("model.tar.gz");
        let mut builder =
            Builder::new(GzEncoder::new(File::create(&path).unwrap(), Compression::fast()));
        let mut header = Header::new_ustar();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(0o644);
        if !link.is_empty() {
            header.set_link_name(link).unwrap();
        }
        header.set_size(if kind == EntryType::Regular { 3 } else { 0 });
        header.set_cksum();
        let content: &[u8] = if kind == EntryType::Regular { b"abc" } else { b"" };
        builder.append(&header, content).unwrap();
        builder.into_inner().unwrap().finish().unwrap();
        path
    }

    #[test]
    fn files_are_unpacked() {
        let root = tempfile::tempdir().unwrap();
        let path = archive(root.path(), "./models/model.onnx", EntryType::Regular, "");
        unpack(&path, &root.path().join("model")).unwrap();
        assert_eq!(std::fs::read(root.path().join("model/models/model.onnx")).unwrap(), b"abc");
    }

    #[test]
    fn nothing_leads_out() {
        for (name, kind, link) in [
            ("../out", EntryType::Regular, ""),
            ("a/../../out", EntryType::Regular, ""),
            ("/out", EntryType::Regular, ""),
            ("link", EntryType::Symlink, "/etc"),
            ("link", EntryType::Link, "../out"),
            ("pipe", EntryType::Fifo, ""),
        ] {
            let root = tempfile::tempdir().unwrap();
            let path = archive(root.path(), name, kind, link);
            let error = unpack(&path, &root.path().join("model")).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidModel, "{name}");
            assert!(!root.path().join("out").exists() && !Path::new("/out").exists(), "{name}");
        }
    }

    #[test]
    fn what_is_no_archive_is_said() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("model.tar.gz");
        std::fs::write(&path, b"not an archive").unwrap();
        let error = unpack(&path, &root.path().join("model")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidModel);
        let whole = archive(root.path(), "a", EntryType::Regular, "");
        let bytes = std::fs::read(&whole).unwrap();
        std::fs::write(&whole, &bytes[..bytes.len() / 2]).unwrap();
        assert!(unpack(&whole, &root.path().join("model")).is_err());
    }
}
