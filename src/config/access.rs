//! Access control: allow-lists, bucket owners, encryption keys.

use clap::Args;

use super::wrong;
use crate::archive::{ServiceUrl, is_datastore_id};
use crate::error::{Error, ErrorKind, Result};

/// Flags that bound what a request may name. All is open where they are not set.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Access")]
pub struct AccessArgs {
    /// Data stores that requests may name, separated by commas [default: all]
    #[arg(long, env = "AHI_ALLOWED_DATASTORES", value_name = "ID", value_delimiter = ',')]
    pub ahi_allowed_datastores: Vec<String>,
    /// Buckets or prefixes (s3://BUCKET/PREFIX) that inputs may be in, separated by commas [default: all]
    #[arg(long, env = "S3_ALLOWED_INPUTS", value_name = "URI", value_delimiter = ',')]
    pub s3_allowed_inputs: Vec<String>,
    /// Buckets or prefixes (s3://BUCKET/PREFIX) that outputs may go to, separated by commas [default: all]
    #[arg(long, env = "S3_ALLOWED_OUTPUTS", value_name = "URI", value_delimiter = ',')]
    pub s3_allowed_outputs: Vec<String>,
    /// DICOMweb services that requests may have results stored in, by URL, with what is below it, separated
    /// by commas [default: none but that of STORE]
    #[arg(long, env = "DICOMWEB_ALLOWED", value_name = "URL", value_delimiter = ',')]
    pub dicomweb_allowed: Vec<String>,
    /// AWS account that buckets of inputs must belong to [default: any]
    #[arg(long, env = "S3_INPUT_BUCKET_OWNER", value_name = "ACCOUNT")]
    pub s3_input_bucket_owner: Option<String>,
    /// AWS account that buckets of outputs must belong to [default: any]
    #[arg(long, env = "S3_OUTPUT_BUCKET_OWNER", value_name = "ACCOUNT")]
    pub s3_output_bucket_owner: Option<String>,
    /// KMS key, by id, alias or ARN, that outputs in S3 are encrypted with [default: as the bucket says]
    #[arg(long, env = "S3_OUTPUT_KMS_KEY", value_name = "KEY")]
    pub s3_output_kms_key: Option<String>,
}

/// The validated access settings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AccessSettings {
    /// Data stores that requests may name.
    pub datastores: Allowed<String>,
    /// Locations that inputs may come from.
    pub inputs: Allowed<Place>,
    /// Locations that outputs may go to.
    pub outputs: Allowed<Place>,
    /// DICOMweb services that results may be stored in. Unlike the other lists, an empty one allows
    /// nothing: a URL may lead to anything this machine can reach.
    pub services: Vec<ServiceUrl>,
    /// Account that must own the buckets of inputs.
    pub input_owner: Option<String>,
    /// Account that must own the buckets of outputs.
    pub output_owner: Option<String>,
    /// KMS key that encrypts outputs.
    pub output_kms_key: Option<String>,
}

/// An allow-list; an empty one allows everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allowed<T>(Vec<T>);

impl<T> Default for Allowed<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Allowed<T> {
    /// Whether everything is allowed.
    pub fn is_open(&self) -> bool {
        self.0.is_empty()
    }
}

/// A bucket, or a prefix in one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    bucket: String,
    /// Without trailing slashes; empty for the whole bucket.
    prefix: String,
}

