//! Clients of AWS services by the settings of a command.

use crate::aws::Rate;
use crate::config;
use crate::error::Result;
use crate::source::ahi::{AhiClient, AhiSettings};
use crate::source::aws;

/// A client of AWS HealthImaging alone.
///
/// # Errors
/// Those of [`aws::sdk_config`].
pub async fn healthimaging(
    region: Option<String>,
    settings: &config::AhiSettings,
) -> Result<AhiClient> {
    let clients = aws::AwsSettings {
        region,
        ahi_endpoint: settings.endpoint.as_ref().map(|url| url.as_str().to_owned()),
        ..aws::AwsSettings::default()
    };
    let config = aws::sdk_config(&clients).await?;
    Ok(AhiClient::new(aws::ahi_client(&config, &clients), ahi_settings(settings)))
}

/// The bounds of a client.
pub fn ahi_settings(settings: &config::AhiSettings) -> AhiSettings {
    let per_second = u32::try_from(settings.frames_per_second).unwrap_or(u32::MAX);
    AhiSettings {
        max_in_flight: settings.frames_in_flight,
        // The service's burst is two seconds' worth.
        frame_rate: Rate { per_second, burst: per_second.saturating_mul(2) },
        allow_non_primary: settings.allow_non_primary,
        ..AhiSettings::default()
    }
}
