//! Taking connections, and attending to each until it ends.

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

/// The most of a request's headers, and of what is read ahead of its body. It is the memory that a
/// connection costs whose client sends headers without end.
const BUFFER: usize = 32 << 10;

/// Pause after an error of the system, which the next try would meet at once.
const PAUSE: Duration = Duration::from_millis(50);

/// Pause where connections that were told to leave are still there.
const BEHIND: Duration = Duration::from_millis(1);

/// Takes connections until `close` is cancelled, and returns once the last one has ended.
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
                // Dropping the stream closes it.
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

/// Whether an error of accepting says that the client is gone already.
fn is_of_the_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// Answers the requests of one connection until it ends, is overdue, or has to make room.
async fn attend(stream: TcpStream, entry: Entry, router: Router, close: CancellationToken) {
    // Answers leave in one or two writes; Nagle's algorithm would delay the second.
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
        // Headers are timed here, apart from connections that lie idle.
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
                // It may have moved on while this waited.
                Some((ending, phase)) if connection.phase().0 == phase => {
                    return connections.ended(ending);
                }
                _ => {}
            }
        }
    }
}

impl Entry {
    /// When to look at the connection again, and what it is guilty of if it has not moved on by then.
    fn due(&self) -> (Instant, Option<(Ending, Phase)>) {
        let settings = &self.connections.settings;
        let (phase, since) = self.connection.phase();
        let (limit, ending) = match phase {
            Phase::Heading => (since + settings.header_timeout, Ending::Headers),
            Phase::Idle => (since + settings.keep_alive_timeout, Ending::Idle),
            // What is worked on has limits of its own.
            Phase::Busy => return (Instant::now() + settings.header_timeout / 2, None),
        };
        // A request that begins in between is noticed well before its headers are due.
        let soon = Instant::now() + settings.header_timeout / 2;
        if limit <= soon { (limit, Some((ending, phase))) } else { (soon, None) }
    }
}

/// Hands requests to the router, and keeps the phase of their connection.
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

/// What of a body has to come before it has got on: clients that send byte by byte do not.
const PROGRESS: usize = 1 << 10;

/// The body of a request, which notes when it is waited for.
struct Asked {
    body: Incoming,
    connection: Arc<Connection>,
    /// How much of it came since it last got on.
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

/// The body of an answer. Once it is gone, the connection waits for its client again.
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
