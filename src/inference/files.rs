//! The files of a network and their digest, which identifies the network that made a result.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::external;
use crate::error::{Error, ErrorKind, Result};

/// The files of a network: the model file first, then its external weight files.
#[derive(Debug, Default)]
pub(super) struct NetworkFiles {
    files: Vec<NetworkFile>,
    sha256: String,
}

#[derive(Debug)]
struct NetworkFile {
    path: PathBuf,
    /// File name as the model spells it.
    name: String,
    sha256: String,
    stamp: Stamp,
}

/// Metadata that changes when a file is replaced or written to.
#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
}

impl Stamp {
    fn of(metadata: &fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }
}

impl NetworkFiles {
    /// Reads the files of the model at `path` once. This also brings them into the page cache, from
    /// which ONNX Runtime then loads them.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidModel`] if a file cannot be read.
    pub fn read(path: &Path) -> Result<Self> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut files = vec![NetworkFile::read(path, name).map_err(|e| unreadable(path, e))?];
        let model = File::open(path).map_err(|e| unreadable(path, e))?;
        for name in external::locations(model) {
            let beside = path.with_file_name(&name);
            // If it is missing or not a file, ONNX Runtime reports it.
            if beside.is_file() {
                files.push(NetworkFile::read(&beside, name).map_err(|e| unreadable(&beside, e))?);
            }
        }
        let sha256 = match &files[..] {
            [only] => only.sha256.clone(),
            all => {
                let lines: String =
                    all.iter().map(|file| format!("{}  {}\n", file.sha256, file.name)).collect();
                format!("{:x}", Sha256::digest(lines))
            }
        };
        Ok(Self { files, sha256 })
    }

    /// Returns the path of the model file.
    pub fn network(&self) -> &Path {
        self.files.first().map_or(Path::new(""), |file| &file.path)
    }

    /// Returns the SHA-256 of the network in hexadecimal. For a single file, that is its own digest.
    /// With external weights, it is the digest of the lines that `sha256sum` prints for all files: the
    /// model file first, then the others by name.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// Returns the name and SHA-256 of each file, if there are several.
    pub fn each(&self) -> Option<impl Iterator<Item = (&str, &str)>> {
        let each = self.files.iter().map(|file| (file.name.as_str(), file.sha256.as_str()));
        (self.files.len() > 1).then_some(each)
    }

    /// Checks that the files are still those that were read.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidModel`] if a file has changed: a session would run a different network than
    /// the one reported.
    pub fn ensure_unchanged(&self) -> Result<()> {
        for file in &self.files {
            let same = fs::metadata(&file.path).is_ok_and(|now| Stamp::of(&now) == file.stamp);
            if !same {
                return Err(Error::new(
                    ErrorKind::InvalidModel,
                    format!(
                        "{} was replaced while its model is in use; load the model again",
                        file.path.display()
                    ),
                ));
            }
        }
        Ok(())
    }
}

impl NetworkFile {
    fn read(path: &Path, name: String) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let stamp = Stamp::of(&file.metadata()?);
        let mut digest = Sha256::new();
        let mut buffer = vec![0; 1 << 20];
        loop {
            match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => digest.update(&buffer[..count]),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        let sha256 = format!("{:x}", digest.finalize());
        Ok(Self { path: path.to_owned(), name, sha256, stamp })
    }
}

fn unreadable(path: &Path, e: io::Error) -> Error {
    let message = format!("{} cannot be read: {}", path.display(), e.kind());
    Error::new(ErrorKind::InvalidModel, message).caused_by(e)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_file_has_its_own_digest_and_several_that_of_their_lines() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.onnx");
        fs::write(&path, b"abc").unwrap();
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let one = NetworkFiles::read(&path).unwrap();
        assert_eq!((one.sha256(), one.each().is_none()), (abc, true));

        // model { graph { initializer { external_data { "location", "w.bin" } } } }
        let entry = [&[10, 8][..], b"location", &[18, 5], b"w.bin"].concat();
        let tensor = [&[106, entry.len() as u8][..], &entry].concat();
        let graph = [&[42, tensor.len() as u8][..], &tensor].concat();
        fs::write(&path, [&[58, graph.len() as u8][..], &graph].concat()).unwrap();
        assert!(NetworkFiles::read(&path).unwrap().each().is_none(), "w.bin is not there");
        fs::write(dir.path().join("w.bin"), b"abc").unwrap();
        let two = NetworkFiles::read(&path).unwrap();
        let each: Vec<(&str, &str)> = two.each().unwrap().collect();
        assert_eq!((each[0].0, each[1]), ("model.onnx", ("w.bin", abc)));
        let lines = format!("{}  model.onnx\n{abc}  w.bin\n", each[0].1);
        assert_eq!(two.sha256(), format!("{:x}", Sha256::digest(lines)));
    }

    #[test]
    fn files_that_are_replaced_are_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.onnx");
        fs::write(&path, b"abc").unwrap();
        let files = NetworkFiles::read(&path).unwrap();
        files.ensure_unchanged().unwrap();
        fs::write(dir.path().join("new"), b"abd").unwrap();
        fs::rename(dir.path().join("new"), &path).unwrap();
        assert_eq!(files.ensure_unchanged().unwrap_err().kind(), ErrorKind::InvalidModel);
        fs::remove_file(&path).unwrap();
        assert!(files.ensure_unchanged().is_err());
        assert!(NetworkFiles::read(&path).is_err());
    }
}
