//! The outputs of the page's runs: a temporary folder for each, of which the latest are kept.
//!
//! Whoever knows the name of a result may read it, so that nobody can guess one.

use std::fs::{self, DirEntry, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::Body;
use axum::response::Response;
use futures::StreamExt;
use tempfile::TempDir;
use tokio::runtime::Handle;

use crate::error::{Error, ErrorKind, Result};

/// Results that are kept, with those being made.
const MOST_RESULTS: usize = 8;

/// Bytes beyond which older results give way to the latest.
const MOST_BYTES: u64 = 2 << 30;

/// The results, oldest first.
pub(super) struct Results {
    most_bytes: u64,
    kept: Mutex<Kept>,
}

struct Kept {
    /// `None` once it is closed.
    folder: Option<TempDir>,
    results: Vec<Entry>,
}

struct Entry {
    id: String,
    /// `None` while it is made.
    bytes: Option<u64>,
}

/// A run, whose outputs are a result once it has ended.
pub(super) struct Run {
    id: String,
    uri: String,
    results: Arc<Results>,
}

impl Results {
    /// None yet.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] where there is no temporary folder.
    pub fn open() -> Result<Self> {
        Self::within(MOST_BYTES)
    }

    fn within(most_bytes: u64) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("ahi-inference-ui-")
            .permissions(Permissions::from_mode(0o700))
            .tempdir()
            .map_err(|e| {
                Error::new(ErrorKind::Io, "--ui: no folder for results can be made; see TMPDIR")
                    .caused_by(e)
            })?;
        let kept = Mutex::new(Kept { folder: Some(folder), results: Vec::new() });
        Ok(Self { most_bytes, kept })
    }

    /// Begins a run; the oldest results make room for it. Blocks.
    ///
    /// # Errors
    /// [`ErrorKind::Overloaded`] where as many runs are under way as may be, [`ErrorKind::Unavailable`] once
    /// the server stops.
    pub fn begin(self: &Arc<Self>) -> Result<Run> {
        let id = uuid::Uuid::new_v4().simple().to_string();
        let mut kept = self.lock();
        let Some(folder) = kept.folder.as_ref().map(TempDir::path).map(Path::to_owned) else {
            return Err(Error::new(ErrorKind::Unavailable, "the server is about to stop"));
        };
        kept.make_room(MOST_RESULTS - 1, u64::MAX);
        if kept.results.len() >= MOST_RESULTS {
            let what =
                format!("{MOST_RESULTS} runs of the page are under way; wait for one of them");
            return Err(Error::new(ErrorKind::Overloaded, what));
        }
        kept.sweep();
        kept.results.push(Entry { id: id.clone(), bytes: None });
        let uri = format!("file://{}", folder.join(&id).display());
        Ok(Run { id, uri, results: Arc::clone(self) })
    }

    /// Counts what a run has left. Blocks.
    fn ended(&self, id: &str) {
        let mut kept = self.lock();
        let bytes = kept.path(id).map_or(0, |folder| size(&folder));
        match kept.results.iter().position(|entry| entry.id == id) {
            // It failed, or its outputs went elsewhere.
            Some(at) if bytes == 0 => drop(kept.results.remove(at)),
            Some(at) => kept.results[at].bytes = Some(bytes),
            None => {}
        }
        kept.make_room(MOST_RESULTS, self.most_bytes);
        kept.sweep();
    }

    /// A file of a result. Blocks.
    pub fn file(&self, id: &str, name: &str) -> Option<PathBuf> {
        let kept = self.lock();
        kept.results.iter().find(|entry| entry.id == id)?;
        let folder = kept.path(id)?;
        // Names are compared with what is there and never become part of a path. What is being written
        // begins with a dot.
        let mut files = files(&folder).into_iter();
        let found = files.find(|file| file.file_name().to_str() == Some(name))?;
        (!name.starts_with('.')).then(|| found.path())
    }

    /// Deletes everything.
    pub fn close(&self) {
        let mut kept = self.lock();
        kept.results.clear();
        if let Some(folder) = kept.folder.take()
            && let Err(error) = folder.close()
        {
            tracing::warn!(%error, "the folder of the page's results is left behind");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn path(&self, id: &str) -> Option<PathBuf> {
        Some(self.folder.as_ref()?.path().join(id))
    }

    /// Gives up the oldest results, as far as they are finished, until there are no more than that many and
    /// they have no more than that many bytes. The latest stays in any case.
    fn make_room(&mut self, most: usize, most_bytes: u64) {
        loop {
            let bytes: u64 = self.results.iter().filter_map(|entry| entry.bytes).sum();
            let oldest = self.results.iter().position(|entry| entry.bytes.is_some());
            let full = self.results.len() > most || (bytes > most_bytes && self.results.len() > 1);
            match oldest {
                Some(at) if full => drop(self.results.remove(at)),
                _ => return,
            }
        }
    }

    /// Deletes the folders of results that are given up, also those that work left behind which was cancelled.
    fn sweep(&self) {
        let Some(folder) = &self.folder else { return };
        let folders = fs::read_dir(folder.path()).into_iter().flatten().flatten();
        for there in folders {
            let known = self.results.iter().any(|entry| *entry.id == *there.file_name());
            if !known && let Err(error) = fs::remove_dir_all(there.path()) {
                tracing::warn!(%error, "a result of the page is left behind");
            }
        }
    }
}

impl Run {
    /// The name of its result.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Where its outputs go.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// Lasts as long as the body of `response`, in which the work is.
    pub fn with(self, response: Response) -> Response {
        response.map(|body| {
            let chunks = body.into_data_stream();
            Body::from_stream(chunks.inspect(move |_| {
                let _until_the_end = &self;
            }))
        })
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let (id, results) = (std::mem::take(&mut self.id), Arc::clone(&self.results));
        // Looking at files may take time that the threads of HTTP do not have.
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(move || results.ended(&id))),
            Err(_) => results.ended(&id),
        }
    }
}

