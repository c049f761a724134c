//! What there is to segment, as far as requests may name it: for people who choose by hand.

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
    /// One that shows what `access` allows.
    pub fn new(ahi: AhiClient, access: AccessSettings) -> Self {
        Self { ahi, access }
    }

    /// The data stores that requests may name. Where they may not be listed, but the settings name them, they
    /// are those of the settings.
    ///
    /// # Errors
    /// Those of [`AhiClient::datastores`].
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

    /// The image sets of a data store, a page of them.
    ///
    /// # Errors
    /// `AccessDenied` where requests may not name the data store, and those of [`AhiClient::image_sets`].
    pub async fn image_sets(
        &self,
        datastore_id: &str,
        next: Option<String>,
    ) -> Result<ImageSetPage> {
        self.access.check_datastore(datastore_id)?;
        self.client().image_sets(datastore_id, next).await
    }

    /// A client whose attempts are counted for this call alone.
    fn client(&self) -> AhiClient {
        self.ahi.within(Arc::new(Allowance::default()))
    }
}
