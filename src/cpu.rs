//! Runs CPU-bound work on rayon's pool, never on the threads that serve requests; and what the system says of the
//! processor.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use crate::error::{Error, ErrorKind, Result};

/// How much nicer the pool is than the threads of networks. A network's threads wait for each other at every
/// operator, so one that is preempted stops all: the work of other requests gives way to it.
const NICER: i32 = 5;

/// Starts the CPU pool with `threads` threads. Without this call, the first use starts it with one per core.
///
/// # Errors
/// [`ErrorKind::Configuration`] if the threads cannot be started, or the pool runs already.
pub fn start(threads: usize) -> Result<()> {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads.max(1))
        .thread_name(|index| format!("cpu-{index}"))
        .start_handler(|index| match rustix::process::nice(NICER) {
            Ok(_) => {}
            // It costs speed under load and nothing else.
            Err(error) => tracing::debug!(index, %error, "the priority of a thread stays as it is"),
        });
    pool.build_global().map_err(|e| {
        let problem = format!("{threads} threads for computing cannot be started (CPU_THREADS)");
        Error::new(ErrorKind::Configuration, problem).caused_by(e)
    })
}

/// Runs `work` on the CPU pool and waits for it asynchronously. A panic becomes an
/// [`ErrorKind::Internal`] error. Work whose caller has gone away is not started.
pub async fn run<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let span = tracing::Span::current();
    rayon::spawn(move || {
        if !sender.is_closed() {
            let result = span.in_scope(|| contained(work));
            // The caller may have gone away; its result is dropped.
            let _ = sender.send(result);
        }
    });
    receiver.await.unwrap_or_else(|_| Err(Error::new(ErrorKind::Cancelled, "the work was dropped")))
}

/// Runs `work`, which consists of many short parallel steps, on the CPU pool, and blocks until it is done. Started
/// from another thread, every step would wake the pool and wait for it.
///
/// `work` must not block: it keeps a thread of the pool.
pub fn inside<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let span = tracing::Span::current();
    rayon::scope(|_| span.in_scope(work))
}

/// Runs `work` on this thread; a panic becomes an [`ErrorKind::Internal`] error.
pub fn contained<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    // Unwind safe: state left half done by a panic is dropped with the closure.
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

/// Returns a field of the first processor from the `proc/cpuinfo` below `root`.
pub fn field(root: &Path, name: &str) -> Option<String> {
    let info = fs::read_to_string(root.join("proc/cpuinfo")).ok()?;
    let mut fields =
        info.lines().take_while(|line| !line.is_empty()).filter_map(|line| line.split_once(':'));
    let (_, value) = fields.find(|(field, _)| field.trim() == name)?;
    Some(value.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_the_first_processors() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(field(root.path(), "flags"), None);
        fs::create_dir(root.path().join("proc")).unwrap();
        let text = "processor\t: 0\nflags\t\t: a b\n\nprocessor\t: 1\nflags : c\nonly : second\n";
        fs::write(root.path().join("proc/cpuinfo"), text).unwrap();
        assert_eq!(field(root.path(), "flags").as_deref(), Some("a b"));
        assert_eq!(field(root.path(), "only"), None);
    }

    #[tokio::test]
    async fn a_panic_is_an_error() {
        let e = run::<()>(|| panic!("boom")).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Internal);
        assert_eq!(run(|| Ok(7)).await.unwrap(), 7);
    }
}
