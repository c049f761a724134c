//! Objects of the local S3, as the parts of this process read and write them: straight in its folder.

use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};

/// An object, or a prefix of objects, in S3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// The bucket.
    pub bucket: String,
    /// The key, or what keys begin with; may be empty.
    pub key: String,
}

impl Location {
    /// Reads `s3://bucket/key`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidRequest`] for another scheme, a bucket that is none, and keys that could
    /// lead out of the bucket's folder.
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

    /// Whether the key is names between slashes, so that it is also the path of a file.
    fn is_plain(&self) -> bool {
        let names = self.key.strip_suffix('/').unwrap_or(&self.key);
        !names.contains('\0')
            && (names.is_empty() || names.split('/').all(|n| !matches!(n, "" | "." | "..")))
    }

    /// What is called `name` below this prefix, with one slash between them.
    #[must_use]
    pub fn join(&self, name: &str) -> Self {
        let prefix = self.key.trim_end_matches('/');
        let key = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}/{name}") };
        Self { bucket: self.bucket.clone(), key }
    }

    /// The key after this prefix's own: S3's sense of a prefix, which need not end with a slash.
    ///
    /// # Errors
    /// As [`Location::parse`].
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
    /// The objects in `root`, which has a folder for each bucket.
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// The folder of a bucket.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] where there is no such bucket.
    pub fn bucket(&self, name: &str) -> Result<PathBuf> {
        let folder = self.root.join(name);
        if folder.is_dir() {
            return Ok(folder);
        }
        Err(Error::new(ErrorKind::NotFound, format!("there is no bucket {name}")))
    }

    /// The file of an object.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] where there is no such object.
    pub fn file(&self, location: &Location) -> Result<PathBuf> {
        let path = self.bucket(&location.bucket)?.join(&location.key);
        if path.is_file() {
            return Ok(path);
        }
        Err(Error::new(ErrorKind::NotFound, format!("there is no object {location}")))
    }

    /// The bytes of an object.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] where there is no such object, [`ErrorKind::Io`].
    pub fn read(&self, location: &Location) -> Result<Vec<u8>> {
        let path = self.file(location)?;
        std::fs::read(&path).map_err(|e| io(&path, e))
    }

    /// Makes an object. Its key must be new: the S3 in front keeps what it knows of an object beside
    /// it, which is not renewed here.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] where there is no such bucket, [`ErrorKind::Io`].
    pub fn create(&self, location: &Location, bytes: &[u8]) -> Result<()> {
        let path = self.bucket(&location.bucket)?.join(&location.key);
        let folder = path.parent().unwrap_or(&self.root);
        std::fs::create_dir_all(folder).map_err(|e| io(folder, e))?;
        // Outside the buckets, so that it is not listed before it is whole.
        let temporary = self.root.join(format!(".new-{}", uuid::Uuid::new_v4().simple()));
        let written =
            std::fs::write(&temporary, bytes).and_then(|()| std::fs::rename(&temporary, &path));
        written.map_err(|e| {
            // What cannot be removed was perhaps never written.
            let _ = std::fs::remove_file(&temporary);
            io(&path, e)
        })
    }

    /// The keys that begin with `prefix`, sorted.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] where there is no such bucket, [`ErrorKind::Io`].
    pub fn list(&self, prefix: &Location) -> Result<Vec<String>> {
        let bucket = self.bucket(&prefix.bucket)?;
        // Keys with the prefix are all below its last whole folder.
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
                // Of the entry itself: a link is neither folder nor file.
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
