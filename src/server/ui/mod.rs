//! The web page: selects data stores and image sets, runs requests with progress, and shows results
//! in a viewer.
//!
//! It is disabled unless `--ui` is given. Its requests are handled like those of `/invocations`;
//! their outputs go to a folder on the server, from which the page reads them. The page loads
//! everything from this server: its own files are embedded in the program, and the viewer is in a
//! folder next to it.

mod api;
mod assets;
mod files;
mod guard;
mod results;

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::response::{Redirect, Response};
use axum::routing::{get, post};
use axum::{Extension, http::HeaderValue};

pub(super) use guard::check;

use super::App;
use crate::config::UiSettings;
use crate::error::Result;
use crate::pipeline::browse::Browser;
use assets::Assets;
use results::Results;

/// Path of the page.
pub(super) const PATH: &str = "/ui/";

/// State of the page.
pub struct Ui {
    settings: UiSettings,
    browser: Browser,
    assets: Assets,
    results: Arc<Results>,
}

impl Ui {
    /// Opens the page with its settings; `browser` provides what it lists.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](crate::error::ErrorKind::Configuration) if the viewer is
    /// missing, and [`ErrorKind::Io`](crate::error::ErrorKind::Io) if no folder for results can be
    /// created.
    pub fn open(settings: UiSettings, browser: Browser) -> Result<Self> {
        let assets = Assets::find(settings.assets.as_deref())?;
        Ok(Self { settings, browser, assets, results: Arc::new(Results::open()?) })
    }

    /// Deletes all results; later runs are rejected.
    pub fn close(&self) {
        self.results.close();
    }
}

/// The routes of the page.
pub(super) fn routes(ui: Arc<Ui>) -> Router<Arc<App>> {
    Router::new()
        .route("/", get(home))
        .route("/ui", get(home))
        .route(PATH, get(files::index))
        .route("/ui/{file}", get(files::file))
        .route("/ui/api/datastores", get(api::datastores))
        .route("/ui/api/datastores/{id}/image-sets", get(api::image_sets))
        .route("/ui/api/runs", post(api::run))
        .route("/ui/api/results/{id}/{name}", get(api::result))
        .layer(middleware::from_fn(secured))
        .layer(Extension(ui))
}

async fn home() -> Redirect {
    Redirect::to(PATH)
}

/// What the page may load: nothing from other hosts, nothing inline. The viewer loads its font from
/// a `data:` URL.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HEADERS: [(&str, &str); 7] = [
    ("content-security-policy", CONTENT_SECURITY_POLICY),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("permissions-policy", "camera=(), geolocation=(), microphone=()"),
];

/// Adds the security headers to each response.
async fn secured(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry("cache-control").or_insert(HeaderValue::from_static("no-store"));
    response
}
