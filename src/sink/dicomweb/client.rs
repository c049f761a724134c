//! The one client of archives that a process has.

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

/// What an archive is reached by.
#[derive(Debug)]
pub struct DicomWebSettings {
    /// Where HealthImaging answers DICOMweb: below it are `datastore/ID/studies`.
    pub healthimaging: ServiceUrl,
    /// Signs what is sent there.
    pub signer: Signer,
    /// What other archives are told of who asks, and the origin that it is for.
    pub credentials: Option<(ServiceUrl, Credentials)>,
    /// Time in which an archive has to take more bytes or to answer.
    pub timeout: Duration,
    /// Time to establish a connection.
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
    /// A client; `ahi` is that of HealthImaging's own API.
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

    /// What this client has done so far.
    pub fn stats(&self) -> &DicomWebStats {
        &self.shared.stats
    }

    /// The URL below which an archive has its studies.
    pub(super) fn base(&self, target: &Target) -> String {
        match target {
            Target::Datastore(id) => {
                format!("{}/datastore/{id}", self.shared.settings.healthimaging)
            }
            Target::Service(url) => url.to_string(),
        }
    }

    /// Where an instance can be retrieved from (PS3.18 section 10.4).
    pub fn url_of(&self, target: &Target, instance: &Instance) -> String {
        let Instance { study_instance_uid, series_instance_uid, sop_instance_uid, .. } = instance;
        format!(
            "{}/studies/{study_instance_uid}/series/{series_instance_uid}/instances/{sop_instance_uid}",
            self.base(target)
        )
    }

    /// Adds credentials, if they are for that service.
    pub(super) async fn authorize(&self, url: &ServiceUrl, head: &mut Head) -> Result<(), Fault> {
        if let Some((origin, credentials)) = &self.shared.settings.credentials
            && url.same_origin(origin)
        {
            let value = credentials::header(credentials).await.map_err(Fault::last)?;
            head.headers.push(("authorization", value));
        }
        Ok(())
    }

    /// How `operation` is called. Nothing is sent beside what is late: two stores of one instance at once
    /// may make two of it.
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
