//! Amazon S3 beside the local HealthImaging: buckets are folders, objects are files in them.
//!
//! Requests are signed with any access key whose secret is the same word (`test` and `test`, `local`
//! and `local`): signatures are checked, so that a client that cannot sign is found out here.

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

/// Longest name of a file in the file systems in use.
const LONGEST_FILE_NAME: usize = 255;

/// What the name of a file beside an object consists of, other than bucket and key: the object's
/// attributes are kept under both, in base64, during a multipart upload together with its id.
const AROUND_NAMES: usize = ".bucket-.object-.upload-.metadata.json".len() + 36;

/// The routes of S3 over `folder`, which is made where it is not there.
///
/// # Errors
/// [`ErrorKind::Io`] where the folder cannot be made or read.
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

/// S3 answers its errors itself; what is left is a connection or an answer that broke.
async fn failed(error: HttpError) -> StatusCode {
    tracing::error!(?error, "the local S3 failed");
    StatusCode::INTERNAL_SERVER_ERROR
}

/// Every access key there is, with itself as its secret.
struct SameWord;

#[async_trait::async_trait]
impl S3Auth for SameWord {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        Ok(SecretKey::from(access_key))
    }
}

/// Who may do what: whoever signed, everything.
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

/// Whether an object's attributes can be kept beside it.
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
