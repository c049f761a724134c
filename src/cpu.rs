//! Where CPU work runs: rayon's pool, never the threads that answer requests.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::error::{Error, ErrorKind, Result};

/// Runs `work` on the CPU pool and waits for it without blocking. A panic in it is an
/// [`ErrorKind::Internal`] error; work that nobody waits for any more is not begun.
pub async fn run<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let span = tracing::Span::current();
    rayon::spawn(move || {
        if !sender.is_closed() {
            let result = span.in_scope(|| contained(work));
            // Nobody waits any more: the result is not wanted.
            let _ = sender.send(result);
        }
    });
    receiver.await.unwrap_or_else(|_| Err(Error::new(ErrorKind::Cancelled, "the work was dropped")))
}

/// Runs `work` here; a panic in it becomes an error that says where it was.
pub fn contained<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    // What a panic leaves half done is dropped with the closure.
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let what = panic
            .downcast_ref::<&str>()
            .map(|s| (*s).to_owned())
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "no message".to_owned());
        tracing::error!(panic = %what, "a computation panicked");
        Err(Error::internal("a computation failed unexpectedly; the server's log has the details"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_an_error() {
        let e = run::<()>(|| panic!("boom")).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Internal);
        assert_eq!(run(|| Ok(7)).await.unwrap(), 7);
    }
}
