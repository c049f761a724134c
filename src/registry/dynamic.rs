//! Models that come and go while others serve: the platform's multi-model endpoint.
//!
//! A load or an unload goes on in a task of its own, so that a caller that hangs up leaves nothing
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

/// How long unloading waits for requests before it cancels them: the platform waits 360 s for it.
const PATIENCE: Duration = Duration::from_secs(300);

/// Some of the models that are loaded, in the order of their names.
#[derive(Debug, PartialEq, Eq)]
pub struct Page {
    /// These models.
    pub models: Vec<ModelStatus>,
    /// Whether there are more after the last of them.
    pub more: bool,
}

impl<M: Send + Sync + 'static> Registry<M> {
    /// Loads the model in the folder `url` under the name `name`, and returns once it is warmed up.
    /// Where that name is being unloaded, waits for it to be free.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidRequest`] where the URL is no absolute path, [`ErrorKind::AccessDenied`]
    /// where it leads out of the registry's roots, [`ErrorKind::ModelAlreadyLoaded`] where it is loaded
    /// or loading, [`ErrorKind::OutOfMemory`], and the loader's.
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

    /// Unloads a model: from now on it is not found, what uses it is finished, and its memory is free
    /// when this returns. A model that is loading is unloaded once it is loaded.
    ///
    /// # Errors
    /// [`ErrorKind::ModelNotFound`], also while it is being unloaded.
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

    /// A model that is loaded.
    ///
    /// # Errors
    /// [`ErrorKind::ModelNotFound`].
    pub fn loaded(&self, name: &str) -> Result<ModelStatus> {
        match self.lock().get(name) {
            Some(entry) if entry.is_ready() => Ok(entry.status(name)),
            _ => Err(not_loaded(name)),
        }
    }

    /// At most `limit` of the models that are loaded, from the one whose name follows `after`.
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

    /// The folder as it may be loaded from: without links.
    async fn permitted(&self, folder: PathBuf) -> Result<PathBuf> {
        let Some(roots) = self.roots.clone() else { return Ok(folder) };
        tokio::task::spawn_blocking(move || roots.permitted(&folder))
            .await
            .unwrap_or_else(|_| Err(Error::internal("looking for the model panicked")))
    }

    async fn find_bundle(&self, name: String, folder: PathBuf) -> Result<ModelLocation> {
        let roots = self.roots.clone();
        let find = move || {
            // Before anything is looked for in it. One that is not there is the search's to tell.
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

/// Whether a load has begun, or what it has to wait for.
enum Begun {
    Loading(CancellationToken),
    After(CancellationToken),
}

/// What of a model has to go: what it was, the registry's hold on it, and the sign that it is gone.
type Retired<M> = (ModelStatus, Lease<M>, CancellationToken);

impl<M> Entry<M> {
    fn is_ready(&self) -> bool {
        matches!(self.state, State::Ready(..))
    }

    /// From ready to unloading; nothing where the model is not ready.
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

/// Gives up the registry's hold on a model and waits until nobody has any and its memory is free.
async fn free<M: Send + Sync + 'static>(lease: Lease<M>, freed: &CancellationToken) {
    let revoked = lease.revoked().clone();
    // Dropping a model frees gigabytes; not on a thread that others wait for.
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

/// The folder of a model: the platform says `url` and means a path.
fn absolute(url: &str) -> Result<PathBuf> {
    let path = Path::new(url);
    if path.is_absolute() && !url.contains('\0') {
        return Ok(path.to_owned());
    }
    let message = "url must be the absolute path of a folder in this container";
    Err(Error::new(ErrorKind::InvalidRequest, message).with("path", "url"))
}
