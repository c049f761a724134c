//! Models: load, warm up, serve, drain, unload.
//!
//! The registry knows its models by name and nothing of what a model is: loading one is a [`Loader`]'s.
//! It is filled in one of two ways. From a folder, all its models load when the server starts, and
//! one that cannot be loaded answers its own error to whoever asks for it. By the platform (a
//! multi-model endpoint), models come and go while others serve.
//!
//! A model that is asked for is held by a [`Lease`]; unloading waits for the last of them. No lock is
//! held while anything is loaded, waited for or freed.

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

/// What SageMaker's archives are called; callers repeat it in model names.
const ARCHIVE: &str = ".tar.gz";

/// The name of SageMaker's archive of a single model, which stands for whichever one it holds.
const SINGLE: &str = "model";

/// How names are understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Naming {
    /// Names are folders': a trailing `.tar.gz` is ignored, and the only model needs no name.
    Folders,
    /// Names are the platform's, which mean nothing: only the very name will do.
    Opaque,
}

/// The models there are, by name.
pub struct Registry<M> {
    loader: Arc<dyn Loader<M>>,
    budget: Arc<Budget>,
    naming: Naming,
    /// Where models may be loaded from on request; anywhere where absent.
    roots: Option<Roots>,
    /// One permit for each model that loads: loading uses all cores, and memory beyond what stays.
    loads: Semaphore,
    models: Mutex<BTreeMap<String, Entry<M>>>,
}

struct Entry<M> {
    /// Where the model is, as whoever asked for it wrote it.
    url: String,
    state: State<M>,
}

enum State<M> {
    /// On its way; the token is cancelled when that has ended.
    Loading(CancellationToken),
    /// The token is cancelled when its memory is free.
    Ready(Lease<M>, CancellationToken),
    /// On its way out; the token is cancelled when the name is free.
    Unloading(CancellationToken),
    Failed(Error),
}

/// What there is to say of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelStatus {
    /// Its name.
    pub name: String,
    /// Where it is, as whoever asked for it wrote it.
    pub url: String,
    /// `loading`, `ready`, `unloading` or `failed`.
    pub state: &'static str,
    /// Bytes of the memory budget it occupies; 0 unless it is ready.
    pub bytes: u64,
}

impl<M: Send + Sync + 'static> Registry<M> {
    /// A registry without models, in which `loads` of them may load at the same time.
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

    /// The same, but models are loaded on request only from below `roots`.
    #[must_use]
    pub fn within(mut self, roots: Roots) -> Self {
        self.roots = Some(roots);
        self
    }

    /// Loads the models of a folder, as many at the same time as may, and returns how many are
    /// ready. Those that cannot be loaded stay, and answer why.
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

    /// A hold on the model called `name`, or on the only one where no name is given and names are
    /// folders'.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidRequest`] where a name is needed, [`ErrorKind::ModelNotFound`],
    /// [`ErrorKind::Unavailable`] while a folder's model is loading, and the error it failed to load
    /// with.
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

    /// All models, by name, whatever their state, and a hold on those that are ready.
    pub fn all(&self) -> Vec<(ModelStatus, Option<Lease<M>>)> {
        let lease = |entry: &Entry<M>| match &entry.state {
            State::Ready(lease, _) => Some(lease.clone()),
            State::Loading(_) | State::Unloading(_) | State::Failed(_) => None,
        };
        self.lock().iter().map(|(name, entry)| (entry.status(name), lease(entry))).collect()
    }

    /// What models may occupy, and do.
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Entry<M>>> {
        self.models.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Loads one model within the budget, on a thread that may block.
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

/// The bundle in `folder`, which is one or holds a single one.
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
