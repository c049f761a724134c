//! Models: load, warm up, serve, drain, unload.
//!
//! The registry manages models by name and is independent of their type; a [`Loader`] loads them.
//! It is filled in one of two ways. From a folder: all models load when the server starts, and
//! requests for one that failed to load get its error. By the platform (a multi-model endpoint):
//! models are loaded and unloaded while others serve.
//!
//! Requests hold a model by a [`Lease`]; unloading waits until the last lease is dropped. No lock
//! is held while a model is loaded, awaited or freed.

mod budget;
pub mod catalog;
mod check;
mod digest;
mod dynamic;
mod findings;
mod fit;
mod host;
mod loader;
mod model;
mod resident;
mod roots;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use futures::future::join_all;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

pub use budget::{Budget, Reservation};
pub use catalog::{ModelLocation, discover};
pub use check::check_bundle;
pub use dynamic::Page;
pub use host::{Describe, Host};
pub use loader::{BundleLoader, Loader};
pub use model::{LoadOptions, Model};
pub use resident::Lease;
pub use roots::Roots;

use crate::error::{Error, ErrorKind, Result};
pub use crate::inference::BrokenNetworks;

/// The extension of SageMaker's model archives, which callers repeat in model names.
const ARCHIVE: &str = ".tar.gz";

/// The name of SageMaker's archive for a single model, which stands for whichever model it
/// contains.
const SINGLE: &str = "model";

/// How model names are matched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Naming {
    /// Names are folder names: a trailing `.tar.gz` is ignored, and a sole model needs no name.
    Folders,
    /// Names are opaque strings of the platform and must match exactly.
    Opaque,
}

/// The models, by name.
pub struct Registry<M> {
    loader: Arc<dyn Loader<M>>,
    budget: Arc<Budget>,
    naming: Naming,
    /// Folders that models may be loaded from on request; `None` means anywhere.
    roots: Option<Roots>,
    /// One permit per loading model: loading uses all cores, and more memory than it keeps.
    loads: Semaphore,
    models: Mutex<BTreeMap<String, Entry<M>>>,
}

struct Entry<M> {
    /// The location of the model as given by the caller.
    url: String,
    state: State<M>,
}

enum State<M> {
    /// The model is loading; the token is cancelled when that ends.
    Loading(CancellationToken),
    /// The token is cancelled when the model's memory is free.
    Ready(Lease<M>, CancellationToken),
    /// The model is unloading; the token is cancelled when the name is free.
    Unloading(CancellationToken),
    Failed(Error),
}

/// The status of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelStatus {
    /// Its name.
    pub name: String,
    /// Its location as given by the caller.
    pub url: String,
    /// `loading`, `ready`, `unloading` or `failed`.
    pub state: &'static str,
    /// Bytes of the memory budget it occupies; 0 unless ready.
    pub bytes: u64,
}

impl<M: Send + Sync + 'static> Registry<M> {
    /// Creates an empty registry that loads up to `loads` models in parallel.
    pub fn new(
        loader: impl Loader<M> + 'static,
        budget: Budget,
        naming: Naming,
        loads: usize,
    ) -> Self {
        Self {
            loader: Arc::new(loader),
            budget: Arc::new(budget),
            naming,
            roots: None,
            loads: Semaphore::new(loads.clamp(1, Semaphore::MAX_PERMITS)),
            models: Mutex::new(BTreeMap::new()),
        }
    }

    /// Restricts loading on request to folders below `roots`.
    #[must_use]
    pub fn within(mut self, roots: Roots) -> Self {
        self.roots = Some(roots);
        self
    }

    /// Loads the models of a folder in parallel and returns how many are ready. Models that fail
    /// stay listed and return their error.
    pub async fn load_all(&self, locations: Vec<ModelLocation>) -> usize {
        let loads: Vec<_> = locations
            .into_iter()
            .map(|location| {
                let url = location.path.display().to_string();
                let done = CancellationToken::new();
                let entry = Entry { url, state: State::Loading(done.clone()) };
                self.lock().insert(location.name.clone(), entry);
                async move {
                    let loaded = self.bring_in(&location).await;
                    let ready = loaded.is_ok();
                    let state = match loaded {
                        Ok((lease, freed)) => State::Ready(lease, freed),
                        Err(error) => State::Failed(error),
                    };
                    if let Some(entry) = self.lock().get_mut(&location.name) {
                        entry.state = state;
                    }
                    done.cancel();
                    ready
                }
            })
            .collect();
        join_all(loads).await.into_iter().filter(|&ready| ready).count()
    }

    /// Returns a lease of the model `name`, or of the only model if no name is given and names are
    /// folder names.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidRequest`] if a name is required, [`ErrorKind::ModelNotFound`],
    /// [`ErrorKind::Unavailable`] while a model of a folder is loading, and the error of a model
    /// that failed to load.
    pub fn get(&self, name: Option<&str>) -> Result<Lease<M>> {
        let models = self.lock();
        let (name, entry) = find(&models, name, self.naming)?;
        match (&entry.state, self.naming) {
            (State::Ready(lease, _), _) => Ok(lease.clone()),
            (State::Failed(error), _) => Err(error.duplicate()),
            (State::Loading(_), Naming::Folders) => Err(Error::new(
                ErrorKind::Unavailable,
                format!("the model {name} is still loading; send the request again later"),
            )
            .with("model", name)),
            (State::Loading(_) | State::Unloading(_), _) => Err(not_loaded(name)),
        }
    }

    /// Returns all models in any state, sorted by name, with a lease of those that are ready.
    pub fn all(&self) -> Vec<(ModelStatus, Option<Lease<M>>)> {
        let lease = |entry: &Entry<M>| match &entry.state {
            State::Ready(lease, _) => Some(lease.clone()),
            State::Loading(_) | State::Unloading(_) | State::Failed(_) => None,
        };
        self.lock().iter().map(|(name, entry)| (entry.status(name), lease(entry))).collect()
    }

    /// Returns the memory budget of the models.
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Entry<M>>> {
        self.models.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Loads one model within the budget, on a blocking thread.
    async fn bring_in(&self, location: &ModelLocation) -> Result<(Lease<M>, CancellationToken)> {
        let name = &location.name;
        let _permit = self.loads.acquire().await.map_err(|_| Error::internal("loading is over"))?;
        let (loader, budget) = (Arc::clone(&self.loader), Arc::clone(&self.budget));
        let (place, span) = (location.clone(), tracing::Span::current());
        let work = move || {
            let _entered = span.enter();
            let mut share = budget.reserve(loader.estimate(&place)?)?;
            let (model, bytes) = loader.load(&place)?;
            share.settle(bytes)?;
            let freed = CancellationToken::new();
            Ok((Lease::new(model, Some(share), &freed), freed))
        };
        let started = Instant::now();
        let loaded = tokio::task::spawn_blocking(work)
            .await
            .unwrap_or_else(|_| Err(Error::internal(format!("loading the model {name} panicked"))));
        match &loaded {
            Ok((lease, _)) => {
                let (bytes, seconds) = (lease.bytes(), started.elapsed().as_secs_f64());
                tracing::info!(model = name, bytes, seconds, "model ready");
            }
            Err(error) => {
                let code = error.kind().code();
                tracing::error!(model = name, code, %error, "model cannot be served");
            }
        }
        loaded
    }
}