impl Place {
    fn parse(uri: &str) -> Option<Self> {
        let (bucket, prefix) = split(uri)?;
        let prefix = prefix.trim_end_matches('/');
        (!climbs(prefix) && !prefix.starts_with('/'))
            .then(|| Self { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
    }

    /// Whether a key is the prefix itself or below it, as files are below a folder: `a` contains
    /// `a` and `a/b`, but not `ab`.
    fn holds(&self, bucket: &str, key: &str) -> bool {
        let below = || {
            let rest = key.strip_prefix(&self.prefix)?;
            Some(rest.is_empty() || rest.starts_with('/'))
        };
        self.bucket == bucket && (self.prefix.is_empty() || below().unwrap_or(false))
    }
}

/// Splits `s3://BUCKET/KEY` into bucket and key.
fn split(uri: &str) -> Option<(&str, &str)> {
    if !crate::request::is_s3_uri(uri) {
        return None;
    }
    let rest = uri.strip_prefix("s3://")?;
    Some(rest.split_once('/').unwrap_or((rest, "")))
}

/// Whether a key has path segments by which an S3 implementation based on folders would climb.
fn climbs(key: &str) -> bool {
    key.split('/').any(|segment| matches!(segment, "." | ".."))
}

impl Allowed<Place> {
    /// Whether the location of a URI is allowed.
    pub fn allows(&self, uri: &str) -> bool {
        self.is_open()
            || split(uri).is_some_and(|(bucket, key)| {
                !climbs(key) && self.0.iter().any(|place| place.holds(bucket, key))
            })
    }
}

impl Allowed<String> {
    /// Returns the listed identifiers; empty if everything is allowed.
    pub fn listed(&self) -> &[String] {
        &self.0
    }

    /// Whether an identifier is allowed.
    pub fn allows(&self, id: &str) -> bool {
        self.is_open() || self.0.iter().any(|allowed| allowed == id)
    }
}

impl AccessSettings {
    /// Rejects a data store that is not allowed.
    ///
    /// # Errors
    /// [`ErrorKind::AccessDenied`], naming the field and the setting.
    pub fn check_datastore(&self, id: &str) -> Result<()> {
        let allowed = self.datastores.allows(id);
        checked(allowed, "datastoreId", "AHI_ALLOWED_DATASTORES")
    }

    /// Rejects an input location that is not allowed.
    ///
    /// # Errors
    /// See [`check_datastore`](Self::check_datastore).
    pub fn check_input(&self, uri: &str) -> Result<()> {
        checked(self.inputs.allows(uri), "s3Uri", "S3_ALLOWED_INPUTS")
    }

    /// Rejects an output location that is not allowed. Folders can be named by settings only, so
    /// they are not checked.
    ///
    /// # Errors
    /// See [`check_datastore`](Self::check_datastore).
    pub fn check_output(&self, uri: &str) -> Result<()> {
        let allowed = !uri.starts_with("s3://") || self.outputs.allows(uri);
        checked(allowed, "outputS3Uri", "S3_ALLOWED_OUTPUTS")
    }

    /// Rejects a DICOMweb service that is not allowed.
    ///
    /// # Errors
    /// See [`check_datastore`](Self::check_datastore).
    pub fn check_service(&self, url: &ServiceUrl) -> Result<()> {
        let allowed = self.services.iter().any(|base| url.is_within(base));
        checked(allowed, "store", "DICOMWEB_ALLOWED")
    }

    /// Returns what is open to every request, for the start-up log.
    pub fn open(&self) -> Vec<&'static str> {
        [
            (self.datastores.is_open(), "data stores (AHI_ALLOWED_DATASTORES)"),
            (self.inputs.is_open(), "inputs in S3 (S3_ALLOWED_INPUTS)"),
            (self.outputs.is_open(), "outputs to S3 (S3_ALLOWED_OUTPUTS)"),
        ]
        .into_iter()
        .filter_map(|(open, what)| open.then_some(what))
        .collect()
    }
}

fn checked(allowed: bool, field: &str, setting: &str) -> Result<()> {
    if allowed {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::AccessDenied,
        format!("{field} names a place that this server's setting {setting} does not allow"),
    )
    .with("field", field)
    .with("setting", setting))
}

impl AccessArgs {
    /// Validates the flags.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`], naming the flag.
    pub fn settings(self) -> Result<AccessSettings> {
        let datastores = listed(self.ahi_allowed_datastores);
        if !datastores.iter().all(|id| is_datastore_id(id)) {
            return Err(wrong("--ahi-allowed-datastores", "has one that is not 32 of 0-9 and a-z"));
        }
        if let Some(key) = &self.s3_output_kms_key
            && !((1..=2048).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_graphic()))
        {
            return Err(wrong("--s3-output-kms-key", "is no id, alias or ARN of a key"));
        }
        Ok(AccessSettings {
            datastores: Allowed(datastores),
            inputs: places(self.s3_allowed_inputs, "--s3-allowed-inputs")?,
            outputs: places(self.s3_allowed_outputs, "--s3-allowed-outputs")?,
            services: services(self.dicomweb_allowed)?,
            input_owner: account(self.s3_input_bucket_owner, "--s3-input-bucket-owner")?,
            output_owner: account(self.s3_output_bucket_owner, "--s3-output-bucket-owner")?,
            output_kms_key: self.s3_output_kms_key,
        })
    }
}

/// Trims the elements of a list and drops empty ones, which come from an extra comma or an empty
/// variable.
fn listed(values: Vec<String>) -> Vec<String> {
    values.iter().map(|v| v.trim().to_owned()).filter(|v| !v.is_empty()).collect()
}

