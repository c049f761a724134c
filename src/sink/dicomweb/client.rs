//! The process-wide client of archives.

use std::sync::Arc;
use std::time::Duration;

use super::credentials;
use super::http::{Head, Http};
use super::outcome::Instance;
use super::sign::Signer;
use super::stats::{DicomWebOperation, DicomWebStats};
use super::target::Target;
use crate::archive::ServiceUrl;
use crate::aws::{Allowance, Call, Fault, Hedge, Patience};
use crate::config::Credentials;
use crate::source::ahi::AhiClient;

/// Settings for reaching archives.
#[derive(Debug)]
pub struct DicomWebSettings {
    /// HealthImaging's DICOMweb endpoint, with `datastore/ID/studies` below it.
    pub healthimaging: ServiceUrl,
    /// Signs requests to HealthImaging.
    pub signer: Signer,
    /// Credentials for another archive, with the origin they are for.
    pub credentials: Option<(ServiceUrl, Credentials)>,
    /// Timeout for an archive to accept more bytes or to respond.
    pub timeout: Duration,
    /// Timeout for establishing a connection.
    pub connect_timeout: Duration,
}

/// A client of archives. Clones share connections and counters.
#[derive(Debug, Clone)]
pub struct DicomWeb {
    pub(super) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub http: Http,
    pub ahi: AhiClient,
    pub settings: DicomWebSettings,
    pub patience: Patience,
    pub stats: DicomWebStats,
}

impl DicomWeb {
    /// Creates a client; `ahi` is the client of HealthImaging's own API.
    pub fn new(ahi: AhiClient, settings: DicomWebSettings) -> Self {
        let patience = Patience {
            silence: settings.timeout,
            attempt_timeout: settings.timeout.saturating_mul(4),
            total: settings.timeout.max(Patience::default().total),
            ..Patience::default()
        };
        let http = Http::new(settings.connect_timeout);
        let stats = DicomWebStats::default();
        Self { shared: Arc::new(Shared { http, ahi, settings, patience, stats }) }
    }

    /// Returns the counters of this client.
    pub fn stats(&self) -> &DicomWebStats {
        &self.shared.stats
    }

    /// Returns the URL below which an archive has its studies.
    pub(super) fn base(&self, target: &Target) -> String {
        match target {
            Target::Datastore(id) => {
                format!("{}/datastore/{id}", self.shared.settings.healthimaging)
            }
            Target::Service(url) => url.to_string(),
        }
    }

    /// Returns the URL to retrieve an instance from (PS3.18 section 10.4).
    pub fn url_of(&self, target: &Target, instance: &Instance) -> String {
        let Instance { study_instance_uid, series_instance_uid, sop_instance_uid, .. } = instance;
        format!(
            "{}/studies/{study_instance_uid}/series/{series_instance_uid}/instances/{sop_instance_uid}",
            self.base(target)
        )
    }

    /// Adds the credentials if they are for that service.
    pub(super) async fn authorize(&self, url: &ServiceUrl, head: &mut Head) -> Result<(), Fault> {
        if let Some((origin, credentials)) = &self.shared.settings.credentials
            && url.same_origin(origin)
        {
            let value = credentials::header(credentials).await.map_err(Fault::last)?;
            head.headers.push(("authorization", value));
        }
        Ok(())
    }

    /// Returns the call parameters of `operation`. Late calls are not hedged: two concurrent stores
    /// of one instance may create it twice.
    pub(super) fn call<'a>(
        &'a self,
        operation: DicomWebOperation,
        patience: &'a Patience,
        allowance: &'a Allowance,
    ) -> Call<'a> {
        Call {
            operation: operation.name(),
            patience,
            limiter: None,
            counters: self.shared.stats.counters(operation),
            allowance,
            hedge: Hedge::After(Duration::MAX),
        }
    }
}
