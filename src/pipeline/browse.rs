//! Lists what can be segmented and may be named in requests, for people who choose manually.

use std::sync::Arc;

use crate::aws::Allowance;
use crate::config::AccessSettings;
use crate::error::{ErrorKind, Result};
use crate::source::ahi::{AhiClient, Datastore, ImageSetPage};

/// Lists data stores and image sets of AWS HealthImaging.
#[derive(Debug, Clone)]
pub struct Browser {
    ahi: AhiClient,
    access: AccessSettings,
}

impl Browser {
    /// Creates a browser that shows what `access` allows.
    pub fn new(ahi: AhiClient, access: AccessSettings) -> Self {
        Self { ahi, access }
    }

    /// Returns the data stores that requests may name. If listing is not permitted but the settings
    /// name data stores, it returns those.
    ///
    /// # Errors
    /// Propagates the errors of [`AhiClient::datastores`].
    pub async fn datastores(&self) -> Result<Vec<Datastore>> {
        let allowed = &self.access.datastores;
        match self.client().datastores().await {
            Ok(mut all) => {
                all.retain(|datastore| allowed.allows(&datastore.datastore_id));
                Ok(all)
            }
            Err(error) if error.kind() == ErrorKind::AccessDenied && !allowed.is_open() => {
                let listed = allowed.listed().iter().cloned();
                Ok(listed.map(|datastore_id| Datastore { datastore_id, name: None }).collect())
            }
            Err(error) => Err(error),
        }
    }

    /// Returns one page of the image sets of a data store.
    ///
    /// # Errors
    /// `AccessDenied` if requests may not name the data store; otherwise propagates the errors of
    /// [`AhiClient::image_sets`].
    pub async fn image_sets(
        &self,
        datastore_id: &str,
        next: Option<String>,
    ) -> Result<ImageSetPage> {
        self.access.check_datastore(datastore_id)?;
        self.client().image_sets(datastore_id, next).await
    }

    /// Returns a client whose retries are counted for this call only.
    fn client(&self) -> AhiClient {
        self.ahi.within(Arc::new(Allowance::default()))
    }
}
