//! Models: load, warm up, serve.
//!
//! The registry knows its models by name and nothing of what a model is: loading one is a closure
//! of whoever makes the registry. All load at the same time, each on a thread that may block; one
//! that cannot be loaded answers its own error to whoever asks for it and leaves the others alone.

pub mod catalog;
mod check;
mod model;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use futures::future::join_all;

pub use catalog::{ModelLocation, discover};
pub use check::check_bundle;
pub use model::{LoadOptions, Model};

use crate::error::{Error, ErrorKind, Result};

/// What SageMaker's archives are called; callers repeat it in model names.
const ARCHIVE: &str = ".tar.gz";

/// The name of SageMaker's archive of a single model, which stands for whichever one it holds.
const SINGLE: &str = "model";

/// The models there are, by name.
pub struct Registry<M> {
    models: BTreeMap<String, Entry<M>>,
}

struct Entry<M> {
    location: ModelLocation,
    state: RwLock<State<M>>,
}

enum State<M> {
    Loading,
    Ready(Arc<M>),
    Failed(Error),
}

impl<M: Send + Sync + 'static> Registry<M> {
    /// A registry of the models at `locations`, none of them loaded yet.
    pub fn new(locations: Vec<ModelLocation>) -> Self {
        let entry = |location: ModelLocation| {
            (location.name.clone(), Entry { location, state: RwLock::new(State::Loading) })
        };
        Self { models: locations.into_iter().map(entry).collect() }
    }

    /// Loads every model through `loader`, all at the same time on threads that may block, and
    /// returns how many are ready.
    pub async fn load<F>(&self, loader: F) -> usize
    where
        F: Fn(&ModelLocation) -> Result<M> + Send + Sync + 'static,
    {
        let loader = Arc::new(loader);
        let loads = self.models.values().map(|entry| entry.load(Arc::clone(&loader)));
        join_all(loads).await.into_iter().filter(|&ready| ready).count()
    }

    /// The model called `name`, or the only one where no name is given. A trailing `.tar.gz` is
    /// ignored, and `model.tar.gz` means the only one, too.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidRequest`] where a name is needed, [`ErrorKind::ModelNotFound`],
    /// [`ErrorKind::Unavailable`] while the model is loading, and the error it failed to load with.
    pub fn get(&self, name: Option<&str>) -> Result<Arc<M>> {
        let (name, entry) = self.find(name)?;
        match &*entry.state.read().unwrap_or_else(PoisonError::into_inner) {
            State::Ready(model) => Ok(Arc::clone(model)),
            State::Failed(error) => Err(error.duplicate()),
            State::Loading => Err(Error::new(
                ErrorKind::Unavailable,
                format!("the model {name} is still loading; send the request again later"),
            )
            .with("model", name)),
        }
    }

    /// The names of all models, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.models.keys().map(String::as_str)
    }

    fn find(&self, name: Option<&str>) -> Result<(&str, &Entry<M>)> {
        let mut all = self.models.iter();
        let only = match (all.next(), all.next()) {
            (Some((name, entry)), None) => Some((name.as_str(), entry)),
            _ => None,
        };
        let Some(asked) = name else {
            return only.ok_or_else(|| {
                self.naming_those_there_are(
                    ErrorKind::InvalidRequest,
                    "the request names no model and there are several",
                )
            });
        };
        let plain = asked.strip_suffix(ARCHIVE).unwrap_or(asked);
        let named = self.models.get_key_value(asked).or_else(|| self.models.get_key_value(plain));
        if let Some((name, entry)) = named {
            return Ok((name, entry));
        }
        only.filter(|_| plain == SINGLE).ok_or_else(|| {
            let problem = "there is no model of the name asked for";
            self.naming_those_there_are(ErrorKind::ModelNotFound, problem).with("model", asked)
        })
    }

    fn naming_those_there_are(&self, kind: ErrorKind, problem: &str) -> Error {
        let names: Vec<&str> = self.names().collect();
        Error::new(kind, format!("{problem}; choose from: {}", names.join(", ")))
            .with("models", names)
    }
}

