//! Writes outputs as objects in Amazon S3.

use std::time::Duration;

use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ChecksumAlgorithm, ServerSideEncryption};

use crate::aws::{Allowance, Call, Fault, Hedge, Patience, S3, S3Operation};
use crate::config::AccessSettings;
use crate::error::Result;
use crate::request::Artifact;

/// Lowest throughput of a usable connection in bytes per second.
const SLOWEST: usize = 1 << 20;

/// An object sent but not acknowledged for this long is late.
const LATE: Duration = Duration::from_secs(2);

/// Puts objects into S3.
#[derive(Debug, Clone)]
pub(super) struct Objects {
    s3: S3,
    /// Account that buckets must belong to.
    owner: Option<String>,
    /// KMS key to encrypt objects with; if absent, the bucket's default applies.
    kms_key: Option<String>,
}

impl Objects {
    /// Creates the writer according to `settings`.
    pub fn new(s3: S3, settings: &AccessSettings) -> Self {
        let (owner, kms_key) = (settings.output_owner.clone(), settings.output_kms_key.clone());
        Self { s3, owner, kms_key }
    }

    /// Puts an object. A late request is hedged with a second one: the object is in memory, and
    /// putting the same bytes twice changes nothing.
    ///
    /// # Errors
    /// The service's errors, naming the bucket but not the key, because keys often contain patient
    /// names.
    pub async fn put(
        &self,
        artifact: &Artifact,
        bucket: &str,
        key: &str,
        allowance: &Allowance,
    ) -> Result<()> {
        let operation = S3Operation::PutObject;
        let sending = |per_second: usize| {
            Duration::from_secs_f64(artifact.bytes.len() as f64 / per_second as f64)
        };
        let usual = self.s3.patience();
        let patience = Patience {
            silence: usual.silence + sending(SLOWEST),
            attempt_timeout: usual.attempt_timeout + sending(SLOWEST),
            ..usual.clone()
        };
        let late = Hedge::After(LATE + sending(4 * SLOWEST));
        let call = Call { patience: &patience, ..self.s3.call(operation, allowance, late) };
        call.run(async |_| {
            self.s3
                .sdk()
                .put_object()
                .bucket(bucket)
                .key(key)
                .content_type(artifact.media_type)
                .checksum_algorithm(ChecksumAlgorithm::Sha256)
                .set_expected_bucket_owner(self.owner.clone())
                .set_server_side_encryption(
                    self.kms_key.as_ref().map(|_| ServerSideEncryption::AwsKms),
                )
                .set_ssekms_key_id(self.kms_key.clone())
                .body(ByteStream::from(artifact.bytes.clone()))
                .send()
                .await
                .map_err(|e| Fault::from_sdk(operation.name(), &e))
        })
        .await
        .map(|_| ())
        .map_err(|e| e.with("bucket", bucket).with("field", "outputS3Uri"))
    }
}