fn places(uris: Vec<String>, flag: &str) -> Result<Allowed<Place>> {
    let place = |uri: String| {
        Place::parse(&uri)
            .ok_or_else(|| wrong(flag, "has one that is not s3://BUCKET or s3://BUCKET/PREFIX"))
    };
    listed(uris).into_iter().map(place).collect::<Result<_>>().map(Allowed)
}

fn services(urls: Vec<String>) -> Result<Vec<ServiceUrl>> {
    let service = |url: String| {
        ServiceUrl::parse(&url).ok_or_else(|| {
            wrong("--dicomweb-allowed", "has one that is not http(s)://HOST[:PORT][/PATH]")
        })
    };
    listed(urls).into_iter().map(service).collect()
}

fn account(id: Option<String>, flag: &str) -> Result<Option<String>> {
    match &id {
        Some(id) if id.len() != 12 || !id.bytes().all(|b| b.is_ascii_digit()) => {
            Err(wrong(flag, "is not an AWS account, which is 12 digits"))
        }
        _ => Ok(id),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inputs(list: &[&str]) -> AccessSettings {
        let s3_allowed_inputs = list.iter().map(|&uri| uri.to_owned()).collect();
        AccessArgs { s3_allowed_inputs, ..AccessArgs::default() }.settings().unwrap()
    }

    #[test]
    fn prefixes_are_folders() {
        let settings = inputs(&["s3://one-bucket", "s3://two-bucket/a/b/"]);
        for uri in [
            "s3://one-bucket",
            "s3://one-bucket/x/y",
            "s3://two-bucket/a/b",
            "s3://two-bucket/a/b/",
            "s3://two-bucket/a/b/c.dcm",
        ] {
            assert!(settings.check_input(uri).is_ok(), "{uri}");
        }
        for uri in [
            "s3://one-bucket2/x",
            "s3://one-bucket/x/../y",
            "s3://two-bucket",
            "s3://two-bucket/a",
            "s3://two-bucket/a/bc",
            "s3://two-bucket/a/b/../c",
            "s3://two-bucket/a/b/./c",
            "s3://two-bucket//a/b/c",
            "s3://other-bucket/a/b",
            "file:///a/b",
        ] {
            let error = settings.check_input(uri).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::AccessDenied, "{uri}");
            assert!(error.message().contains("S3_ALLOWED_INPUTS"), "{error}");
            assert_eq!(error.details()["field"], "s3Uri");
        }
    }

    #[test]
    fn all_is_open_where_nothing_is_set_and_it_is_said() {
        let settings = AccessSettings::default();
        assert!(settings.check_input("s3://any-bucket/a/../b").is_ok());
        assert!(
            settings.check_datastore("x").is_ok() && settings.check_output("s3://b-b-b").is_ok()
        );
        assert_eq!(settings.open().len(), 3);
        assert_eq!(inputs(&["s3://one-bucket"]).open().len(), 2);
        assert!(inputs(&["", " "]).inputs.is_open(), "a variable set to nothing sets nothing");
    }

    #[test]
    fn services_are_closed_where_nothing_is_set() {
        let url = ServiceUrl::parse("https://archive.example/dicom-web/x").unwrap();
        let error = AccessSettings::default().check_service(&url).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AccessDenied);
        assert!(error.message().contains("DICOMWEB_ALLOWED"), "{error}");
        let dicomweb_allowed = vec!["https://archive.example/dicom-web".to_owned()];
        let args = AccessArgs { dicomweb_allowed, ..AccessArgs::default() };
        assert!(args.settings().unwrap().check_service(&url).is_ok());
    }

    #[test]
    fn settings_are_checked() {
        let args = AccessArgs::default();
        for (args, flag) in [
            (AccessArgs { ahi_allowed_datastores: vec!["x".into()], ..args.clone() }, "datastores"),
            (AccessArgs { s3_allowed_inputs: vec!["bucket".into()], ..args.clone() }, "inputs"),
            (
                AccessArgs { s3_allowed_outputs: vec!["s3://a-b/../c".into()], ..args.clone() },
                "outputs",
            ),
            (
                AccessArgs { s3_input_bucket_owner: Some("12".into()), ..args.clone() },
                "input-bucket",
            ),
            (
                AccessArgs { s3_output_bucket_owner: Some("x".into()), ..args.clone() },
                "output-bucket",
            ),
            (
                AccessArgs { dicomweb_allowed: vec!["http://a@b".into()], ..args.clone() },
                "dicomweb-allowed",
            ),
            (AccessArgs { s3_output_kms_key: Some("a b".into()), ..args.clone() }, "kms"),
        ] {
            let error = args.settings().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Configuration);
            assert!(error.message().contains(flag), "{error}");
        }
    }
}
