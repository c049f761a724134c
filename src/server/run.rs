//! Listening and graceful shutdown.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::{App, connections, router};
use crate::error::{Error, ErrorKind, Result};
use crate::scheduler::Drained;

/// Backlog of the listening socket: far larger than the request queue, so that excess requests get
/// an error response instead of a timeout.
const BACKLOG: u32 = 1024;

/// Maximum time to flush responses once all work has ended: the platform kills the process 30 s
/// after SIGTERM, and draining takes up to 25 s of that.
const FLUSH: Duration = Duration::from_secs(3);

/// The signals that stop the server: SIGTERM from the platform, SIGINT from a terminal.
pub struct Termination {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Termination {
    /// Installs the signal handlers.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] if the system refuses.
    pub fn new() -> Result<Self> {
        let catch = |kind| {
            signal(kind).map_err(|e| Error::internal("signals cannot be caught").caused_by(e))
        };
        Ok(Self {
            terminate: catch(SignalKind::terminate())?,
            interrupt: catch(SignalKind::interrupt())?,
        })
    }

    /// Resolves at the first signal.
    pub async fn received(mut self) {
        let name = tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        };
        tracing::info!(signal = name, "told to stop");
    }
}

/// Listens on `address`.
///
/// # Errors
/// [`ErrorKind::Configuration`] if the address cannot be used.
pub fn bind(address: SocketAddr) -> Result<TcpListener> {
    let listen = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    listen().map_err(|e| {
        Error::new(ErrorKind::Configuration, format!("cannot listen at {address}: {e}"))
            .caused_by(e)
    })
}

/// Serves until `shutdown` resolves, then stops gracefully: `/ping` returns 503, new requests are
/// rejected with an error, admitted requests get `drain_timeout` to finish, the rest is cancelled,
/// and pending responses are flushed.
///
/// # Errors
/// [`ErrorKind::Io`] if the listener fails.
pub async fn run(
    listener: TcpListener,
    app: Arc<App>,
    drain_timeout: Duration,
    shutdown: impl Future<Output = ()>,
) -> Result<Drained> {
    let close = CancellationToken::new();
    let open = Arc::clone(&app.connections);
    let serving = connections::serve(listener, router(Arc::clone(&app)), open, close.clone());
    let mut serving = tokio::spawn(serving);
    tokio::select! {
        ended = &mut serving => {
            let error = Error::new(ErrorKind::Io, "the listener failed");
            return Err(match ended {
                Ok(()) => error,
                Err(cause) => error.caused_by(cause),
            });
        }
        () = shutdown => {}
    }

    let started = Instant::now();
    app.readiness.drain();
    let in_flight = app.scheduler.in_flight();
    tracing::info!(in_flight, "draining");
    let drained = app.scheduler.drain(drain_timeout).await;
    close.cancel();
    let flushed = timeout(FLUSH, serving).await.is_ok();
    let seconds = started.elapsed().as_secs_f64();
    match drained {
        Drained::Finished => tracing::info!(seconds, flushed, "stopped"),
        Drained::Cancelled(requests) => {
            tracing::error!(seconds, flushed, requests, "stopped; requests were cancelled");
        }
    }
    Ok(drained)
}