impl<M: Send + Sync + 'static> Entry<M> {
    /// Loads this model; returns whether it is ready.
    async fn load<F>(&self, loader: Arc<F>) -> bool
    where
        F: Fn(&ModelLocation) -> Result<M> + Send + Sync + 'static,
    {
        let location = self.location.clone();
        let name = &self.location.name;
        let loaded = tokio::task::spawn_blocking(move || loader(&location)).await;
        let loaded = loaded
            .unwrap_or_else(|_| Err(Error::internal(format!("loading the model {name} panicked"))));
        let (ready, state) = match loaded {
            Ok(model) => {
                tracing::info!(model = name, "model ready");
                (true, State::Ready(Arc::new(model)))
            }
            Err(error) => {
                let code = error.kind().code();
                tracing::error!(model = name, code, %error, "model cannot be served");
                (false, State::Failed(error))
            }
        };
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = state;
        ready
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn registry(names: &[&str]) -> Registry<String> {
        let location = |&name: &&str| ModelLocation { name: name.to_owned(), path: name.into() };
        Registry::new(names.iter().map(location).collect())
    }

    fn load(location: &ModelLocation) -> Result<String> {
        match location.name.as_str() {
            "broken" => Err(Error::new(ErrorKind::InvalidModel, "no model.onnx").with("path", "x")),
            "panics" => panic!("a defect"),
            name => Ok(format!("model {name}")),
        }
    }

    #[tokio::test]
    async fn one_model_needs_no_name() {
        let one = registry(&["spleen"]);
        assert_eq!(one.get(None).unwrap_err().kind(), ErrorKind::Unavailable);
        assert_eq!(one.load(load).await, 1);
        for name in [None, Some("spleen"), Some("spleen.tar.gz"), Some("model.tar.gz")] {
            assert_eq!(*one.get(name).unwrap(), "model spleen", "{name:?}");
        }
        let error = one.get(Some("lung")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ModelNotFound);
        assert!(error.message().contains("spleen"), "{error}");
    }

    #[tokio::test]
    async fn several_models_are_chosen_by_name_and_fail_alone() {
        let several = registry(&["spleen", "broken", "lung", "panics"]);
        assert_eq!(several.load(load).await, 2);
        assert_eq!(*several.get(Some("lung")).unwrap(), "model lung");
        for name in [None, Some("model.tar.gz"), Some("")] {
            let error = several.get(name).unwrap_err();
            let expected =
                if name.is_none() { ErrorKind::InvalidRequest } else { ErrorKind::ModelNotFound };
            assert_eq!(error.kind(), expected);
            assert!(error.message().contains("broken, lung, panics, spleen"), "{error}");
        }
        for _ in 0..2 {
            let error = several.get(Some("broken.tar.gz")).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidModel);
            assert_eq!((error.message(), &error.details()["path"]), ("no model.onnx", &"x".into()));
        }
        assert_eq!(several.get(Some("panics")).unwrap_err().kind(), ErrorKind::Internal);
    }

    #[tokio::test]
    async fn models_load_side_by_side_and_serve_as_soon_as_they_are_ready() {
        let both = Arc::new(registry(&["fast", "slow"]));
        let (release, held) = mpsc::channel::<()>();
        let held = std::sync::Mutex::new(held);
        let loading = tokio::spawn({
            let both = Arc::clone(&both);
            async move {
                both.load(move |location| {
                    if location.name == "slow" {
                        held.lock().unwrap().recv().unwrap();
                    }
                    load(location)
                })
                .await
            }
        });
        while both.get(Some("fast")).is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        assert_eq!(both.get(Some("slow")).unwrap_err().kind(), ErrorKind::Unavailable);
        release.send(()).unwrap();
        assert_eq!(loading.await.unwrap(), 2);
        assert!(both.get(Some("slow")).is_ok());
    }
}
