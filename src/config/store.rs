//! Where DICOM results are stored, and the credentials for archives.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::parse::seconds;
use super::{AccessSettings, EndpointUrl, Secret, SecretSource, wrong};
use crate::archive::{Archive, ServiceUrl, is_datastore_id};
use crate::error::Result;

/// Flags about storing results in archives of DICOM objects.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Archives")]
pub struct StoreArgs {
    /// Where DICOM results are stored when a request does not say: `input` (the data store that the input is
    /// in), the ID of a data store, or the URL of a DICOMweb service [default: nowhere]
    #[arg(long, env = "STORE", value_name = "WHERE")]
    pub store: Option<String>,
    /// Endpoint of AWS HealthImaging's DICOMweb [default: AHI_ENDPOINT_URL where that is one's own, else the
    /// region's]
    #[arg(long, env = "AHI_DICOMWEB_ENDPOINT_URL", value_name = "URL", hide_env_values = true)]
    pub ahi_dicomweb_endpoint_url: Option<EndpointUrl>,
    /// Time in which an archive has to take more bytes, or to answer
    #[arg(long, env = "STORE_TIMEOUT", default_value = "30", value_name = "SECONDS",
          value_parser = seconds)]
    pub store_timeout: Duration,
    /// Bearer token for DICOMweb services
    #[arg(long, env = "DICOMWEB_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    pub dicomweb_token: Option<Secret>,
    /// File that holds the token; it is read for every request
    #[arg(long, env = "DICOMWEB_TOKEN_FILE", value_name = "FILE")]
    pub dicomweb_token_file: Option<PathBuf>,
    /// User name for DICOMweb services, with a password
    #[arg(long, env = "DICOMWEB_USER", value_name = "NAME")]
    pub dicomweb_user: Option<String>,
    /// Password of DICOMWEB_USER
    #[arg(long, env = "DICOMWEB_PASSWORD", value_name = "PASSWORD", hide_env_values = true)]
    pub dicomweb_password: Option<Secret>,
    /// File that holds the password; it is read for every request
    #[arg(long, env = "DICOMWEB_PASSWORD_FILE", value_name = "FILE")]
    pub dicomweb_password_file: Option<PathBuf>,
    /// The one origin, https://HOST[:PORT], that token or password are sent to [default: that of STORE]
    #[arg(long, env = "DICOMWEB_CREDENTIALS_ORIGIN", value_name = "URL")]
    pub dicomweb_credentials_origin: Option<String>,
}

/// Validated settings for storing results in archives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreSettings {
    /// Where results are stored if a request does not specify it.
    pub default: Option<Archive>,
    /// DICOMweb endpoint of AWS HealthImaging, if set.
    pub ahi_endpoint: Option<ServiceUrl>,
    /// Time limit for an archive to make progress.
    pub timeout: Duration,
    /// Credentials for services, and the origin they may be sent to.
    pub credentials: Option<(ServiceUrl, Credentials)>,
}

/// Credentials for a DICOMweb service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credentials {
    /// A bearer token (RFC 6750).
    Bearer(SecretSource),
    /// A user name and password (RFC 7617).
    Basic(String, SecretSource),
}

impl StoreArgs {
    /// Validates the flags, their combinations, and what they name against `access`.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](crate::error::ErrorKind::Configuration), naming the flag.
    pub fn settings(self, access: &AccessSettings) -> Result<StoreSettings> {
        if self.store_timeout.is_zero() {
            return Err(wrong("--store-timeout", "must be more than 0 seconds"));
        }
        let default = self.store.as_deref().map(str::trim).filter(|store| !store.is_empty());
        let default = default.map(archive).transpose()?;
        if let Some(Archive::Datastore(id)) = &default
            && access.check_datastore(id).is_err()
        {
            return Err(wrong("--store", "is no data store that --ahi-allowed-datastores allows"));
        }
        let ahi_endpoint = self.ahi_dicomweb_endpoint_url.as_ref().map(|url| {
            ServiceUrl::parse(url.as_str()).ok_or_else(|| {
                wrong("--ahi-dicomweb-endpoint-url", "must be http(s)://HOST[:PORT][/PATH]")
            })
        });
        let ahi_endpoint = ahi_endpoint.transpose()?;
        let origin = match (&self.dicomweb_credentials_origin, &default) {
            (Some(url), _) => {
                let origin = ServiceUrl::parse(url).filter(|url| url.path().is_empty());
                Some(origin.ok_or_else(|| {
                    wrong("--dicomweb-credentials-origin", "must be http(s)://HOST[:PORT]")
                })?)
            }
            (None, Some(Archive::Service(url))) => Some(url.clone()),
            _ => None,
        };
        let names_an_origin = self.dicomweb_credentials_origin.is_some();
        let timeout = self.store_timeout;
        let credentials = match (self.credentials()?, origin) {
            (Some(credentials), Some(origin)) => Some((origin, credentials)),
            (Some(_), None) => {
                return Err(wrong(
                    "--dicomweb-credentials-origin",
                    "is missing: nothing says which service the token or the password is for",
                ));
            }
            (None, _) if names_an_origin => {
                return Err(wrong(
                    "--dicomweb-credentials-origin",
                    "is set, but there are no credentials to send",
                ));
            }
            (None, _) => None,
        };
        Ok(StoreSettings { default, ahi_endpoint, timeout, credentials })
    }

