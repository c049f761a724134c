//! Loads and unloads models while others serve requests, for multi-model endpoints.
//!
//! Each load or unload runs in a task of its own, so that a caller that disconnects leaves nothing
//! half done.

use std::collections::btree_map;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::{Entry, Lease, ModelLocation, ModelStatus, Registry, State, nested, not_loaded};
use crate::error::{Error, ErrorKind, Result};
use crate::memory::trim;

/// How long unloading waits for requests before it cancels them; the platform waits 360 s.
const PATIENCE: Duration = Duration::from_secs(300);

/// A page of the loaded models, sorted by name.
#[derive(Debug, PartialEq, Eq)]
pub struct Page {
    /// The models of this page.
    pub models: Vec<ModelStatus>,
    /// Whether more models follow.
    pub more: bool,
}

impl<M: Send + Sync + 'static> Registry<M> {
    /// Loads the model in the folder `url` as `name`, and returns once it is warmed up. If a model
    /// of that name is being unloaded, waits for that to finish.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidRequest`] if the URL is not an absolute path,
    /// [`ErrorKind::AccessDenied`] if it leads outside the registry's roots,
    /// [`ErrorKind::ModelAlreadyLoaded`] if the model is loaded or loading,
    /// [`ErrorKind::OutOfMemory`]; propagates the errors of the loader.
    pub async fn load(self: &Arc<Self>, name: &str, url: &str) -> Result<ModelStatus> {
        let folder = self.permitted(absolute(url)?).await?;
        let done = loop {
            match self.begin_loading(name, url)? {
                Begun::Loading(done) => break done,
                Begun::After(gone) => gone.cancelled().await,
            }
        };
        let (registry, name) = (Arc::clone(self), name.to_owned());
        let task = async move {
            let _done = done.drop_guard();
            let found = registry.find_bundle(name.clone(), folder).await;
            let loaded = match found {
                Ok(location) => registry.bring_in(&location).await,
                Err(error) => Err(error),
            };
            if loaded.is_err() {
                aside(trim).await;
            }
            registry.end_loading(&name, loaded)
        };
        tokio::spawn(task.in_current_span())
            .await
            .unwrap_or_else(|_| Err(Error::internal("loading the model was stopped")))
    }

    /// Unloads a model. It is no longer found from now on, requests that use it finish, and its
    /// memory is free when this returns. A model that is still loading is unloaded after that.
    ///
    /// # Errors
    /// [`ErrorKind::ModelNotFound`] if the model is not loaded or already being unloaded.
    pub async fn unload(self: &Arc<Self>, name: &str) -> Result<ModelStatus> {
        let (status, lease, freed) = loop {
            let loading = match self.lock().get_mut(name) {
                None => return Err(not_loaded(name)),
                Some(entry) => match &entry.state {
                    State::Unloading(_) => return Err(not_loaded(name)),
                    State::Loading(done) => done.clone(),
                    State::Ready(..) | State::Failed(_) => {
                        break entry.retire(name).ok_or_else(|| not_loaded(name))?;
                    }
                },
            };
            loading.cancelled().await;
        };
        let (registry, name) = (Arc::clone(self), name.to_owned());
        let task = async move {
            free(lease, &freed).await;
            registry.remove(&name);
            tracing::info!(model = name, "model unloaded");
        };
        tokio::spawn(task.in_current_span())
            .await
            .map_err(|_| Error::internal("unloading the model was stopped"))?;
        Ok(status)
    }

    /// Returns the status of a loaded model.
    ///
    /// # Errors
    /// [`ErrorKind::ModelNotFound`] if it is not loaded.
    pub fn loaded(&self, name: &str) -> Result<ModelStatus> {
        match self.lock().get(name) {
            Some(entry) if entry.is_ready() => Ok(entry.status(name)),
            _ => Err(not_loaded(name)),
        }
    }

    /// Returns at most `limit` loaded models whose names follow `after`.
    pub fn page(&self, after: Option<&str>, limit: usize) -> Page {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let models = self.lock();
        let mut following = models
            .range::<str, _>((start, Bound::Unbounded))
            .filter(|(_, entry)| entry.is_ready())
            .map(|(name, entry)| entry.status(name));
        let page = following.by_ref().take(limit).collect();
        Page { models: page, more: following.next().is_some() }
    }

    /// Checks that the folder may be loaded, and returns it with symbolic links resolved.
    async fn permitted(&self, folder: PathBuf) -> Result<PathBuf> {
        let Some(roots) = self.roots.clone() else { return Ok(folder) };
        tokio::task::spawn_blocking(move || roots.permitted(&folder))
            .await
            .unwrap_or_else(|_| Err(Error::internal("looking for the model panicked")))
    }

    async fn find_bundle(&self, name: String, folder: PathBuf) -> Result<ModelLocation> {
        let roots = self.roots.clone();
        let find = move || {
            // Check before searching the folder. A missing folder is reported by the search.
            if let Some(roots) = roots.filter(|_| folder.exists()) {
                roots.ensure_within(&folder)?;
            }
            nested(&name, folder)
        };
        tokio::task::spawn_blocking(find)
            .await
            .unwrap_or_else(|_| Err(Error::internal("looking for the model panicked")))
    }

    fn begin_loading(&self, name: &str, url: &str) -> Result<Begun> {
        match self.lock().entry(name.to_owned()) {
            btree_map::Entry::Vacant(vacant) => {
                let done = CancellationToken::new();
                let state = State::Loading(done.clone());
                vacant.insert(Entry { url: url.to_owned(), state });
                Ok(Begun::Loading(done))
            }
            btree_map::Entry::Occupied(there) => match &there.get().state {
                State::Unloading(gone) => Ok(Begun::After(gone.clone())),
                State::Loading(_) | State::Ready(..) | State::Failed(_) => Err(Error::new(
                    ErrorKind::ModelAlreadyLoaded,
                    "a model of that name is loaded or loading; unload it first",
                )
                .with("model", name)),
            },
        }
    }

    fn end_loading(
        &self,
        name: &str,
        loaded: Result<(Lease<M>, CancellationToken)>,
    ) -> Result<ModelStatus> {
        let mut models = self.lock();
        match loaded {
            Ok((lease, freed)) => {
                let entry = models.get_mut(name).ok_or_else(|| {
                    Error::internal("a model was removed while it was being loaded")
                })?;
                entry.state = State::Ready(lease, freed);
                Ok(entry.status(name))
            }
            Err(error) => {
                models.remove(name);
                Err(error.with("model", name))
            }
        }
    }

    fn remove(&self, name: &str) {
        let removed = self.lock().remove(name);
        if let Some(Entry { state: State::Unloading(gone), .. }) = removed {
            gone.cancel();
        }
    }
}

