//! Writes finished outputs where the caller wants them: an S3 prefix or a local folder here,
//! archives of DICOM objects in [`dicomweb`].
//!
//! The outputs of an input are written concurrently. If one cannot be written, the others are still
//! finished and kept: the request fails and reports which kinds are stored. Stored outputs are
//! complete and have names unique to the request, so that sending the request again is safe;
//! deleting them could fail as well and would need a permission that nothing else needs.
//!
//! The caller's URI is untrusted input, so only plain names pass: neither the URI nor the output's
//! file name can lead out of the given folder or prefix.

pub mod dicomweb;
mod folder;
mod s3;

use std::path::PathBuf;

use crate::aws::{Allowance, S3};
use crate::config::AccessSettings;
use crate::error::{Error, ErrorKind, Result};
use crate::request::Artifact;

/// Destination of outputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// Keys below a prefix of a bucket; the prefix may be empty and has no leading or trailing
    /// slash.
    S3 {
        /// The bucket.
        bucket: String,
        /// The prefix of keys.
        prefix: String,
    },
    /// Files in a folder, which is created if missing.
    Folder(PathBuf),
}

impl Destination {
    /// Parses `s3://bucket/prefix`, `file:///folder` or the path of a folder.
    ///
    /// # Errors
    /// `InvalidRequest` for another scheme, a malformed bucket, or a path component that is `.` or
    /// `..` or has control characters.
    pub fn parse(uri: &str) -> Result<Self> {
        if let Some(rest) = uri.strip_prefix("s3://") {
            let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            check_bucket(bucket)?;
            let prefix = prefix.trim_matches('/');
            check_names(prefix)?;
            return Ok(Self::S3 { bucket: bucket.to_owned(), prefix: prefix.to_owned() });
        }
        let path = match uri.split_once("://") {
            Some(("file", path)) if path.starts_with('/') => path,
            Some(("file", _)) => {
                return Err(invalid("a file URI has three slashes: file:///folder"));
            }
            Some(_) => return Err(invalid("it is neither an s3:// nor a file:// URI")),
            None => uri,
        };
        check_names(path)?;
        if path.is_empty() {
            return Err(invalid("it is empty"));
        }
        Ok(Self::Folder(PathBuf::from(path)))
    }

    /// Returns the folder `name` below this destination.
    ///
    /// # Errors
    /// `Internal` if `name` is not a plain name.
    pub fn below(self, name: &str) -> Result<Self> {
        check_plain(name)?;
        Ok(match self {
            Self::S3 { bucket, prefix } => Self::S3 { bucket, prefix: joined(&prefix, name) },
            Self::Folder(folder) => Self::Folder(folder.join(name)),
        })
    }
}

/// Writes outputs.
#[derive(Debug, Clone)]
pub struct Sink {
    objects: Option<s3::Objects>,
}

impl Sink {
    /// Creates a sink that also writes to S3, according to `settings`.
    pub fn new(s3: S3, settings: &AccessSettings) -> Self {
        Self { objects: Some(s3::Objects::new(s3, settings)) }
    }

    /// Creates a sink that writes only to folders.
    pub fn folders() -> Self {
        Self { objects: None }
    }

    /// Writes outputs to `destination` under their file names, concurrently, and records the
    /// location in each. Retries are taken from `allowance`.
    ///
    /// # Errors
    /// The error of the first output that cannot be written, after the others are finished; if
    /// there are several outputs, it names the kinds stored and not stored. `InvalidRequest` for a
    /// bucket of another region; `NotFound` for a bucket that does not exist; `AccessDenied`,
    /// `Credentials`, `Throttled`, `Upstream` from S3; `Io` from the file system; `Configuration`
    /// if S3 is needed and not set up.
    pub async fn store(
        &self,
        artifacts: &mut [Artifact],
        destination: &Destination,
        allowance: &Allowance,
    ) -> Result<()> {
        allowance.expect(artifacts.len());
        let writes = artifacts.iter().map(|one| self.write(one, destination, allowance));
        let written = futures::future::join_all(writes).await;
        let mut failed = None;
        for (artifact, written) in artifacts.iter_mut().zip(written) {
            match written {
                Ok(uri) => artifact.uri = Some(uri),
                Err(e) => {
                    let e = e.context(format_args!("storing {}", artifact.kind.name()));
                    failed = failed.or(Some(e));
                }
            }
        }
        failed.map_or(Ok(()), |error| Err(tell(error, artifacts)))
    }

    async fn write(
        &self,
        artifact: &Artifact,
        destination: &Destination,
        allowance: &Allowance,
    ) -> Result<String> {
        let name = artifact.file_name.as_str();
        check_plain(name)?;
        match destination {
            Destination::S3 { bucket, prefix } => {
                let key = joined(prefix, name);
                let objects = self.objects.as_ref().ok_or_else(|| {
                    let what = "no S3 client is set up to write outputs with";
                    Error::new(ErrorKind::Configuration, what)
                })?;
                objects.put(artifact, bucket, &key, allowance).await?;
                Ok(format!("s3://{bucket}/{key}"))
            }
            Destination::Folder(folder) => folder::write(artifact, folder.clone()).await,
        }
    }
}

/// Adds to an error which outputs are stored and which are not, if there are several. Names kinds
/// and not keys, because keys often contain patient names.
fn tell(error: Error, artifacts: &[Artifact]) -> Error {
    if artifacts.len() < 2 {
        return error;
    }
    let kinds = |stored: bool| -> Vec<&str> {
        let meant = artifacts.iter().filter(|artifact| artifact.uri.is_some() == stored);
        meant.map(|artifact| artifact.kind.name()).collect()
    };
    let (stored, missing) = (kinds(true), kinds(false));
    let what = match &stored[..] {
        [] => "no output is stored".to_owned(),
        stored => format!(
            "{} not stored, {} stored; the request may be sent again, which stores all anew",
            missing.join(", "),
            stored.join(", ")
        ),
    };
    error.context(what).with("stored", stored).with("notStored", missing)
}

