//! The outputs of the page's runs, in one temporary folder each; the latest are kept.
//!
//! Anyone who knows the identifier of a result may read it, so identifiers cannot be guessed.

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

/// Maximum number of results, including those of active runs.
const MOST_RESULTS: usize = 8;

/// Total size beyond which older results are deleted.
const MOST_BYTES: u64 = 2 << 30;

/// The results, oldest first.
pub(super) struct Results {
    most_bytes: u64,
    kept: Mutex<Kept>,
}

struct Kept {
    /// `None` once closed.
    folder: Option<TempDir>,
    results: Vec<Entry>,
}

struct Entry {
    id: String,
    /// `None` while the run is active.
    bytes: Option<u64>,
}

/// A run, whose outputs become a result when it ends.
pub(super) struct Run {
    id: String,
    uri: String,
    results: Arc<Results>,
}

impl Results {
    /// Creates an empty set of results.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] if no temporary folder can be created.
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

    /// Begins a run, deleting the oldest results to make room. Blocks.
    ///
    /// # Errors
    /// [`ErrorKind::Overloaded`] if too many runs are active, [`ErrorKind::Unavailable`] if the
    /// server is stopping.
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

    /// Records the outputs of a finished run. Blocks.
    fn ended(&self, id: &str) {
        let mut kept = self.lock();
        let bytes = kept.path(id).map_or(0, |folder| size(&folder));
        match kept.results.iter().position(|entry| entry.id == id) {
            // The run failed, or its outputs went elsewhere.
            Some(at) if bytes == 0 => drop(kept.results.remove(at)),
            Some(at) => kept.results[at].bytes = Some(bytes),
            None => {}
        }
        kept.make_room(MOST_RESULTS, self.most_bytes);
        kept.sweep();
    }

    /// Returns the path of a file in a result. Blocks.
    pub fn file(&self, id: &str, name: &str) -> Option<PathBuf> {
        let kept = self.lock();
        kept.results.iter().find(|entry| entry.id == id)?;
        let folder = kept.path(id)?;
        // Names are compared with directory entries and never become part of a path. Files still
        // being written have a name that begins with a dot.
        let mut files = files(&folder).into_iter();
        let found = files.find(|file| file.file_name().to_str() == Some(name))?;
        (!name.starts_with('.')).then(|| found.path())
    }

    /// Deletes all results.
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

    /// Removes the oldest finished results until at most `most` results with at most `most_bytes`
    /// bytes are left. The latest result is always kept.
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

    /// Deletes the folders of removed results, including any that cancelled work left behind.
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
    /// Returns the identifier of the result.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Returns the URI that the outputs go to.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// Keeps the run alive until the body of `response`, which drives the work, is dropped.
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
        // File access may block, so keep it off the threads that serve HTTP.
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(move || results.ended(&id))),
            Err(_) => results.ended(&id),
        }
    }
}

/// Lists the files of a run; outputs are in a subfolder per request.
fn files(folder: &Path) -> Vec<DirEntry> {
    let entries = |folder: &Path| fs::read_dir(folder).into_iter().flatten().flatten();
    let is_folder = |entry: &DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
    let requests = entries(folder).filter(is_folder).flat_map(|request| entries(&request.path()));
    let all = entries(folder).chain(requests);
    all.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file())).collect()
}

/// Returns the total size of a run's files, in bytes.
fn size(folder: &Path) -> u64 {
    files(folder).iter().filter_map(|file| file.metadata().ok()).map(|file| file.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(run: &Run) -> PathBuf {
        PathBuf::from(run.uri().strip_prefix("file://").unwrap())
    }

    /// Makes a run that leaves a file of `bytes` bytes.
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
        // A run that left nothing is no result.
        let failed = runs.pop().unwrap().id().to_owned();
        assert!(results.file(&failed, "a.dcm").is_none());
        // A folder written after the run ended is deleted with the next run.
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