/// A load that has begun, or the unload it has to wait for.
enum Begun {
    Loading(CancellationToken),
    After(CancellationToken),
}

/// A retired model: its status, the registry's lease, and the token cancelled once it is freed.
type Retired<M> = (ModelStatus, Lease<M>, CancellationToken);

impl<M> Entry<M> {
    fn is_ready(&self) -> bool {
        matches!(self.state, State::Ready(..))
    }

    /// Moves the entry from ready to unloading; returns `None` if it is not ready.
    fn retire(&mut self, name: &str) -> Option<Retired<M>> {
        let status = self.status(name);
        let unloading = State::Unloading(CancellationToken::new());
        match std::mem::replace(&mut self.state, unloading) {
            State::Ready(lease, freed) => Some((status, lease, freed)),
            other => {
                self.state = other;
                None
            }
        }
    }
}

/// Drops the registry's lease of a model and waits until all other leases are dropped and its
/// memory is free.
async fn free<M: Send + Sync + 'static>(lease: Lease<M>, freed: &CancellationToken) {
    let revoked = lease.revoked().clone();
    // Dropping a model frees gigabytes, so do it on a blocking thread.
    aside(move || drop(lease)).await;
    if tokio::time::timeout(PATIENCE, freed.cancelled()).await.is_err() {
        let seconds = PATIENCE.as_secs();
        tracing::warn!(seconds, "requests still use a model that is being unloaded; cancelled");
        revoked.cancel();
        freed.cancelled().await;
    }
    aside(trim).await;
}

async fn aside(work: impl FnOnce() + Send + 'static) {
    if tokio::task::spawn_blocking(work).await.is_err() {
        tracing::error!("freeing a model's memory panicked");
    }
}

/// Parses the folder of a model; the platform's `url` is a path.
fn absolute(url: &str) -> Result<PathBuf> {
    let path = Path::new(url);
    if path.is_absolute() && !url.contains('\0') {
        return Ok(path.to_owned());
    }
    let message = "url must be the absolute path of a folder in this container";
    Err(Error::new(ErrorKind::InvalidRequest, message).with("path", "url"))
}
