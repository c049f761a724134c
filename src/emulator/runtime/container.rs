//! Requests to the server of an endpoint.

use axum::http::{HeaderMap, Method, Request, StatusCode};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::time::{Instant, timeout_at};

/// The server of an endpoint.
#[derive(Debug, Clone)]
pub struct Container {
    url: String,
    client: Client<HttpConnector, Full<Bytes>>,
}

/// What it answered.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// Nobody is there, or the connection broke.
    Unreachable(String),
    /// None came in time.
    Late,
    /// It has more than so many bytes.
    TooLarge(usize),
}

/// A request to be sent.
#[derive(Debug, Clone)]
pub struct Message {
    /// The method.
    pub method: Method,
    /// Path and query.
    pub path: String,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Container {
    /// The server at `url`, which has no slash at its end.
    pub fn new(url: &str) -> Self {
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { url: url.to_owned(), client }
    }

    /// Sends a request and waits until `deadline` for an answer of at most `limit` bytes.
    ///
    /// # Errors
    /// A [`Trouble`] where there is no whole answer; any status is an answer.
    pub async fn send(
        &self,
        message: Message,
        deadline: Instant,
        limit: usize,
    ) -> Result<Answer, Trouble> {
        let answer = timeout_at(deadline, self.exchange(message, limit)).await;
        answer.unwrap_or(Err(Trouble::Late))
    }

    async fn exchange(&self, message: Message, limit: usize) -> Result<Answer, Trouble> {
        let broken = |e: &(dyn std::error::Error + 'static)| {
            Trouble::Unreachable(format!("{}: {}", self.url, crate::error::chain(e)))
        };
        let uri = format!("{}{}", self.url, message.path);
        let mut request = Request::builder()
            .method(message.method)
            .uri(uri)
            .body(Full::new(message.body))
            .map_err(|e| broken(&e))?;
        *request.headers_mut() = message.headers;
        let response = self.client.request(request).await.map_err(|e| broken(&e))?;
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, limit).collect().await.map_err(|e| {
            if e.is::<LengthLimitError>() { Trouble::TooLarge(limit) } else { broken(&*e) }
        })?;
        Ok(Answer { status: parts.status, headers: parts.headers, body: body.to_bytes() })
    }
}
