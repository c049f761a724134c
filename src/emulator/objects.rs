//! Direct access to the objects of the local S3 in its folder.

use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};

/// An S3 object, or a prefix of objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// The bucket.
    pub bucket: String,
    /// The key, or a key prefix; may be empty.
    pub key: String,
}

impl Location {
    /// Parses `s3://bucket/key`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidRequest`] for another scheme, an invalid bucket name, or a key that
    /// could lead outside the bucket's folder.
    pub fn parse(uri: &str) -> Result<Self> {
        let invalid = |problem: &str| {
            Error::new(ErrorKind::InvalidRequest, format!("{uri} {problem}")).with("uri", uri)
        };
        let rest = uri.strip_prefix("s3://").ok_or_else(|| invalid("is not s3://bucket/key"))?;
        let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
        if !s3s::path::check_bucket_name(bucket) {
            return Err(invalid("does not name a bucket"));
        }
        let location = Self { bucket: bucket.to_owned(), key: key.to_owned() };
        if !location.is_plain() {
            return Err(invalid("has a key with empty names, '.' or '..' in it"));
        }
        Ok(location)
    }

    /// Whether the key consists of names between slashes, so that it is also a file path.
    fn is_plain(&self) -> bool {
        let names = self.key.strip_suffix('/').unwrap_or(&self.key);
        !names.contains('\0')
            && (names.is_empty() || names.split('/').all(|n| !matches!(n, "" | "." | "..")))
    }

    /// Returns the location `name` below this prefix, separated by one slash.
    #[must_use]
    pub fn join(&self, name: &str) -> Self {
        let prefix = self.key.trim_end_matches('/');
        let key = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}/{name}") };
        Self { bucket: self.bucket.clone(), key }
    }

    /// Appends `rest` to the prefix as S3 does, which need not end with a slash.
    ///
    /// # Errors
    /// See [`Location::parse`].
    pub fn append(&self, rest: &str) -> Result<Self> {
        Self::parse(&format!("{self}{rest}"))
    }
}

impl std::fmt::Display for Location {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "s3://{}/{}", self.bucket, self.key)
    }
}

/// The objects in the local S3's folder.
#[derive(Debug, Clone)]
pub struct Objects {
    root: PathBuf,
}

impl Objects {
    /// Creates access to the objects in `root`, which has one folder per bucket.
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// Returns the folder of a bucket.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if the bucket does not exist.
    pub fn bucket(&self, name: &str) -> Result<PathBuf> {
        let folder = self.root.join(name);
        if folder.is_dir() {
            return Ok(folder);
        }
        Err(Error::new(ErrorKind::NotFound, format!("there is no bucket {name}")))
    }

    /// Returns the file of an object.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if the object does not exist.
    pub fn file(&self, location: &Location) -> Result<PathBuf> {
        let path = self.bucket(&location.bucket)?.join(&location.key);
        if path.is_file() {
            return Ok(path);
        }
        Err(Error::new(ErrorKind::NotFound, format!("there is no object {location}")))
    }

    /// Returns the bytes of an object.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if the object does not exist, [`ErrorKind::Io`].
    pub fn read(&self, location: &Location) -> Result<Vec<u8>> {
        let path = self.file(location)?;
        std::fs::read(&path).map_err(|e| io(&path, e))
    }

    /// Creates an object. The key must be new: the S3 server keeps metadata of an object next to
    /// it, which is not updated here.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if the bucket does not exist, [`ErrorKind::Io`].
    pub fn create(&self, location: &Location, bytes: &[u8]) -> Result<()> {
        let path = self.bucket(&location.bucket)?.join(&location.key);
        let folder = path.parent().unwrap_or(&self.root);
        std::fs::create_dir_all(folder).map_err(|e| io(folder, e))?;
        // Written outside the buckets, so that it is not listed until complete.
        let temporary = self.root.join(format!(".new-{}", uuid::Uuid::new_v4().simple()));
        let written =
            std::fs::write(&temporary, bytes).and_then(|()| std::fs::rename(&temporary, &path));
        written.map_err(|e| {
            // The file may never have been created.
            let _ = std::fs::remove_file(&temporary);
            io(&path, e)
        })
    }

