//! Models by name and how far each is: loading, ready, or failed and why.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

use super::catalog::ModelLocation;
use crate::cpu;
use crate::error::{Error, ErrorKind, Result};

/// Models of type `M` by name.
pub struct Registry<M> {
    models: RwLock<BTreeMap<String, Entry<M>>>,
}

enum Entry<M> {
    Loading,
    Ready(Arc<M>),
    Failed(Error),
}

/// How far all models are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Some are still loading.
    Loading,
    /// All are loaded or failed, and at least one can be used.
    Ready,
    /// None can be used.
    Failed,
}

impl<M: Send + Sync + 'static> Registry<M> {
    /// A registry that knows of `locations` and has loaded none of them.
    pub fn new(locations: &[ModelLocation]) -> Self {
        let models = locations.iter().map(|l| (l.name.clone(), Entry::Loading)).collect();
        Self { models: RwLock::new(models) }
    }

    /// Loads every model, one after the other: each uses all cores while it warms up. Blocks. A
    /// model that fails, or panics, keeps its error and does not keep the others from loading.
    pub fn load_all(
        &self,
        locations: &[ModelLocation],
        load: impl Fn(&ModelLocation) -> Result<M>,
    ) -> State {
        for location in locations {
            let started = std::time::Instant::now();
            let entry = match cpu::contained(|| load(location)) {
                Ok(model) => {
                    let seconds = started.elapsed().as_secs_f64();
                    tracing::info!(model = location.name, seconds, "model loaded");
                    Entry::Ready(Arc::new(model))
                }
                Err(error) => {
                    tracing::error!(
                        model = location.name,
                        code = error.kind().code(),
                        error = %error,
                        "model cannot be loaded"
                    );
                    Entry::Failed(error)
                }
            };
            self.write().insert(location.name.clone(), entry);
        }
        self.state()
    }

    /// How far all models are.
    pub fn state(&self) -> State {
        let models = self.read();
        if models.values().any(|m| matches!(m, Entry::Loading)) {
            State::Loading
        } else if models.values().any(|m| matches!(m, Entry::Ready(_))) {
            State::Ready
        } else {
            State::Failed
        }
    }

    /// The model of that name; the only one where none is named.
    ///
    /// A trailing `.tar.gz` (SageMaker's `TargetModel`) does not count, and a single model answers to
    /// `model` too.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::ModelNotFound`] or [`ErrorKind::InvalidRequest`] naming the models there are; the
    /// error of loading where it failed; [`ErrorKind::Unavailable`] while it loads.
    pub fn get(&self, name: Option<&str>) -> Result<Arc<M>> {
        let models = self.read();
        let there: Vec<&str> = models.keys().map(String::as_str).collect();
        let entry = match name.map(|n| n.strip_suffix(".tar.gz").unwrap_or(n)) {
            None if models.len() == 1 => models.values().next(),
            None => {
                return Err(Error::new(
                    ErrorKind::InvalidRequest,
                    format!("several models are served; name one of: {}", there.join(", ")),
                )
                .with("models", there));
            }
            Some("model") if models.len() == 1 => models.values().next(),
            Some(name) => models.get(name),
        };
        match entry {
            Some(Entry::Ready(model)) => Ok(model.clone()),
            Some(Entry::Failed(error)) => Err(error.duplicate()),
            Some(Entry::Loading) => {
                Err(Error::new(ErrorKind::Unavailable, "the model is still being loaded"))
            }
            None => Err(Error::new(
                ErrorKind::ModelNotFound,
                format!(
                    "there is no model {:?}; there are: {}",
                    name.unwrap_or_default(),
                    there.join(", ")
                ),
            )
            .with("model", name.unwrap_or_default())
            .with("models", there)),
        }
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<String, Entry<M>>> {
        // Nothing is left half done under this lock.
        self.models.read().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, BTreeMap<String, Entry<M>>> {
        self.models.write().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn locations(names: &[&str]) -> Vec<ModelLocation> {
        names.iter().map(|n| ModelLocation { name: (*n).to_owned(), path: n.into() }).collect()
    }

    fn loaded(names: &[&str]) -> Registry<String> {
        let found = locations(names);
        let registry = Registry::new(&found);
        registry.load_all(&found, |l| match l.name.as_str() {
            "broken" => Err(Error::new(ErrorKind::InvalidModel, "it is broken")),
            "panics" => panic!("in a model"),
            name => Ok(name.to_owned()),
        });
        registry
    }

    #[test]
    fn one_model_needs_no_name() {
        let registry = loaded(&["spleen"]);
        for name in [None, Some("spleen"), Some("spleen.tar.gz"), Some("model.tar.gz")] {
            assert_eq!(*registry.get(name).unwrap(), "spleen");
        }
        let e = registry.get(Some("liver")).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::ModelNotFound);
        assert!(e.message().contains("spleen"), "{e}");
    }

    #[test]
    fn several_models_need_one_and_a_broken_one_harms_no_other() {
        let registry = loaded(&["spleen", "broken", "panics"]);
        assert_eq!(registry.state(), State::Ready);
        assert_eq!(registry.get(None).unwrap_err().kind(), ErrorKind::InvalidRequest);
        assert_eq!(*registry.get(Some("spleen")).unwrap(), "spleen");
        assert_eq!(registry.get(Some("broken")).unwrap_err().kind(), ErrorKind::InvalidModel);
        assert_eq!(registry.get(Some("panics")).unwrap_err().kind(), ErrorKind::Internal);
        assert_eq!(loaded(&["broken"]).state(), State::Failed);
    }

    #[test]
    fn loading_is_said() {
        let registry = Registry::<String>::new(&locations(&["spleen"]));
        assert_eq!(registry.state(), State::Loading);
        assert_eq!(registry.get(None).unwrap_err().kind(), ErrorKind::Unavailable);
    }
}
