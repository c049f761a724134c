//! Clients of AWS services, built from the settings of a command.

use aws_config::SdkConfig;

use crate::archive::ServiceUrl;
use crate::aws::Rate;
use crate::config::{self, EndpointUrl, StoreSettings};
use crate::error::{Error, ErrorKind, Result};
use crate::sink::dicomweb::{DicomWeb, DicomWebSettings, Signer};
use crate::source::ahi::{AhiClient, AhiSettings};
use crate::source::aws;

/// Builds a client of AWS HealthImaging alone.
///
/// # Errors
/// Propagates the errors of [`aws::sdk_config`].
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

/// Returns the settings of AWS clients.
pub fn settings(settings: &config::AwsSettings) -> aws::AwsSettings {
    let url = |endpoint: &Option<EndpointUrl>| endpoint.as_ref().map(|e| e.as_str().to_owned());
    aws::AwsSettings {
        region: settings.region.clone(),
        ahi_endpoint: url(&settings.ahi.endpoint),
        s3_endpoint: url(&settings.s3.endpoint),
        s3_path_style: settings.s3.path_style,
        ..aws::AwsSettings::default()
    }
}

/// Returns the limits of a HealthImaging client.
pub fn ahi_settings(settings: &config::AhiSettings) -> AhiSettings {
    let per_second = u32::try_from(settings.frames_per_second).unwrap_or(u32::MAX);
    AhiSettings {
        max_in_flight: settings.frames_in_flight,
        // The burst of the service is two seconds' worth.
        frame_rate: Rate { per_second, burst: per_second.saturating_mul(2) },
        allow_non_primary: settings.allow_non_primary,
        ..AhiSettings::default()
    }
}

/// Builds a client of archives.
///
/// # Errors
/// [`ErrorKind::Configuration`] if the region cannot be part of a host name.
pub fn archives(
    settings: &StoreSettings,
    clients: &aws::AwsSettings,
    sdk: &SdkConfig,
    ahi: AhiClient,
) -> Result<DicomWeb> {
    let region = sdk.region().map(|region| region.to_string()).unwrap_or_default();
    if let Some((origin, _)) = settings.credentials.as_ref().filter(|(to, _)| to.is_in_the_clear())
    {
        tracing::warn!(origin = origin.origin(), "credentials are sent there without TLS");
    }
    Ok(DicomWeb::new(
        ahi,
        DicomWebSettings {
            healthimaging: healthimaging_dicomweb(settings, clients, &region)?,
            signer: Signer::new(sdk.credentials_provider(), region),
            credentials: settings.credentials.clone(),
            timeout: settings.timeout,
            connect_timeout: clients.connect_timeout,
        },
    ))
}

/// Returns HealthImaging's DICOMweb endpoint: the one in the settings, else a custom HealthImaging
/// endpoint, which also serves DICOMweb, else that of the region.
fn healthimaging_dicomweb(
    settings: &StoreSettings,
    clients: &aws::AwsSettings,
    region: &str,
) -> Result<ServiceUrl> {
    if let Some(url) = &settings.ahi_endpoint {
        return Ok(url.clone());
    }
    let own = clients.ahi_endpoint.as_deref().filter(|url| !aws::is_service_name(url));
    let url = match own {
        Some(url) => url.to_owned(),
        None => format!("https://dicom-medical-imaging.{region}.amazonaws.com"),
    };
    ServiceUrl::parse(&url).ok_or_else(|| {
        let what =
            "the endpoint of HealthImaging's DICOMweb is no URL; set AHI_DICOMWEB_ENDPOINT_URL";
        Error::new(ErrorKind::Configuration, what)
    })
}