impl<M> Entry<M> {
    fn status(&self, name: &str) -> ModelStatus {
        let (state, bytes) = match &self.state {
            State::Loading(_) => ("loading", 0),
            State::Ready(lease, _) => ("ready", lease.bytes()),
            State::Unloading(_) => ("unloading", 0),
            State::Failed(_) => ("failed", 0),
        };
        ModelStatus { name: name.to_owned(), url: self.url.clone(), state, bytes }
    }
}

fn find<'a, M>(
    models: &'a BTreeMap<String, Entry<M>>,
    name: Option<&str>,
    naming: Naming,
) -> Result<(&'a str, &'a Entry<M>)> {
    let mut all = models.iter();
    let only = match (all.next(), all.next()) {
        (Some((name, entry)), None) if naming == Naming::Folders => Some((name.as_str(), entry)),
        _ => None,
    };
    let Some(asked) = name else {
        return only.ok_or_else(|| {
            let problem = "the request names no model, and which one it means cannot be told";
            naming_those_there_are(models, ErrorKind::InvalidRequest, problem)
        });
    };
    let plain = asked.strip_suffix(ARCHIVE).filter(|_| naming == Naming::Folders).unwrap_or(asked);
    let named = models.get_key_value(asked).or_else(|| models.get_key_value(plain));
    if let Some((name, entry)) = named {
        return Ok((name, entry));
    }
    only.filter(|_| plain == SINGLE).ok_or_else(|| match naming {
        Naming::Opaque => not_loaded(asked),
        Naming::Folders => {
            let problem = "there is no model of the name asked for";
            naming_those_there_are(models, ErrorKind::ModelNotFound, problem).with("model", asked)
        }
    })
}

fn not_loaded(name: &str) -> Error {
    Error::new(ErrorKind::ModelNotFound, "no model of that name is loaded").with("model", name)
}

fn naming_those_there_are<M>(
    models: &BTreeMap<String, Entry<M>>,
    kind: ErrorKind,
    problem: &str,
) -> Error {
    let names: Vec<&str> = models.keys().map(String::as_str).collect();
    Error::new(kind, format!("{problem}; choose from: {}", names.join(", "))).with("models", names)
}

/// Returns the bundle in `folder`, which is a bundle or contains exactly one.
///
/// # Errors
/// [`ErrorKind::InvalidModel`], naming the folder.
fn nested(name: &str, folder: PathBuf) -> Result<ModelLocation> {
    let invalid = |problem: String| Error::new(ErrorKind::InvalidModel, problem);
    let mut found = discover(&folder).map_err(|e| invalid(e.message().to_owned()))?;
    match (found.pop(), found.len()) {
        (Some(one), 0) => Ok(ModelLocation { name: name.to_owned(), path: one.path }),
        (_, more) => Err(invalid(format!(
            "{} holds {} MONAI bundles; a model of a multi-model endpoint is one",
            folder.display(),
            more + 1
        ))),
    }
}

#[cfg(test)]
mod tests;
