//! Serves the page's own files, embedded in the program, and the viewer's files.

use std::sync::Arc;

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::Path;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};

use super::Ui;
use super::assets::{LICENCE, VIEWER};
use crate::error::{Error, ErrorKind};
use crate::server::context::Context;
use crate::server::status;

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";
const TEXT: &str = "text/plain; charset=utf-8";

const INDEX: &str = include_str!("page/index.html");

/// Name, media type and content of every file except the document.
const FILES: [(&str, &str, &str); 10] = [
    ("page.css", CSS, include_str!("page/page.css")),
    ("icon.svg", SVG, include_str!("page/icon.svg")),
    ("app.js", JAVASCRIPT, include_str!("page/app.js")),
    ("browse.js", JAVASCRIPT, include_str!("page/browse.js")),
    ("choice.js", JAVASCRIPT, include_str!("page/choice.js")),
    ("images.js", JAVASCRIPT, include_str!("page/images.js")),
    ("dom.js", JAVASCRIPT, include_str!("page/dom.js")),
    ("result.js", JAVASCRIPT, include_str!("page/result.js")),
    ("run.js", JAVASCRIPT, include_str!("page/run.js")),
    ("viewer.js", JAVASCRIPT, include_str!("page/viewer.js")),
];

/// Returns the HTML document.
pub(super) async fn index() -> Response {
    answer(HTML, Body::from(INDEX))
}

/// Returns another file of the page.
pub(super) async fn file(
    Extension(ui): Extension<Arc<Ui>>,
    Extension(context): Extension<Context>,
    Path(name): Path<String>,
) -> Response {
    let of_viewer = |media, bytes: &Bytes| answer(media, Body::from(bytes.clone()));
    match name.as_str() {
        VIEWER => of_viewer(JAVASCRIPT, &ui.assets.viewer),
        LICENCE => of_viewer(TEXT, &ui.assets.licence),
        name => match FILES.iter().find(|(file, ..)| *file == name) {
            Some((_, media, content)) => answer(media, Body::from(*content)),
            None => {
                let error = Error::new(ErrorKind::RouteNotFound, "the page has no such file");
                status::respond(&error, &context.request_id)
            }
        },
    }
}

/// Files change with the program, so browsers must revalidate them each time.
fn answer(media: &'static str, body: Body) -> Response {
    ([(CONTENT_TYPE, media), (CACHE_CONTROL, "no-cache")], body).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_refers_to_files_that_are_there_and_to_no_other_host() {
        let own = [VIEWER, LICENCE];
        let there =
            |name: &str| own.contains(&name) || FILES.iter().any(|(file, ..)| *file == name);
        let quoted = |text: &str, before: &str| -> Vec<String> {
            let parts = text.split(before).skip(1);
            parts.filter_map(|part| Some(part.split_once('"')?.0.to_owned())).collect()
        };
        let mut referred = [quoted(INDEX, "href=\""), quoted(INDEX, "src=\"")].concat();
        referred.retain(|target| !target.starts_with('#'));
        assert!(referred.len() >= 3, "{referred:?}");
        for (_, _, content) in FILES.iter().filter(|(_, media, _)| *media == JAVASCRIPT) {
            referred.extend(quoted(content, "from \"./"));
            referred.extend(quoted(content, "import(\"./"));
        }
        for name in referred {
            assert!(there(&name), "{name}");
        }
        for (name, _, content) in FILES.iter().chain(&[("index.html", HTML, INDEX)]) {
            let elsewhere = content.replace("http://www.w3.org/2000/svg", "");
            assert!(!elsewhere.contains("://"), "{name}");
            for unsafe_way in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write"] {
                assert!(!content.contains(unsafe_way), "{name}: {unsafe_way}");
            }
        }
    }
}
