//! Finished outputs to where the caller wants them: an S3 prefix or a local folder.
//!
//! The caller's URI comes from outside, so only plain names pass: nothing in it or in the output's
//! file name can climb out of the folder or prefix named. A file is either whole or not there.

use std::io::Write;
use std::path::{Path, PathBuf};

use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::put_object::PutObjectError;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::ChecksumAlgorithm;

use crate::error::{Error, ErrorKind, Result, chain};
use crate::request::Artifact;

/// Where outputs go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// Keys below a prefix (empty, or without slashes at its ends) of a bucket.
    S3 {
        /// The bucket.
        bucket: String,
        /// What keys begin with.
        prefix: String,
    },
    /// Files in a folder, which is made if it is not there.
    Folder(PathBuf),
}

impl Destination {
    /// Reads `s3://bucket/prefix`, `file:///folder` or the path of a folder.
    ///
    /// # Errors
    /// `InvalidRequest` for another scheme, a malformed bucket, or a name that is `.` or `..` or has
    /// control characters.
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
}

/// Writes an output below `output_uri` under its file name and notes its URI in it.
///
/// # Errors
/// `InvalidRequest` for a URI that [`Destination::parse`] refuses or a bucket of another region;
/// `NotFound` for a bucket that is not there; `AccessDenied`, `Throttled`, `Upstream` from S3;
/// `Io` from the file system; `Configuration` if `s3` is needed and missing.
pub async fn store(
    artifact: &mut Artifact,
    output_uri: &str,
    s3: Option<&aws_sdk_s3::Client>,
) -> Result<()> {
    let name = artifact.file_name.as_str();
    if name.is_empty() || name.contains(['/', '\\']) || check_names(name).is_err() {
        return Err(Error::internal("an output's file name is not a plain name"));
    }
    let uri = match Destination::parse(output_uri)? {
        Destination::S3 { bucket, prefix } => {
            let client = s3.ok_or_else(|| {
                Error::new(ErrorKind::Configuration, "no S3 client is set up to write outputs with")
            })?;
            let key = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}/{name}") };
            put(client, artifact, &bucket, &key).await?
        }
        Destination::Folder(folder) => write_file(artifact, folder).await?,
    };
    artifact.uri = Some(uri);
    Ok(())
}

async fn put(
    client: &aws_sdk_s3::Client,
    artifact: &Artifact,
    bucket: &str,
    key: &str,
) -> Result<String> {
    let uri = format!("s3://{bucket}/{key}");
    client
        .put_object()
        .bucket(bucket)
        .key(key)
        .content_type(artifact.media_type)
        .checksum_algorithm(ChecksumAlgorithm::Sha256)
        .body(ByteStream::from(artifact.bytes.clone()))
        .send()
        .await
        .map_err(|e| {
            refused(&e).context(format_args!("writing {uri}")).with("uri", uri.as_str())
        })?;
    Ok(uri)
}

fn refused(e: &SdkError<PutObjectError>) -> Error {
    let status = e.raw_response().map_or(0, |r| r.status().as_u16());
    let code = e.code().unwrap_or("no error code");
    let kind = match (code, status) {
        ("SlowDown" | "ThrottlingException" | "RequestLimitExceeded", _) | (_, 429) => {
            ErrorKind::Throttled
        }
        ("NoSuchBucket", _) | (_, 404) => ErrorKind::NotFound,
        (_, 401 | 403) => ErrorKind::AccessDenied,
        (_, 301 | 400) => ErrorKind::InvalidRequest,
        _ => ErrorKind::Upstream,
    };
    let what = match status {
        0 => "S3 cannot be reached".to_owned(),
        status => format!("S3 refused it ({code}, http status {status})"),
    };
    Error::new(kind, what).caused_by(chain(e))
}

async fn write_file(artifact: &Artifact, folder: PathBuf) -> Result<String> {
    let (name, bytes) = (artifact.file_name.clone(), artifact.bytes.clone());
    tokio::task::spawn_blocking(move || replace_file(&folder, &name, &bytes))
        .await
        .map_err(|e| Error::internal("writing an output was aborted").caused_by(e))?
}

/// Writes under another name, and renames once the bytes are on the disk.
fn replace_file(folder: &Path, name: &str, bytes: &[u8]) -> Result<String> {
    let failed = |what: &str, e: std::io::Error| {
        let message = format!("cannot {what} {name} in {}: {}", folder.display(), e.kind());
        Error::new(ErrorKind::Io, message).caused_by(e)
    };
    std::fs::create_dir_all(folder).map_err(|e| failed("make the folder for", e))?;
    let folder_path = folder.canonicalize().map_err(|e| failed("resolve the folder for", e))?;
    let part = folder_path.join(format!(".{name}.{}.part", uuid::Uuid::new_v4().simple()));
    let path = folder_path.join(name);
    let written = std::fs::File::create_new(&part)
        .and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        })
        .and_then(|()| std::fs::rename(&part, &path));
    if let Err(e) = written {
        // What is left of it is of no use; the error worth telling is the first.
        let _ = std::fs::remove_file(&part);
        return Err(failed("write", e));
    }
    // The rename itself is on the disk only once the folder is.
    std::fs::File::open(&folder_path)
        .and_then(|folder| folder.sync_all())
        .map_err(|e| failed("write", e))?;
    Ok(format!("file://{}", path.display()))
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

/// No segment between slashes may be `.` or `..`, and nothing may be a control character.
fn check_names(path: &str) -> Result<()> {
    if path.split(['/', '\\']).any(|s| matches!(s, "." | "..")) {
        return Err(invalid("its path has a segment . or .."));
    }
    if path.len() > 900 || path.chars().any(char::is_control) {
        return Err(invalid("its path is longer than 900 bytes or has control characters"));
    }
    Ok(())
}

fn invalid(why: &str) -> Error {
    Error::new(ErrorKind::InvalidRequest, format!("the output URI cannot be used: {why}"))
        .with("field", "outputS3Uri")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::OutputKind;

    fn artifact(name: &str) -> Artifact {
        Artifact {
            kind: OutputKind::DicomSeg,
            media_type: "application/dicom",
            file_name: name.to_owned(),
            bytes: bytes::Bytes::from_static(b"seg"),
            uri: None,
        }
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
            store(&mut artifact, &uri, None).await.unwrap();
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
            let e = store(&mut artifact, tmp.path().to_str().unwrap(), None).await.unwrap_err();
            assert_eq!((e.kind(), artifact.uri), (ErrorKind::Internal, None), "{name}");
        }
        let mut artifact = artifact("x");
        let e = store(&mut artifact, "s3://bucket/a", None).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Configuration);
        std::fs::write(tmp.path().join("file"), b"").unwrap();
        let below_a_file = tmp.path().join("file/a");
        let e = store(&mut artifact, below_a_file.to_str().unwrap(), None).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Io);
    }
}
