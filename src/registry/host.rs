//! The registry as the server sees it: whatever the models are.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Map, Value, json};

use super::{Budget, Model, ModelStatus, Page, Registry};
use crate::error::Result;

/// A model that can say what it is.
pub trait Describe {
    /// What to tell whoever asks which models are served: no secrets, nothing of patients.
    fn describe(&self) -> Map<String, Value>;

    /// Tries to get it to work again, where it is broken.
    fn mend(&self) {}
}

impl Describe for Model {
    fn describe(&self) -> Map<String, Value> {
        let labels: Vec<&str> = self.segments.iter().map(|s| s.label.as_str()).collect();
        let mut map = Map::new();
        map.insert("title".to_owned(), json!(self.bundle.config.name));
        map.insert("version".to_owned(), json!(self.bundle.config.version));
        map.extend(self.network.describe());
        map.insert("segments".to_owned(), json!(labels));
        map.insert("outputs".to_owned(), json!(self.outputs));
        map.insert("broken".to_owned(), json!(self.ensure_usable().is_err()));
        map
    }

    fn mend(&self) {
        self.network.mend();
    }
}

/// Models that come, go, and are asked about.
#[async_trait]
pub trait Host: Send + Sync {
    /// As [`Registry::load`].
    async fn load(self: Arc<Self>, name: &str, url: &str) -> Result<ModelStatus>;

    /// As [`Registry::unload`].
    async fn unload(self: Arc<Self>, name: &str) -> Result<ModelStatus>;

    /// As [`Registry::loaded`].
    fn loaded(&self, name: &str) -> Result<ModelStatus>;

    /// As [`Registry::page`].
    fn page(&self, after: Option<&str>, limit: usize) -> Page;

    /// All models whatever their state, each with what it says of itself where it is ready.
    fn all(&self) -> Vec<(ModelStatus, Map<String, Value>)>;

    /// Tries to get models that are broken to work again; blocks.
    fn mend(&self);

    /// The state of each model.
    fn states(&self) -> Vec<&'static str>;

    /// What models may occupy, and do.
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
        // Described after the lock is gone; a lease taken for it delays an unloading by that long.
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
        Registry::all(self).into_iter().map(|(status, _)| status.state).collect()
    }

    fn budget(&self) -> &Budget {
        Registry::budget(self)
    }
}
