//! The SageMaker runtime in front of local servers: `InvokeEndpoint`,
//! `InvokeEndpointWithResponseStream` and `InvokeEndpointAsync` behave as on the platform, so that
//! clients of an endpoint work unchanged.

mod archive;
mod container;
mod event_stream;
mod failure;
mod invoke;
mod invoke_async;
mod invoke_stream;
mod models;
mod queue;
pub mod settings;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::post;

use container::Container;
use failure::Failure;
use models::Models;
use queue::Queue;
use settings::{EndpointKind, EndpointSettings, Endpoints, Limits};

use super::objects::Objects;

const ATTRIBUTES: &str = "x-amzn-sagemaker-custom-attributes";
const TARGET_MODEL: &str = "x-amzn-sagemaker-target-model";
const INFERENCE_ID: &str = "x-amzn-sagemaker-inference-id";

/// Header that names the production variant that responded.
const VARIANT: &str = "x-amzn-invoked-production-variant";

/// Headers and their maximum lengths.
const LONGEST: [(&str, usize); 3] = [(ATTRIBUTES, 1024), (TARGET_MODEL, 1024), (INFERENCE_ID, 64)];

/// State shared by the handlers.
struct Runtime {
    endpoints: HashMap<String, Endpoint>,
    limits: Limits,
    allow_anonymous: bool,
}

/// An endpoint.
struct Endpoint {
    container: Container,
    kind: Kind,
}

/// How the endpoint is called, with its state.
enum Kind {
    RealTime,
    MultiModel(Arc<Models>),
    Asynchronous(Arc<Queue>),
}

/// Builds the routes over `endpoints`. S3 URIs refer to `objects`; models are unpacked into
/// `folder`.
pub fn router(
    endpoints: Endpoints,
    objects: &Objects,
    folder: &Path,
    limits: Limits,
    allow_anonymous: bool,
) -> Router {
    let endpoints = endpoints
        .into_iter()
        .map(|(name, settings)| {
            let endpoint = Endpoint::new(settings, objects, &folder.join(&name));
            (name, endpoint)
        })
        .collect();
    let runtime = Arc::new(Runtime { endpoints, limits, allow_anonymous });
    Router::new()
        .route("/endpoints/{name}/invocations", post(invoke::invoke))
        .route("/endpoints/{name}/invocations-response-stream", post(invoke_stream::invoke))
        .route("/endpoints/{name}/async-invocations", post(invoke_async::invoke))
        .fallback(unsupported)
        .layer(middleware::from_fn_with_state(Arc::clone(&runtime), signed))
        .with_state(runtime)
}

impl Endpoint {
    fn new(settings: EndpointSettings, objects: &Objects, folder: &Path) -> Self {
        let container = Container::new(&settings.url);
        let (server, objects) = (container.clone(), objects.clone());
        let kind = match settings.kind {
            EndpointKind::RealTime => Kind::RealTime,
            EndpointKind::MultiModel { prefix } => {
                Kind::MultiModel(Arc::new(Models::new(server, prefix, folder.to_owned(), objects)))
            }
            EndpointKind::Asynchronous { output, failure, concurrency } => Kind::Asynchronous(
                Arc::new(Queue::new(server, objects, output, failure, concurrency)),
            ),
        };
        Self { container, kind }
    }
}

impl Runtime {
    fn endpoint(&self, name: &str) -> Result<&Endpoint, Failure> {
        self.endpoints.get(name).ok_or_else(|| {
            let mut names: Vec<&str> = self.endpoints.keys().map(String::as_str).collect();
            names.sort_unstable();
            let names = names.join(", ");
            Failure::validation(format!("Endpoint {name} of account not found; there are {names}"))
        })
    }
}

/// Rejects unsigned requests.
async fn signed(State(runtime): State<Arc<Runtime>>, request: Request, next: Next) -> Response {
    if runtime.allow_anonymous || request.headers().contains_key(header::AUTHORIZATION) {
        return next.run(request).await;
    }
    Failure::unsigned().into_response()
}

async fn unsupported(request: Request) -> Failure {
    Failure::validation(format!(
        "{} {} is not an operation of the local SageMaker runtime",
        request.method(),
        request.uri().path()
    ))
}

/// Returns the value of a header if it is text.
fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Copies a header, if present, to another name.
fn copy(from: &HeaderMap, name: &str, to: &mut HeaderMap, as_name: HeaderName) {
    if let Some(value) = from.get(name) {
        to.insert(as_name, value.clone());
    }
}

/// Checks that the headers of a call are text within SageMaker's length limits.
fn check_lengths(headers: &HeaderMap) -> Result<(), Failure> {
    for (name, most) in LONGEST {
        let Some(value) = headers.get(name) else { continue };
        if !value.to_str().is_ok_and(|text| !text.is_empty() && text.len() <= most) {
            return Err(Failure::validation(format!(
                "{name} must be 1 to {most} ASCII characters"
            )));
        }
    }
    Ok(())
}
