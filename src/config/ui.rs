//! Settings of the web page.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args};

use super::wrong;
use crate::error::Result;

/// Prefix of the environment variables that SageMaker sets in its containers.
const OF_SAGEMAKER: &str = "SAGEMAKER_";

/// Flags of the page.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Page")]
pub struct UiArgs {
    /// Serve a page at /ui/ to choose image sets, run models and look at results; never on SageMaker
    #[arg(long, env = "UI", value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1,
          require_equals = true, default_value = "false", default_missing_value = "true",
          value_parser = BoolishValueParser::new())]
    pub ui: bool,
    /// Serve the page on another address than a loopback one, too. It has no accounts: whoever reaches it
    /// may do what this server's role may
    #[arg(long, env = "UI_ALLOW_REMOTE", value_name = "BOOL", action = ArgAction::Set,
          num_args = 0..=1, require_equals = true, default_value = "false",
          default_missing_value = "true", value_parser = BoolishValueParser::new())]
    pub ui_allow_remote: bool,
    /// Names by which browsers may call this server, separated by commas; localhost and loopback addresses
    /// always may be used, and with --ui-allow-remote any address
    #[arg(long, env = "UI_HOSTS", value_name = "NAME", value_delimiter = ',')]
    pub ui_hosts: Vec<String>,
    /// Folder of the viewer, which scripts/get-viewer.sh gets [default: ui beside the executable, or
    /// /opt/ahi-inference/ui]
    #[arg(long, env = "UI_ASSETS", value_name = "DIR")]
    pub ui_assets: Option<PathBuf>,
}

/// Settings of the web page, if enabled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UiSettings {
    /// Whether it may be requested by any IP address.
    pub allow_remote: bool,
    /// Host names it may be requested by, in lower case.
    pub hosts: Vec<String>,
    /// Folder of the viewer.
    pub assets: Option<PathBuf>,
}

impl UiArgs {
    /// Validates the flags for a server that listens on `host`; `sign` indicates that SageMaker
    /// started it.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](crate::error::ErrorKind::Configuration), naming the flag.
    pub(super) fn settings(self, host: IpAddr, sign: Option<String>) -> Result<Option<UiSettings>> {
        if !self.ui {
            return Ok(None);
        }
        if let Some(sign) = sign {
            return Err(wrong(
                "--ui",
                format!(
                    "there is no page on SageMaker, which {sign} indicates; remove one of the two"
                ),
            ));
        }
        if !host.is_loopback() && !self.ui_allow_remote {
            return Err(wrong(
                "--ui",
                format!(
                    "the page has no accounts, and {host} may be reached from other machines; set \
                     --host 127.0.0.1, or --ui-allow-remote where others may use it"
                ),
            ));
        }
        let hosts = self.ui_hosts.iter().map(|name| name.trim().to_ascii_lowercase());
        let hosts: Vec<String> = hosts.filter(|name| !name.is_empty()).collect();
        if !hosts.iter().all(|name| is_host_name(name)) {
            return Err(wrong("--ui-hosts", "has one that is no name of a host, without a port"));
        }
        Ok(Some(UiSettings { allow_remote: self.ui_allow_remote, hosts, assets: self.ui_assets }))
    }
}

/// Returns the flag or environment variable that indicates SageMaker, if any.
pub(super) fn platform(batch: bool, multi_model: bool) -> Option<String> {
    let variables = std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned());
    sign(batch, multi_model, variables)
}

fn sign(
    batch: bool,
    multi_model: bool,
    mut variables: impl Iterator<Item = String>,
) -> Option<String> {
    if batch || multi_model {
        return Some(if batch { "--batch" } else { "--multi-model" }.to_owned());
    }
    variables.find(|name| name.starts_with(OF_SAGEMAKER))
}

fn is_host_name(name: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    name.len() <= 253 && name.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOPBACK: &str = "127.0.0.1";

    fn settings(args: UiArgs, host: &str, sign: Option<&str>) -> Result<Option<UiSettings>> {
        args.settings(host.parse().unwrap(), sign.map(str::to_owned))
    }

    fn on() -> UiArgs {
        UiArgs { ui: true, ..UiArgs::default() }
    }

    #[test]
    fn without_the_switch_nothing_is_asked_of_the_rest() {
        assert_eq!(settings(UiArgs::default(), "0.0.0.0", Some("--batch")).unwrap(), None);
    }

    #[test]
    fn other_addresses_than_loopback_need_a_word() {
        for host in [LOOPBACK, "127.9.9.9", "::1"] {
            assert!(settings(on(), host, None).unwrap().is_some(), "{host}");
        }
        for host in ["0.0.0.0", "::", "192.168.1.2"] {
            let error = settings(on(), host, None).unwrap_err();
            assert!(error.message().contains("--ui-allow-remote"), "{error}");
            let allowed = UiArgs { ui_allow_remote: true, ..on() };
            assert!(settings(allowed, host, None).unwrap().unwrap().allow_remote);
        }
    }

    #[test]
    fn sagemaker_has_no_page() {
        let sign = |batch, multi_model, variables: &[&str]| {
            super::sign(batch, multi_model, variables.iter().map(|&v| v.to_owned()))
        };
        assert_eq!(sign(false, false, &["PATH", "AWS_REGION", "UI"]), None);
        assert_eq!(sign(true, false, &[]).as_deref(), Some("--batch"));
        assert_eq!(sign(false, true, &[]).as_deref(), Some("--multi-model"));
        let variable = sign(false, false, &["PATH", "SAGEMAKER_BIND_TO_PORT"]);
        assert_eq!(variable.as_deref(), Some("SAGEMAKER_BIND_TO_PORT"));
        let error = settings(on(), LOOPBACK, variable.as_deref()).unwrap_err();
        assert!(error.message().contains("SAGEMAKER_BIND_TO_PORT"), "{error}");
    }

    #[test]
    fn hosts_are_names_without_ports() {
        let named = |names: &[&str]| {
            let ui_hosts = names.iter().map(|&n| n.to_owned()).collect();
            settings(UiArgs { ui_hosts, ..on() }, LOOPBACK, None)
        };
        let hosts = named(&["Reading-Room.example", " ", "server"]).unwrap().unwrap().hosts;
        assert_eq!(hosts, ["reading-room.example", "server"]);
        for bad in ["a:80", "http://a", "a..b", "a/b", "*"] {
            assert!(named(&[bad]).unwrap_err().message().contains("--ui-hosts"), "{bad}");
        }
    }
}
