//! The registry as the server sees it, independent of the model type.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Map, Value, json};

use super::{Budget, Lease, Model, ModelStatus, Page, Registry};
use crate::error::Result;

/// A model that can describe itself.
pub trait Describe {
    /// Returns a public description of the model: no secrets, no patient data.
    fn describe(&self) -> Map<String, Value>;

    /// Whether the model is ready but its network keeps failing.
    fn is_broken(&self) -> bool {
        false
    }

    /// Tries to recover a broken model.
    fn mend(&self) {}
}

impl Describe for Model {
    fn describe(&self) -> Map<String, Value> {
        let labels: Vec<&str> = self.segments.iter().map(|s| s.label.as_str()).collect();
        let mut map = Map::new();
        map.insert("title".to_owned(), json!(self.bundle.config.name));
        map.insert("version".to_owned(), json!(self.bundle.config.version));
        map.extend(self.network.describe());
        map.insert("images".to_owned(), json!(self.images));
        map.insert("segments".to_owned(), json!(labels));
        map.insert("outputs".to_owned(), json!(self.outputs));
        map.insert("broken".to_owned(), json!(self.is_broken()));
        map
    }

    fn is_broken(&self) -> bool {
        self.ensure_usable().is_err()
    }

    fn mend(&self) {
        self.network.mend();
    }
}

/// A host of models that can be loaded, unloaded and listed.
#[async_trait]
pub trait Host: Send + Sync {
    /// See [`Registry::load`].
    async fn load(self: Arc<Self>, name: &str, url: &str) -> Result<ModelStatus>;

    /// See [`Registry::unload`].
    async fn unload(self: Arc<Self>, name: &str) -> Result<ModelStatus>;

    /// See [`Registry::loaded`].
    fn loaded(&self, name: &str) -> Result<ModelStatus>;

    /// See [`Registry::page`].
    fn page(&self, after: Option<&str>, limit: usize) -> Page;

    /// Returns all models in any state, with the descriptions of those that are ready.
    fn all(&self) -> Vec<(ModelStatus, Map<String, Value>)>;

    /// Tries to recover broken models. Blocks.
    fn mend(&self);

    /// Returns the state of each model; `broken` for one that is ready but keeps failing.
    fn states(&self) -> Vec<&'static str>;

    /// Returns the memory budget of the models.
    fn budget(&self) -> &Budget;
}

#[async_trait]
impl<M: Describe + Send + Sync + 'static> Host for Registry<M> {
    async fn load(self: Arc<Self>, name: &str, url: &str) -> Result<ModelStatus> {
        Registry::load(&self, name, url).await
    }

    async fn unload(self: Arc<Self>, name: &str) -> Result<ModelStatus> {
        Registry::unload(&self, name).await
    }

    fn loaded(&self, name: &str) -> Result<ModelStatus> {
        Registry::loaded(self, name)
    }

    fn page(&self, after: Option<&str>, limit: usize) -> Page {
        Registry::page(self, after, limit)
    }

    fn all(&self) -> Vec<(ModelStatus, Map<String, Value>)> {
        // Models are described without holding the lock; the leases taken for it briefly delay an
        // unload.
        let all = Registry::all(self).into_iter();
        all.map(|(status, lease)| (status, lease.map(|m| m.describe()).unwrap_or_default()))
            .collect()
    }

    fn mend(&self) {
        for model in Registry::all(self).into_iter().filter_map(|(_, lease)| lease) {
            model.mend();
        }
    }

    fn states(&self) -> Vec<&'static str> {
        let state = |(status, lease): (ModelStatus, Option<Lease<M>>)| match lease {
            Some(model) if model.is_broken() => "broken",
            _ => status.state,
        };
        Registry::all(self).into_iter().map(state).collect()
    }

    fn budget(&self) -> &Budget {
        Registry::budget(self)
    }
}
