//! The local Amazon S3: buckets are folders, objects are files in them.
//!
//! Requests are signed with any access key whose secret equals the key (`test` and `test`, `local`
//! and `local`). Signatures are verified, so that clients that do not sign properly are detected.

use std::path::Path;

use axum::Router;
use axum::error_handling::HandleError;
use axum::http::StatusCode;
use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::{S3Auth, SecretKey};
use s3s::path::S3Path;
use s3s::service::S3ServiceBuilder;
use s3s::{HttpError, S3Result, s3_error};
use s3s_fs::FileSystem;

use crate::error::{Error, ErrorKind, Result};

/// Maximum file name length of common file systems.
const LONGEST_FILE_NAME: usize = 255;

/// Length of the metadata file name of an object without bucket and key, which are in the name as
/// base64; during a multipart upload, the upload id is added.
const AROUND_NAMES: usize = ".bucket-.object-.upload-.metadata.json".len() + 36;

/// Builds the S3 routes over `folder`, which is created if missing.
///
/// # Errors
/// [`ErrorKind::Io`] if the folder cannot be created or read.
pub fn router(folder: &Path, allow_anonymous: bool) -> Result<Router> {
    let unreadable = |cause: Box<dyn std::error::Error + Send + Sync>| {
        let problem = format!("{} cannot be read or written", folder.display());
        Error::new(ErrorKind::Io, problem).caused_by(cause)
    };
    std::fs::create_dir_all(folder).map_err(|e| unreadable(e.into()))?;
    let files = FileSystem::new(folder).map_err(|e| unreadable(format!("{e:?}").into()))?;
    let mut builder = S3ServiceBuilder::new(files);
    builder.set_auth(SameWord);
    builder.set_access(Policy { allow_anonymous });
    let service = HandleError::new(builder.build(), failed);
    Ok(Router::new().fallback_service(service))
}

/// S3 handles its own errors; only broken connections and responses arrive here.
async fn failed(error: HttpError) -> StatusCode {
    tracing::error!(?error, "the local S3 failed");
    StatusCode::INTERNAL_SERVER_ERROR
}

/// Accepts every access key, with the key itself as its secret.
struct SameWord;

#[async_trait::async_trait]
impl S3Auth for SameWord {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        Ok(SecretKey::from(access_key))
    }
}

/// Access policy: signed requests may do anything.
struct Policy {
    allow_anonymous: bool,
}

#[async_trait::async_trait]
impl S3Access for Policy {
    async fn check(&self, request: &mut S3AccessContext<'_>) -> S3Result<()> {
        if request.credentials().is_none() && !self.allow_anonymous {
            return Err(s3_error!(AccessDenied, "the request is not signed"));
        }
        match request.s3_path() {
            S3Path::Object { bucket, key } if !fits(bucket, key) => Err(s3_error!(
                KeyTooLongError,
                "the local S3 keeps bucket and key in the name of one file: use shorter ones"
            )),
            _ => Ok(()),
        }
    }
}

/// Whether the metadata file name of an object is short enough.
fn fits(bucket: &str, key: &str) -> bool {
    let base64 = |text: &str| (text.len() * 4).div_ceil(3);
    AROUND_NAMES + base64(bucket) + base64(key) <= LONGEST_FILE_NAME
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_bound_keys() {
        assert!(fits("dicom-input", &"k".repeat(120)));
        assert!(!fits("dicom-input", &"k".repeat(128)));
        assert!(!fits(&"b".repeat(63), &"k".repeat(80)));
    }
}