fn check_bucket(bucket: &str) -> Result<()> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    let ends = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = bucket.as_bytes();
    if (3..=63).contains(&bytes.len())
        && bytes.iter().all(|&b| plain(b))
        && ends(bytes.first())
        && ends(bytes.last())
        && !bucket.contains("..")
    {
        return Ok(());
    }
    Err(invalid("its bucket is not 3 to 63 lower-case letters, digits, hyphens and periods"))
}

/// Checks that no path component is `.` or `..` and that there are no control characters.
fn check_names(path: &str) -> Result<()> {
    if path.split(['/', '\\']).any(|s| matches!(s, "." | "..")) {
        return Err(invalid("its path has a segment . or .."));
    }
    if path.len() > 900 || path.chars().any(char::is_control) {
        return Err(invalid("its path is longer than 900 bytes or has control characters"));
    }
    Ok(())
}

/// Checks a name created by this program, which must not contain a path.
fn check_plain(name: &str) -> Result<()> {
    if name.is_empty() || name.contains(['/', '\\']) || check_names(name).is_err() {
        return Err(Error::internal("the name of an output or its folder is not a plain name"));
    }
    Ok(())
}

fn joined(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { name.to_owned() } else { format!("{prefix}/{name}") }
}

fn invalid(why: &str) -> Error {
    Error::new(ErrorKind::InvalidRequest, format!("the output URI cannot be used: {why}"))
        .with("field", "outputS3Uri")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::OutputKind;

    async fn store(artifact: &mut Artifact, uri: &str) -> Result<()> {
        let artifacts = std::slice::from_mut(artifact);
        Sink::folders().store(artifacts, &Destination::parse(uri)?, &Allowance::default()).await
    }

    fn artifact(name: &str) -> Artifact {
        let bytes = bytes::Bytes::from_static(b"seg");
        Artifact::new(OutputKind::DicomSeg, name.to_owned(), bytes)
    }

    #[test]
    fn uris_are_read() {
        let s3 = |bucket: &str, prefix: &str| Destination::S3 {
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
        };
        assert_eq!(Destination::parse("s3://my.bucket-1/a/b/").unwrap(), s3("my.bucket-1", "a/b"));
        assert_eq!(Destination::parse("s3://bucket").unwrap(), s3("bucket", ""));
        let folder = |p: &str| Destination::Folder(PathBuf::from(p));
        assert_eq!(Destination::parse("file:///out/a").unwrap(), folder("/out/a"));
        assert_eq!(Destination::parse("out/a").unwrap(), folder("out/a"));
    }

    #[test]
    fn a_request_has_a_folder_of_its_own() {
        let below = |uri: &str, name: &str| Destination::parse(uri).unwrap().below(name);
        assert_eq!(
            below("s3://bucket/a/", "r-1").unwrap(),
            Destination::parse("s3://bucket/a/r-1").unwrap()
        );
        assert_eq!(
            below("s3://bucket", "r").unwrap(),
            Destination::parse("s3://bucket/r").unwrap()
        );
        assert_eq!(below("file:///", "r").unwrap(), Destination::Folder(PathBuf::from("/r")));
        for name in ["", "..", "a/b", "a\\b", "a\nb"] {
            assert_eq!(below("out", name).unwrap_err().kind(), ErrorKind::Internal, "{name:?}");
        }
    }

    #[test]
    fn hostile_uris_are_refused() {
        for uri in [
            "s3://bucket/../other",
            "s3://bucket/a/./b",
            "s3://Bucket/a",
            "s3://b/a",
            "s3:///a",
            "s3://a..b/c",
            "s3://user@bucket/a",
            "file:///out/../etc",
            "file://host/out",
            "../etc",
            "http://bucket/a",
            "out\n/a",
            "",
        ] {
            let e = Destination::parse(uri).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::InvalidRequest, "{uri}");
        }
    }

    #[tokio::test]
    async fn files_are_written_whole_and_replaced() {
        let tmp = tempfile::tempdir().unwrap();
        let folder = tmp.path().join("a/b");
        for uri in [format!("file://{}", folder.display()), folder.display().to_string()] {
            let mut artifact = artifact("x.dcm");
            store(&mut artifact, &uri).await.unwrap();
            let written = artifact.uri.unwrap();
            let path = written.strip_prefix("file://").unwrap();
            assert_eq!(std::fs::read(path).unwrap(), b"seg");
            assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1, "nothing else is left");
        }
    }

    #[tokio::test]
    async fn names_that_leave_the_folder_are_refused() {
        let tmp = tempfile::tempdir().unwrap();
        for name in ["../x", "a/b", "", ".."] {
            let mut artifact = artifact(name);
            let e = store(&mut artifact, tmp.path().to_str().unwrap()).await.unwrap_err();
            assert_eq!((e.kind(), artifact.uri), (ErrorKind::Internal, None), "{name}");
        }
        let mut artifact = artifact("x");
        let e = store(&mut artifact, "s3://bucket/a").await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Configuration);
        std::fs::write(tmp.path().join("file"), b"").unwrap();
        let below_a_file = tmp.path().join("file/a");
        let e = store(&mut artifact, below_a_file.to_str().unwrap()).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Io);
    }
}
