//! AWS Signature Version 4, for requests that HealthImaging's SDK does not cover.

use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use aws_sigv4::http_request::{
    PayloadChecksumKind, SignableBody, SignableRequest, SigningSettings, sign,
};
use aws_sigv4::sign::v4;
use tokio::sync::Mutex;

use super::http::Head;
use crate::aws::Fault;
use crate::error::{Error, ErrorKind, chain};

/// The service's name in signatures.
const SERVICE: &str = "medical-imaging";

/// How long before their expiry credentials are refreshed.
const EARLY: Duration = Duration::from_secs(300);

/// Signs requests to HealthImaging.
#[derive(Debug)]
pub struct Signer {
    provider: Option<SharedCredentialsProvider>,
    region: String,
    /// Cached credentials that expire; fetching them costs a call.
    kept: Mutex<Option<Credentials>>,
}

impl Signer {
    /// Creates a signer with the credentials of `provider`.
    pub fn new(provider: Option<SharedCredentialsProvider>, region: String) -> Self {
        Self { provider, region, kept: Mutex::default() }
    }

    /// Adds the signature to a request whose body has the given SHA-256.
    pub(super) async fn sign(
        &self,
        operation: &'static str,
        head: &mut Head,
        sha256: &str,
    ) -> Result<(), Fault> {
        let credentials = self.credentials().await?;
        self.sign_at(operation, head, sha256, credentials, SystemTime::now())
    }

    fn sign_at(
        &self,
        operation: &'static str,
        head: &mut Head,
        sha256: &str,
        credentials: Credentials,
        now: SystemTime,
    ) -> Result<(), Fault> {
        let mut settings = SigningSettings::default();
        settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
        let identity = credentials.into();
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name(SERVICE)
            .time(now)
            .settings(settings)
            .build()
            .map_err(|e| Fault::from_build(operation, e))?
            .into();
        let headers = head.headers.iter().map(|(name, value)| (*name, value.as_str()));
        let body = SignableBody::Precomputed(sha256.to_owned());
        let request = SignableRequest::new(head.method, head.url.as_str(), headers, body)
            .map_err(|e| Fault::from_build(operation, e))?;
        let (instructions, _) =
            sign(request, &params).map_err(|e| Fault::from_build(operation, e))?.into_parts();
        let (signed, _) = instructions.into_parts();
        head.headers.extend(signed.iter().map(|h| (h.name(), h.value().to_owned())));
        Ok(())
    }

    async fn credentials(&self) -> Result<Credentials, Fault> {
        let missing = |cause: Option<String>| {
            let what = "no AWS credentials were found; give the process a role or credentials";
            let error = Error::new(ErrorKind::Credentials, what);
            match cause {
                // Their source may be temporarily unavailable.
                Some(cause) => Fault::passing(error.caused_by(cause)),
                None => Fault::last(error),
            }
        };
        let provider = self.provider.as_ref().ok_or_else(|| missing(None))?;
        let mut kept = self.kept.lock().await;
        if let Some(credentials) = kept.as_ref().filter(|kept| lasts(kept, SystemTime::now())) {
            return Ok(credentials.clone());
        }
        let credentials =
            provider.provide_credentials().await.map_err(|e| missing(Some(chain(&e))))?;
        *kept = Some(credentials.clone());
        Ok(credentials)
    }
}

/// Whether credentials expire, and not soon. Credentials without expiry may be replaced at any time
/// and are cheap to read again.
fn lasts(credentials: &Credentials, now: SystemTime) -> bool {
    credentials.expiry().is_some_and(|expiry| expiry > now + EARLY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_cover_host_type_and_body() {
        let signer = Signer::new(None, "eu-west-1".to_owned());
        let credentials =
            Credentials::new("AKIDEXAMPLE", "secret", Some("token".to_owned()), None, "test");
        let signed = |url: &str, sha256: &str| {
            let mut head = Head {
                method: "POST",
                url: url.to_owned(),
                headers: vec![("content-type", "application/dicom".to_owned())],
            };
            let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
            signer
                .sign_at("StoreDICOMStudy", &mut head, sha256, credentials.clone(), now)
                .unwrap_or_else(|fault| panic!("{}", fault.error));
            head.headers
        };
        let digest = "0".repeat(64);
        let url = "https://dicom-medical-imaging.eu-west-1.amazonaws.com/datastore/d/studies/1.2";
        let headers = signed(url, &digest);
        let of = |name: &str| headers.iter().find(|(n, _)| *n == name).map(|(_, v)| v.as_str());
        let authorization = of("authorization").unwrap();
        assert!(
            authorization.contains("/20270115/eu-west-1/medical-imaging/aws4_request"),
            "{authorization}"
        );
        assert!(
            authorization
                .contains("content-type;host;x-amz-content-sha256;x-amz-date;x-amz-security-token")
        );
        assert_eq!(of("x-amz-content-sha256"), Some(digest.as_str()));
        assert_eq!(of("x-amz-security-token"), Some("token"));
        let other = signed(url, &"1".repeat(64));
        assert_ne!(
            other.iter().find(|(n, _)| *n == "authorization"),
            Some(&("authorization", authorization.to_owned()))
        );
    }

    #[test]
    fn credentials_are_kept_while_they_last() {
        let now = SystemTime::now();
        let until = |expiry| Credentials::new("a", "b", None, expiry, "test");
        assert!(lasts(&until(Some(now + Duration::from_secs(3600))), now));
        assert!(!lasts(&until(Some(now + Duration::from_secs(60))), now));
        assert!(!lasts(&until(None), now));
    }
}
