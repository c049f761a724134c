//! A watched client stream: it records received bytes, enforces a minimum pace for reading
//! responses, and lingers on close while the client still sends.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

use super::Connection;
use crate::config::Pace;

/// Time the client gets to stop sending after the response. Closing a connection with unread bytes
/// resets it, and the client may lose the response.
const LINGER: Duration = Duration::from_secs(1);

/// Maximum number of bytes read and discarded in that time.
const MOST_LINGERING: usize = 16 << 20;

pub(super) struct Watched {
    stream: TcpStream,
    connection: Arc<Connection>,
    pace: Pace,
    stall: Option<Stall>,
    linger: Option<Linger>,
    /// The client has closed its sending side.
    ended: bool,
}

/// A time window in which the client has to read some of the response.
struct Stall {
    timer: Pin<Box<Sleep>>,
    bytes: usize,
    /// The number of the request being answered.
    request: u64,
}

struct Linger {
    timer: Pin<Box<Sleep>>,
    bytes: usize,
}

impl Watched {
    pub fn new(stream: TcpStream, connection: Arc<Connection>, pace: Pace) -> Self {
        Self { stream, connection, pace, stall: None, linger: None, ended: false }
    }

    /// Checks the result of a write, and fails with a timeout if the client reads too slowly.
    fn judge(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        self.connection.told(written.is_pending());
        let request = self.connection.requests.load(Ordering::Relaxed);
        // A stall during an earlier response does not count against this one.
        self.stall.take_if(|stall| stall.request != request);
        match &written {
            Poll::Ready(Ok(bytes)) => {
                let pace = self.pace.bytes;
                self.stall.take_if(|stall| {
                    stall.bytes = stall.bytes.saturating_add(*bytes);
                    stall.bytes >= pace
                });
                written
            }
            Poll::Ready(Err(_)) => written,
            Poll::Pending => {
                let window = self.pace.window;
                let stall = self.stall.get_or_insert_with(|| Stall {
                    timer: Box::pin(sleep(window)),
                    bytes: 0,
                    request,
                });
                ready!(stall.timer.as_mut().poll(cx));
                tracing::warn!(code = "cancelled", "the client does not read its answer");
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
        }
    }

    /// Reads and discards what the client still sends, for a limited time.
    fn linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let linger =
            self.linger.get_or_insert_with(|| Linger { timer: Box::pin(sleep(LINGER)), bytes: 0 });
        let mut scratch = [0; 8 << 10];
        while !self.ended && linger.bytes < MOST_LINGERING {
            if linger.timer.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            let mut buffer = ReadBuf::new(&mut scratch);
            let read = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer));
            self.ended = read.is_err() || buffer.filled().is_empty();
            linger.bytes += buffer.filled().len();
        }
        Poll::Ready(())
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        if buffer.filled().len() > before {
            self.connection.heard();
        } else if buffer.remaining() > 0 {
            self.ended = true;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.judge(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.judge(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// Called once everything to write has been accepted. Resetting the stall here keeps a client
    /// that reads from being blamed for pauses in a response sent in parts.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stall = None;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.linger.is_none() {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        }
        self.linger(cx).map(Ok)
    }
}
