//! Writes outputs as files in a folder. A file is either complete or absent.

use std::io::Write;
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};
use crate::request::Artifact;

/// Writes an output into `folder`, which is created if missing, and returns the file's URI.
///
/// # Errors
/// `Io`, naming the file and the folder.
pub(super) async fn write(artifact: &Artifact, folder: PathBuf) -> Result<String> {
    let (name, bytes) = (artifact.file_name.clone(), artifact.bytes.clone());
    tokio::task::spawn_blocking(move || replace_file(&folder, &name, &bytes))
        .await
        .map_err(|e| Error::internal("writing an output was aborted").caused_by(e))?
}

/// Writes to a temporary file and renames it once the bytes are on disk.
fn replace_file(folder: &Path, name: &str, bytes: &[u8]) -> Result<String> {
    let failed = |what: &str, e: std::io::Error| {
        let message = format!("cannot {what} {name} in {}: {}", folder.display(), e.kind());
        Error::new(ErrorKind::Io, message).caused_by(e)
    };
    std::fs::create_dir_all(folder).map_err(|e| failed("make the folder for", e))?;
    let folder_path = folder.canonicalize().map_err(|e| failed("resolve the folder for", e))?;
    let part = folder_path.join(format!(".{name}.{}.part", uuid::Uuid::new_v4().simple()));
    let path = folder_path.join(name);
    let written = std::fs::File::create_new(&part)
        .and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        })
        .and_then(|()| std::fs::rename(&part, &path));
    if let Err(e) = written {
        // The partial file is useless, and the first error is the one to report.
        let _ = std::fs::remove_file(&part);
        return Err(failed("write", e));
    }
    // The rename is durable only once the folder is synced.
    std::fs::File::open(&folder_path)
        .and_then(|folder| folder.sync_all())
        .map_err(|e| failed("write", e))?;
    Ok(format!("file://{}", path.display()))
}
