//! Looks up which instances an archive already has.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use aws_smithy_types::body::SdkBody;

use super::answer::{JSON, found};
use super::client::DicomWeb;
use super::fault;
use super::http::Head;
use super::outcome::Instance;
use super::stats::DicomWebOperation;
use super::target::Target;
use crate::archive::ServiceUrl;
use crate::aws::{Allowance, Fault};
use crate::error::Result;

/// Maximum size of a response about one instance.
const LONGEST: u64 = 256 << 10;

impl DicomWeb {
    /// Returns the SOP Instance UIDs of those `instances` that are in the archive.
    ///
    /// # Errors
    /// Fails if the archive cannot be queried.
    pub(super) async fn present(
        &self,
        target: &Target,
        instances: &[&Instance],
        allowance: &Arc<Allowance>,
    ) -> Result<HashSet<String>> {
        match target {
            Target::Datastore(id) => self.in_datastore(id, instances, allowance).await,
            Target::Service(url) => self.in_service(url, instances, allowance).await,
        }
    }

    /// Checks all image sets of their series, including those that are not primary, which
    /// HealthImaging's QIDO-RS ignores.
    async fn in_datastore(
        &self,
        datastore_id: &str,
        instances: &[&Instance],
        allowance: &Arc<Allowance>,
    ) -> Result<HashSet<String>> {
        let mut of_series: HashMap<&str, Vec<&str>> = HashMap::new();
        for instance in instances {
            let uids = of_series.entry(&instance.series_instance_uid).or_default();
            uids.push(&instance.sop_instance_uid);
        }
        let ahi = self.shared.ahi.within(Arc::clone(allowance));
        let mut there = HashSet::new();
        for (series, uids) in of_series {
            for set in ahi.of_series(datastore_id, series).await? {
                let held = ahi.instances_of(&set).await?;
                there.extend(
                    uids.iter().filter(|uid| held.contains(**uid)).map(|uid| (*uid).to_owned()),
                );
            }
        }
        Ok(there)
    }

    async fn in_service(
        &self,
        url: &ServiceUrl,
        instances: &[&Instance],
        allowance: &Arc<Allowance>,
    ) -> Result<HashSet<String>> {
        let mut there = HashSet::new();
        for instance in instances {
            if self.search(url, instance, allowance).await? {
                there.insert(instance.sop_instance_uid.clone());
            }
        }
        Ok(there)
    }

    /// Whether a service reports that it has an instance; false if the service does not support
    /// searching.
    async fn search(
        &self,
        url: &ServiceUrl,
        instance: &Instance,
        allowance: &Arc<Allowance>,
    ) -> Result<bool> {
        let Instance { study_instance_uid, series_instance_uid, sop_instance_uid, .. } = instance;
        let operation = DicomWebOperation::Search;
        let name = operation.name();
        let at = format!(
            "{url}/studies/{study_instance_uid}/series/{series_instance_uid}/instances\
             ?SOPInstanceUID={sop_instance_uid}"
        );
        allowance.expect(1);
        self.call(operation, &self.shared.patience, allowance)
            .run(async |watch| {
                let mut head = Head {
                    method: "GET",
                    url: at.clone(),
                    headers: vec![("accept", JSON.to_owned())],
                };
                self.authorize(url, &mut head).await?;
                let response =
                    self.shared.http.send(name, head, SdkBody::empty(), LONGEST, &watch).await?;
                match response.status {
                    200 => {
                        let uids = found(&response.body).unwrap_or_default();
                        Ok(uids.iter().any(|uid| uid == sop_instance_uid))
                    }
                    408 | 429 | 500 | 502..=504 => {
                        let target = Target::Service(url.clone());
                        Err(fault::of(&target, name, &response))
                    }
                    status => {
                        tracing::debug!(status, "the archive was not searched");
                        Ok::<bool, Fault>(false)
                    }
                }
            })
            .await
    }
}