    /// Returns the keys that begin with `prefix`, sorted.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if the bucket does not exist, [`ErrorKind::Io`].
    pub fn list(&self, prefix: &Location) -> Result<Vec<String>> {
        let bucket = self.bucket(&prefix.bucket)?;
        // All keys with the prefix are below its last complete folder.
        let folder = prefix.key.rsplit_once('/').map_or("", |(folder, _)| folder);
        let mut folders = vec![bucket.join(folder)];
        let mut keys = Vec::new();
        while let Some(folder) = folders.pop() {
            let entries = match std::fs::read_dir(&folder) {
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                entries => entries.map_err(|e| io(&folder, e))?,
            };
            for entry in entries {
                let entry = entry.map_err(|e| io(&folder, e))?;
                // The type of the entry itself: a symbolic link is neither folder nor file.
                let kind = entry.file_type().map_err(|e| io(&entry.path(), e))?;
                if kind.is_dir() {
                    folders.push(entry.path());
                } else if kind.is_file() {
                    keys.extend(key_of(&bucket, &entry.path()));
                }
            }
        }
        keys.retain(|key| key.starts_with(&prefix.key));
        keys.sort();
        Ok(keys)
    }
}

fn key_of(bucket: &Path, file: &Path) -> Option<String> {
    file.strip_prefix(bucket).ok()?.to_str().map(str::to_owned)
}

fn io(path: &Path, e: std::io::Error) -> Error {
    Error::new(ErrorKind::Io, format!("{} cannot be read or written", path.display())).caused_by(e)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_stay_in_their_bucket() {
        let location = Location::parse("s3://in-put/a/b.dcm").unwrap();
        assert_eq!((location.bucket.as_str(), location.key.as_str()), ("in-put", "a/b.dcm"));
        assert_eq!(Location::parse("s3://in-put").unwrap().key, "");
        assert_eq!(Location::parse("s3://in-put/a/").unwrap().join("b").key, "a/b");
        for bad in [
            "in-put/a",
            "s3://",
            "s3://../a",
            "s3://A_B/a",
            "s3://in-put/a/../b",
            "s3://in-put//a",
            "s3://in-put/./a",
            "https://in-put/a",
        ] {
            assert_eq!(
                Location::parse(bad).unwrap_err().kind(),
                ErrorKind::InvalidRequest,
                "{bad}"
            );
        }
        assert!(location.append("/../../c").is_err());
    }

    #[test]
    fn prefixes_are_not_folders() {
        let root = tempfile::tempdir().unwrap();
        let objects = Objects::new(root.path().to_owned());
        let at = |key: &str| Location::parse(&format!("s3://bucket/{key}")).unwrap();
        assert_eq!(objects.create(&at("a"), b"").unwrap_err().kind(), ErrorKind::NotFound);
        std::fs::create_dir(root.path().join("bucket")).unwrap();
        for key in ["ct/1.dcm", "ct/sub/2.dcm", "ct2/3.dcm", "mr/4.dcm"] {
            objects.create(&at(key), key.as_bytes()).unwrap();
        }
        let list = |prefix: &str| objects.list(&at(prefix)).unwrap();
        assert_eq!(list("ct/"), ["ct/1.dcm", "ct/sub/2.dcm"]);
        assert_eq!(list("ct"), ["ct/1.dcm", "ct/sub/2.dcm", "ct2/3.dcm"]);
        assert_eq!(list("").len(), 4);
        assert!(list("none/").is_empty());
        assert_eq!(objects.read(&at("mr/4.dcm")).unwrap(), b"mr/4.dcm");
        assert_eq!(objects.read(&at("mr")).unwrap_err().kind(), ErrorKind::NotFound);
    }
}
