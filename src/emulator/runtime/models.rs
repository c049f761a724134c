//! The models of a multi-model endpoint: fetched and loaded on first use, unloaded when another
//! model needs their memory.
//!
//! The server knows a model by a hash of its S3 location, because names are opaque on the platform,
//! too. A model is loaded once, however many requests wait for it, and loading continues if they
//! are cancelled. Models loaded by an earlier run of this program are adopted.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::http::{HeaderMap, Method, StatusCode};
use bytes::Bytes;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::OnceCell;
use tokio::time::{Instant, timeout_at};

use super::super::objects::{Location, Objects};
use super::archive::unpack;
use super::container::{Answer, Begun, Container, Message, Trouble};
use super::failure::Failure;
use crate::error::{Error, ErrorKind};

/// Time limit of the platform for loading or unloading a model.
const CHANGE: Duration = Duration::from_secs(360);

/// Maximum size in bytes of a response about models.
const LONGEST_ANSWER: usize = 1 << 20;

/// How often a request is resent because its model had to be reloaded.
const RELOADS: usize = 3;

/// The models of an endpoint.
pub struct Models {
    container: Container,
    prefix: Location,
    folder: PathBuf,
    objects: Objects,
    /// Initialized once the models loaded earlier are known.
    adopted: OnceCell<()>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Logical clock of uses.
    clock: u64,
    /// Loaded models and when they were last used.
    used: HashMap<String, u64>,
    /// Locks held while a model is loaded or unloaded.
    gates: HashMap<String, Arc<tokio::sync::Mutex<()>>>,
}

/// A requested model.
#[derive(Clone)]
struct Target {
    /// The server's name for it.
    name: String,
    /// The location of its archive.
    location: Location,
    /// The caller's name for it.
    asked: String,
}

impl Models {
    /// Creates the models below `prefix`, which are unpacked into `folder` and loaded by the server
    /// `container`.
    pub fn new(container: Container, prefix: Location, folder: PathBuf, objects: Objects) -> Self {
        let (adopted, state) = (OnceCell::new(), Mutex::default());
        Self { container, prefix, folder, objects, adopted, state }
    }

    /// Sends a request to the model that the caller calls `asked`, and returns when its response
    /// begins.
    ///
    /// # Errors
    /// `ValidationError` if the model does not exist, `ModelNotReadyException` if it is not loaded
    /// by `deadline`, `ModelError` if it cannot be loaded or does not respond.
    pub async fn begin(
        self: &Arc<Self>,
        asked: &str,
        headers: HeaderMap,
        body: Bytes,
        deadline: Instant,
    ) -> Result<Begun, Failure> {
        let target = self.target(asked)?;
        let message = Message {
            method: Method::POST,
            path: format!("{}/invoke", path_of(&target.name)),
            headers,
            body,
        };
        let mut reloads = 0;
        loop {
            self.ready(&target, deadline).await?;
            let begun = self.container.begin(message.clone(), deadline).await;
            let begun = begun.map_err(|trouble| Failure::trouble(&trouble))?;
            match begun.status() {
                // The request itself lacks memory: unload the least recently used other model.
                StatusCode::INSUFFICIENT_STORAGE if self.unload_one(Some(&target.name)).await? => {}
                StatusCode::NOT_FOUND if reloads < RELOADS && self.is_gone(&target).await? => {
                    reloads += 1;
                    self.state().used.remove(&target.name);
                }
                _ => return Ok(begun),
            }
        }
    }