    fn credentials(self) -> Result<Option<Credentials>> {
        let token = secret("--dicomweb-token", self.dicomweb_token, self.dicomweb_token_file)?;
        let password =
            secret("--dicomweb-password", self.dicomweb_password, self.dicomweb_password_file)?;
        let user = self.dicomweb_user.filter(|user| !user.is_empty());
        match (token, user, password) {
            (None, None, None) => Ok(None),
            (Some(token), None, None) => Ok(Some(Credentials::Bearer(token))),
            (None, Some(user), Some(password)) => {
                if user.contains(':') || user.chars().any(char::is_control) {
                    return Err(wrong("--dicomweb-user", "must not hold colons"));
                }
                Ok(Some(Credentials::Basic(user, password)))
            }
            (Some(_), ..) => Err(wrong("--dicomweb-token", "must not stand beside a user name")),
            (None, Some(_), None) => Err(wrong("--dicomweb-user", "needs --dicomweb-password")),
            (None, None, Some(_)) => Err(wrong("--dicomweb-password", "needs --dicomweb-user")),
        }
    }
}

fn archive(text: &str) -> Result<Archive> {
    if text == "input" {
        return Ok(Archive::Input);
    }
    if is_datastore_id(text) {
        return Ok(Archive::Datastore(text.to_owned()));
    }
    let service = ServiceUrl::parse(text).map(Archive::Service);
    service.ok_or_else(|| {
        let problem = "must be `input`, the ID of a data store, or http(s)://HOST[:PORT][/PATH]";
        wrong("--store", problem)
    })
}

/// Returns whichever of the two is set. An empty variable counts as unset.
fn secret(
    flag: &str,
    value: Option<Secret>,
    file: Option<PathBuf>,
) -> Result<Option<SecretSource>> {
    let value = value.filter(|secret| !secret.reveal().is_empty());
    let file = file.filter(|file| !file.as_os_str().is_empty());
    match (value, file) {
        (Some(_), Some(_)) => Err(wrong(flag, "must not stand beside the flag of its file")),
        (Some(value), None) if value.reveal().chars().any(char::is_control) => {
            Err(wrong(flag, "holds control characters"))
        }
        (Some(value), None) => Ok(Some(SecretSource::Value(value))),
        (None, file) => Ok(file.map(SecretSource::File)),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::config::AccessArgs;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        store: StoreArgs,
    }

    fn parse(flags: &[&str]) -> Result<StoreSettings, String> {
        let words = std::iter::once("test").chain(flags.iter().copied());
        let command = Command::try_parse_from(words).map_err(|e| e.to_string())?;
        let access = AccessArgs {
            ahi_allowed_datastores: vec!["0123456789abcdef0123456789abcdef".to_owned()],
            ..AccessArgs::default()
        };
        command.store.settings(&access.settings().unwrap()).map_err(|e| e.to_string())
    }

    #[test]
    fn places_are_understood() {
        let default = |text: &str| parse(&["--store", text]).unwrap().default;
        assert_eq!(parse(&[]).unwrap().default, None);
        assert_eq!(default(""), None);
        assert_eq!(default("input"), Some(Archive::Input));
        let id = "0123456789abcdef0123456789abcdef";
        assert_eq!(default(id), Some(Archive::Datastore(id.to_owned())));
        let Some(Archive::Service(url)) = default("https://archive.example/dicom-web/") else {
            panic!("no service")
        };
        assert_eq!(url.to_string(), "https://archive.example/dicom-web");
    }

    #[test]
    fn credentials_have_one_origin() {
        let (origin, credentials) = parse(&[
            "--store=https://archive.example/dicom-web",
            "--dicomweb-user=ahi",
            "--dicomweb-password=hunter2",
        ])
        .unwrap()
        .credentials
        .unwrap();
        assert_eq!(origin.origin(), "https://archive.example");
        assert!(matches!(&credentials, Credentials::Basic(user, _) if user == "ahi"));
        assert!(!format!("{credentials:?}").contains("hunter2"));
        let (origin, _) = parse(&[
            "--store=input",
            "--dicomweb-token-file=/run/token",
            "--dicomweb-credentials-origin=https://other.example:8443",
        ])
        .unwrap()
        .credentials
        .unwrap();
        assert_eq!(origin.origin(), "https://other.example:8443");
    }

    #[test]
    fn contradictions_are_refused_by_name() {
        for (flags, named) in [
            (&["--store=somewhere"][..], "--store"),
            (&["--store=https://user:hunter2@host/"], "--store"),
            (&["--store=ffffffffffffffffffffffffffffffff"], "--ahi-allowed-datastores"),
            (&["--store-timeout=0"], "--store-timeout"),
            (&["--dicomweb-token=hunter2"], "--dicomweb-credentials-origin"),
            (&["--dicomweb-credentials-origin=https://h"], "--dicomweb-credentials-origin"),
            (
                &["--dicomweb-token=hunter2", "--dicomweb-credentials-origin=https://h/path"],
                "--dicomweb-credentials-origin",
            ),
            (&["--dicomweb-token=hunter2", "--dicomweb-token-file=/f"], "--dicomweb-token"),
            (&["--dicomweb-token=hunter2", "--dicomweb-user=u"], "--dicomweb-token"),
            (&["--dicomweb-token=hun\nter2", "--store=https://h"], "--dicomweb-token"),
            (&["--dicomweb-user=u"], "--dicomweb-password"),
            (&["--dicomweb-password=hunter2"], "--dicomweb-user"),
            (&["--dicomweb-user=u:v", "--dicomweb-password=hunter2"], "--dicomweb-user"),
            (&["--ahi-dicomweb-endpoint-url=host"], "--ahi-dicomweb-endpoint-url"),
        ] {
            let error = parse(flags).unwrap_err();
            assert!(error.contains(named), "{flags:?}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
