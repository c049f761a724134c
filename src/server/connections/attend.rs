//! Accepts connections and serves each one until it ends.

use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{Request, Response};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::stream::Watched;
use super::{Connection, Connections, Ending, Entry, Phase, Reserved};

/// Maximum size of the request headers and of the body bytes read ahead. This bounds the memory
/// used by a connection whose client sends endless headers.
const BUFFER: usize = 32 << 10;

/// Pause after a system error of `accept`, which an immediate retry would hit again.
const PAUSE: Duration = Duration::from_millis(50);

/// Pause while evicted connections have not closed yet.
const BEHIND: Duration = Duration::from_millis(1);

/// Accepts connections until `close` is cancelled, and returns once the last one has ended.
pub(in crate::server) async fn serve(
    listener: TcpListener,
    router: Router,
    connections: Arc<Connections>,
    close: CancellationToken,
) {
    let open = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = close.cancelled() => break,
        };
        match accepted {
            Ok((stream, _)) => {
                // Dropping the stream closes the connection.
                let Some(entry) = connections.admit() else { continue };
                open.spawn(attend(stream, entry, router.clone(), close.clone()));
                while connections.is_behind() {
                    sleep(BEHIND).await;
                }
            }
            Err(error) if is_of_the_connection(&error) => {}
            Err(error) => {
                tracing::error!(%error, "a connection cannot be accepted");
                connections.make_room();
                sleep(PAUSE).await;
            }
        }
    }
    drop(listener);
    open.close();
    open.wait().await;
}

/// Whether an error of `accept` means that the client is already gone.
fn is_of_the_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// Serves the requests of one connection until it ends, times out or is evicted.
async fn attend(stream: TcpStream, entry: Entry, router: Router, close: CancellationToken) {
    // Responses take one or two writes; Nagle's algorithm would delay the second.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY cannot be set");
    }
    let connections = &entry.connections;
    let connection = &entry.connection;
    let watched = Watched::new(stream, Arc::clone(connection), connections.settings.pace);
    let answering = Answering {
        router: TowerToHyperService::new(router),
        connections: Arc::clone(connections),
        connection: Arc::clone(connection),
    };
    let served = http1::Builder::new()
        // The header timeout is enforced below, separately from the one for idle connections.
        .header_read_timeout(None)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(watched), answering);
    let mut served = pin!(served);
    let mut closing = false;
    loop {
        let (due, overdue) = entry.due();
        tokio::select! {
            biased;
            ended = served.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a connection broke off");
                }
                return;
            }
            () = connection.evicted.notified() => return connections.ended(Ending::Bound),
            () = close.cancelled(), if !closing => {
                closing = true;
                if connection.phase().0 == Phase::Heading {
                    return;
                }
                served.as_mut().graceful_shutdown();
            }
            () = sleep_until(due) => match overdue {
                // The phase may have changed in the meantime.
                Some((ending, phase)) if connection.phase().0 == phase => {
                    return connections.ended(ending);
                }
                _ => {}
            }
        }
    }
}

impl Entry {
    /// Returns when to check the connection again, and the timeout it has hit if its phase has not
    /// changed by then.
    fn due(&self) -> (Instant, Option<(Ending, Phase)>) {
        let settings = &self.connections.settings;
        let (phase, since) = self.connection.phase();
        let (limit, ending) = match phase {
            Phase::Heading => (since + settings.header_timeout, Ending::Headers),
            Phase::Idle => (since + settings.keep_alive_timeout, Ending::Idle),
            // A request in progress has limits of its own.
            Phase::Busy => return (Instant::now() + settings.header_timeout / 2, None),
        };
        // Checks early enough to notice a request that begins in between well before its headers
        // are due.
        let soon = Instant::now() + settings.header_timeout / 2;
        if limit <= soon { (limit, Some((ending, phase))) } else { (soon, None) }
    }
}

/// Passes requests to the router and tracks the phase of their connection.
struct Answering {
    router: TowerToHyperService<Router>,
    connections: Arc<Connections>,
    connection: Arc<Connection>,
}

impl Service<Request<Incoming>> for Answering {
    type Response = Response<Answer>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.connection.enter(Phase::Busy);
        self.connection.requests.fetch_add(1, Ordering::Relaxed);
        let connection = Arc::clone(&self.connection);
        let mut request = request.map(|body| Body::new(Asked { body, connection, bytes: 0 }));
        if self.connections.is_in_reserve(&self.connection) {
            request.extensions_mut().insert(Reserved { most: self.connections.most() });
        }
        let answer = self.router.call(request);
        let answered = Answered(Arc::clone(&self.connection));
        Box::pin(async move {
            let response = answer.await?;
            Ok(response.map(|body| Answer { body, _answered: answered }))
        })
    }
}

/// Body bytes that count as progress, so that a client sending byte by byte makes none.
const PROGRESS: usize = 1 << 10;

/// A request body that records when the server waits for it.
struct Asked {
    body: Incoming,
    connection: Arc<Connection>,
    /// Bytes received since progress was last recorded.
    bytes: usize,
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.connection.has_body();
    }
}

impl hyper::body::Body for Asked {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        match &polled {
            Poll::Pending => self.connection.awaits_body(),
            Poll::Ready(Some(Ok(frame))) => {
                self.bytes += frame.data_ref().map_or(0, Bytes::len);
                if self.bytes >= PROGRESS {
                    self.bytes = 0;
                    self.connection.has_body();
                }
            }
            Poll::Ready(_) => self.connection.has_body(),
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A response body. When it is dropped, the connection waits for its client again.
struct Answer {
    body: Body,
    _answered: Answered,
}

struct Answered(Arc<Connection>);

impl Drop for Answered {
    fn drop(&mut self) {
        self.0.enter(Phase::Idle);
    }
}

impl hyper::body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
