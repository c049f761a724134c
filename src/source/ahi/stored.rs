//! Looks up what a data store already has of a series, before more of it is stored.

use std::collections::HashSet;

use aws_sdk_medicalimaging::types::SearchByAttributeValue;

use super::client::{AhiClient, ImageSetId};
use crate::error::{Error, ErrorKind, Result};

/// Maximum number of image sets of one series: one, and those that conflict with it.
const MOST: usize = 100;

/// An image set found by a search.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundSet {
    /// Its identifiers.
    pub id: ImageSetId,
    /// Its latest version.
    pub version: Option<i32>,
    /// Whether it is primary, if the service states it.
    pub is_primary: Option<bool>,
}

impl AhiClient {
    /// Returns the image sets of a series, primary or not.
    ///
    /// # Errors
    /// The errors of [`study`](Self::study), except that an empty result is not an error;
    /// `Upstream` if there are more than a hundred.
    pub async fn of_series(
        &self,
        datastore_id: &str,
        series_instance_uid: &str,
    ) -> Result<Vec<FoundSet>> {
        let named = |e: Error| {
            e.context(format_args!("searching for series {series_instance_uid}"))
                .with("datastoreId", datastore_id)
                .with("seriesInstanceUID", series_instance_uid)
        };
        let mut found = Vec::new();
        let mut next = None;
        loop {
            let series =
                SearchByAttributeValue::DicomSeriesInstanceUid(series_instance_uid.to_owned());
            let (page, token) = self.page(datastore_id, Some(series), next).await.map_err(named)?;
            for set in page {
                found.push(FoundSet {
                    id: ImageSetId::new(datastore_id, set.image_set_id()).map_err(|_| {
                        named(Error::new(ErrorKind::Upstream, "an image set without an identifier"))
                    })?,
                    version: set.version(),
                    is_primary: set.is_primary(),
                });
            }
            next = token;
            if next.is_none() {
                return Ok(found);
            }
            if found.len() > MOST {
                let what = format!("it has more than {MOST} image sets");
                return Err(named(Error::new(ErrorKind::Upstream, what)));
            }
        }
    }

    /// Returns the SOP Instance UIDs in an image set.
    ///
    /// # Errors
    /// The errors of [`metadata`](Self::metadata).
    pub async fn instances_of(&self, set: &FoundSet) -> Result<HashSet<String>> {
        let version = match set.version {
            Some(version) => version.to_string(),
            None => self.readable_version(&set.id, None).await?,
        };
        let metadata = self.metadata(&set.id, &version).await?;
        let instances = metadata.series.instances.into_iter();
        Ok(instances.map(|instance| instance.sop_instance_uid).collect())
    }
}