    fn target(&self, asked: &str) -> Result<Target, Failure> {
        let unknown = |e: Error| Failure::validation(format!("TargetModel: {}", e.message()));
        let location = self.prefix.append(asked.trim_start_matches('/')).map_err(unknown)?;
        let digest = Sha256::digest(location.to_string().as_bytes());
        let name = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        Ok(Target { name, location, asked: asked.to_owned() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn gate(&self, name: &str) -> Arc<tokio::sync::Mutex<()>> {
        Arc::clone(self.state().gates.entry(name.to_owned()).or_default())
    }

    /// Records a use; returns whether the model is loaded.
    fn touch(&self, name: &str) -> bool {
        let mut state = self.state();
        state.clock += 1;
        let clock = state.clock;
        state.used.get_mut(name).map(|used| *used = clock).is_some()
    }

    /// Waits until the model is loaded, loading it if necessary.
    async fn ready(self: &Arc<Self>, target: &Target, deadline: Instant) -> Result<(), Failure> {
        self.adopted.get_or_try_init(|| self.adopt()).await?;
        if self.touch(&target.name) {
            return Ok(());
        }
        let (models, wanted) = (Arc::clone(self), target.clone());
        // Runs in a task of its own, so that it continues if the first caller goes away.
        let loading = tokio::spawn(async move {
            let gate = models.gate(&wanted.name);
            let _held = gate.lock().await;
            if models.touch(&wanted.name) { Ok(()) } else { models.load(&wanted).await }
        });
        match timeout_at(deadline, loading).await {
            Err(_) => Err(Failure::not_ready(&target.asked)),
            Ok(Ok(loaded)) => loaded,
            Ok(Err(_)) => Err(Failure::internal(&Error::internal("loading a model panicked"))),
        }
    }

    async fn load(&self, target: &Target) -> Result<(), Failure> {
        let folder = self.fetch(target).await?;
        let load = json!({"model_name": target.name, "url": folder.to_string_lossy()});
        loop {
            let answer = self.ask(Method::POST, "/models".to_owned(), Some(&load)).await?;
            match answer.status {
                // Already loaded: the response to an earlier load was lost.
                StatusCode::OK | StatusCode::CONFLICT => {
                    let mut state = self.state();
                    state.clock += 1;
                    let clock = state.clock;
                    state.used.insert(target.name.clone(), clock);
                    tracing::info!(model = target.asked, name = target.name, "model loaded");
                    return Ok(());
                }
                StatusCode::INSUFFICIENT_STORAGE if self.unload_one(Some(&target.name)).await? => {}
                _ => return Err(Failure::model(&answer)),
            }
        }
    }

    /// Unpacks the current archive of the model; returns the folder.
    async fn fetch(&self, target: &Target) -> Result<PathBuf, Failure> {
        let archive = self.objects.file(&target.location).map_err(|e| {
            let hint = "put the archive there, or correct TargetModel or the endpoint's s3Prefix";
            Failure::validation(format!("TargetModel {}: {}; {hint}", target.asked, e.message()))
        })?;
        let parent = self.folder.join(&target.name);
        let folder = parent.join("model");
        let unpacking = {
            let folder = folder.clone();
            move || match std::fs::remove_dir_all(&parent) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    let problem = format!("{} cannot be emptied", parent.display());
                    Err(Error::new(ErrorKind::Io, problem).caused_by(e))
                }
                _ => unpack(&archive, &folder),
            }
        };
        let unpacked = tokio::task::spawn_blocking(unpacking).await;
        match unpacked.unwrap_or_else(|_| Err(Error::internal("unpacking a model panicked"))) {
            Ok(()) => Ok(folder),
            Err(e) if e.kind() == ErrorKind::InvalidModel => {
                Err(Failure::validation(format!("TargetModel {}: {}", target.asked, e.message())))
            }
            Err(e) => Err(Failure::internal(&e)),
        }
    }

    /// Unloads the least recently used model other than `kept`; returns whether there was one.
    async fn unload_one(&self, kept: Option<&str>) -> Result<bool, Failure> {
        let name = {
            let mut state = self.state();
            let others = state.used.iter().filter(|(name, _)| Some(name.as_str()) != kept);
            let Some(name) = others.min_by_key(|(_, used)| **used).map(|(n, _)| n.clone()) else {
                return Ok(false);
            };
            state.used.remove(&name);
            name
        };
        // A new load of the model waits until it is unloaded. This cannot deadlock: a loading
        // model's gate is held while the model is not in `used`, and only models in `used` are
        // picked here.
        let gate = self.gate(&name);
        let _held = gate.lock().await;
        let answer = self.ask(Method::DELETE, path_of(&name), None).await?;
        match answer.status {
            StatusCode::OK | StatusCode::NOT_FOUND => {
                self.state().used.remove(&name);
                tracing::info!(name, "model unloaded to make room");
                Ok(true)
            }
            _ => Err(Failure::model(&answer)),
        }
    }

    /// Whether the server no longer has the model because it was restarted.
    async fn is_gone(&self, target: &Target) -> Result<bool, Failure> {
        let answer = self.ask(Method::GET, path_of(&target.name), None).await?;
        Ok(answer.status == StatusCode::NOT_FOUND)
    }

    /// Adopts the models that the server has already loaded and whose names have the form used
    /// here.
    async fn adopt(&self) -> Result<(), Failure> {
        let mut path = "/models".to_owned();
        loop {
            let answer = self.ask(Method::GET, path, None).await?;
            if answer.status != StatusCode::OK {
                return Err(Failure::model(&answer));
            }
            let page: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
            let models = page["models"].as_array().map(Vec::as_slice).unwrap_or_default();
            let names = models.iter().filter_map(|model| model["modelName"].as_str());
            for name in names.filter(|name| is_hash(name)) {
                self.state().used.entry(name.to_owned()).or_insert(0);
            }
            match page["nextPageToken"].as_str() {
                Some(token) if is_token(token) => path = format!("/models?next_page_token={token}"),
                _ => return Ok(()),
            }
        }
    }

    async fn ask(
        &self,
        method: Method,
        path: String,
        body: Option<&Value>,
    ) -> Result<Answer, Failure> {
        let mut headers = HeaderMap::new();
        if body.is_some() {
            let json = axum::http::HeaderValue::from_static("application/json");
            headers.insert(axum::http::header::CONTENT_TYPE, json);
        }
        let body = body.map(|json| Bytes::from(json.to_string())).unwrap_or_default();
        let message = Message { method, path, headers, body };
        let sent = self.container.send(message, Instant::now() + CHANGE, LONGEST_ANSWER).await;
        sent.map_err(|trouble: Trouble| Failure::trouble(&trouble))
    }
}

fn path_of(name: &str) -> String {
    format!("/models/{name}")
}

/// Whether a model name has the form of the names generated here.
fn is_hash(name: &str) -> bool {
    name.len() == 32 && name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether a token can be used in a query without encoding.
fn is_token(token: &str) -> bool {
    token.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'~'))
}
