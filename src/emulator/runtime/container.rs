//! HTTP client for the server of an endpoint.

use std::error::Error;

use axum::http::{HeaderMap, Method, Request, Response, StatusCode};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
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

/// A complete response.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// A response whose body is still being received. Dropping it ends the request.
#[derive(Debug)]
pub struct Begun {
    response: Response<Incoming>,
    url: String,
}

/// Why there is no complete response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// The connection failed or broke.
    Unreachable(String),
    /// The deadline passed.
    Late,
    /// The response has more than this many bytes.
    TooLarge(usize),
}

/// A request to be sent.
#[derive(Debug, Clone)]
pub struct Message {
    /// The method.
    pub method: Method,
    /// The path and query.
    pub path: String,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Container {
    /// Creates a client of the server at `url`, which has no trailing slash.
    pub fn new(url: &str) -> Self {
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { url: url.to_owned(), client }
    }

    /// Sends a request and waits until `deadline` for a response of at most `limit` bytes.
    ///
    /// # Errors
    /// A [`Trouble`] if there is no complete response. Any status counts as a response.
    pub async fn send(
        &self,
        message: Message,
        deadline: Instant,
        limit: usize,
    ) -> Result<Answer, Trouble> {
        self.begin(message, deadline).await?.whole(deadline, limit).await
    }

    /// Sends a request and waits until `deadline` for the headers of the response.
    ///
    /// # Errors
    /// A [`Trouble`] if they do not arrive.
    pub async fn begin(&self, message: Message, deadline: Instant) -> Result<Begun, Trouble> {
        let begun = timeout_at(deadline, self.exchange(message)).await;
        begun.unwrap_or(Err(Trouble::Late))
    }

    async fn exchange(&self, message: Message) -> Result<Begun, Trouble> {
        let uri = format!("{}{}", self.url, message.path);
        let mut request = Request::builder()
            .method(message.method)
            .uri(uri)
            .body(Full::new(message.body))
            .map_err(|e| broken(&self.url, &e))?;
        *request.headers_mut() = message.headers;
        let response = self.client.request(request).await.map_err(|e| broken(&self.url, &e))?;
        Ok(Begun { response, url: self.url.clone() })
    }
}

impl Begun {
    /// Returns the status.
    pub fn status(&self) -> StatusCode {
        self.response.status()
    }

    /// Returns the headers.
    pub fn headers(&self) -> &HeaderMap {
        self.response.headers()
    }

    /// Waits until `deadline` for the rest of the body, at most `limit` bytes.
    ///
    /// # Errors
    /// A [`Trouble`] if it does not arrive completely.
    pub async fn whole(self, deadline: Instant, limit: usize) -> Result<Answer, Trouble> {
        let (parts, body) = self.response.into_parts();
        let body = timeout_at(deadline, Limited::new(body, limit).collect()).await;
        let body = body.map_err(|_| Trouble::Late)?.map_err(|e| {
            if e.is::<LengthLimitError>() {
                Trouble::TooLarge(limit)
            } else {
                broken(&self.url, &*e)
            }
        })?;
        Ok(Answer { status: parts.status, headers: parts.headers, body: body.to_bytes() })
    }

    /// Waits until `deadline` for the next bytes of the body; `None` at its end.
    ///
    /// # Errors
    /// A [`Trouble`] if they do not arrive.
    pub async fn next(&mut self, deadline: Instant) -> Result<Option<Bytes>, Trouble> {
        loop {
            let frame = timeout_at(deadline, self.response.body_mut().frame()).await;
            let Some(frame) = frame.map_err(|_| Trouble::Late)? else { return Ok(None) };
            let frame = frame.map_err(|e| broken(&self.url, &e))?;
            if let Ok(data) = frame.into_data()
                && !data.is_empty()
            {
                return Ok(Some(data));
            }
        }
    }
}

fn broken(url: &str, error: &(dyn Error + 'static)) -> Trouble {
    Trouble::Unreachable(format!("{url}: {}", crate::error::chain(error)))
}