/// The files of a run: its outputs are in the folder that its request has in that of the run.
fn files(folder: &Path) -> Vec<DirEntry> {
    let entries = |folder: &Path| fs::read_dir(folder).into_iter().flatten().flatten();
    let is_folder = |entry: &DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
    let requests = entries(folder).filter(is_folder).flat_map(|request| entries(&request.path()));
    let all = entries(folder).chain(requests);
    all.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file())).collect()
}

/// Bytes of the files of a run.
fn size(folder: &Path) -> u64 {
    files(folder).iter().filter_map(|file| file.metadata().ok()).map(|file| file.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(run: &Run) -> PathBuf {
        PathBuf::from(run.uri().strip_prefix("file://").unwrap())
    }

    /// A run that leaves a file of that many bytes.
    fn made(results: &Arc<Results>, bytes: usize) -> String {
        let run = results.begin().unwrap();
        fs::create_dir_all(folder(&run).join("request")).unwrap();
        fs::write(folder(&run).join("request/a.dcm"), vec![7; bytes]).unwrap();
        run.id().to_owned()
    }

    #[test]
    fn the_latest_results_are_kept_by_number_and_by_bytes() {
        let results = Arc::new(Results::within(100).unwrap());
        let ids: Vec<String> = (0..10).map(|_| made(&results, 1)).collect();
        let there = |id: &String| results.file(id, "a.dcm").is_some();
        assert_eq!(
            ids.iter().map(there).collect::<Vec<_>>(),
            [vec![false; 2], vec![true; 8]].concat()
        );
        let large = made(&results, 99);
        assert!(there(&large) && there(&ids[9]) && !there(&ids[8]));
        let larger = made(&results, 200);
        assert!(there(&larger) && !there(&large), "the latest stays, whatever its size");
        let root = folder(&results.begin().unwrap()).parent().unwrap().to_owned();
        assert_eq!(fs::read_dir(&root).unwrap().count(), 1, "nothing else is left");
        assert_eq!(fs::metadata(&root).unwrap().permissions().mode() & 0o777, 0o700);
        results.close();
        assert!(!root.exists() && !there(&larger));
        assert_eq!(results.begin().err().unwrap().kind(), ErrorKind::Unavailable);
    }

    #[test]
    fn runs_under_way_are_bounded_and_not_given_up() {
        let results = Arc::new(Results::open().unwrap());
        let mut runs: Vec<Run> = (0..MOST_RESULTS).map(|_| results.begin().unwrap()).collect();
        assert_eq!(results.begin().err().unwrap().kind(), ErrorKind::Overloaded);
        // One that left nothing is no result.
        let failed = runs.pop().unwrap().id().to_owned();
        assert!(results.file(&failed, "a.dcm").is_none());
        // What it may still write comes too late, and goes with the next run.
        let late = folder(&runs[0]).with_file_name(&failed);
        fs::create_dir(&late).unwrap();
        runs.push(results.begin().unwrap());
        assert!(!late.exists());
    }

    #[test]
    fn no_name_leads_out_of_a_result() {
        let results = Arc::new(Results::open().unwrap());
        let (one, other) = (made(&results, 1), made(&results, 1));
        assert!(results.file(&one, "a.dcm").is_some());
        let root = results.lock().path("").unwrap();
        fs::write(root.join(&one).join(".a.part"), "x").unwrap();
        fs::create_dir(root.join(&one).join("folder")).unwrap();
        let sideways = format!("../{other}/a.dcm");
        for name in ["", ".", "..", &sideways, "../../etc/passwd", ".a.part", "folder", "a.dcm\0"] {
            assert!(results.file(&one, name).is_none(), "{name}");
        }
        for id in ["", ".", "..", &format!("{one}/../{other}"), &one[1..]] {
            assert!(results.file(id, "a.dcm").is_none(), "{id}");
        }
    }
}
