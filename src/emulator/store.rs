//! Data stores and image sets in a folder.
//!
//! ```text
//! FOLDER/DATASTORE/datastore.json
//! FOLDER/DATASTORE/tags.json                    its tags as a resource
//! FOLDER/DATASTORE/IMAGE_SET/image_set.json     state and versions
//! FOLDER/DATASTORE/IMAGE_SET/metadata.json.gz   the metadata document of version 1
//! FOLDER/DATASTORE/IMAGE_SET/metadata.N.json.gz the same of version N
//! FOLDER/DATASTORE/IMAGE_SET/frames/FRAME       one encoded frame each
//! FOLDER/DATASTORE/IMAGE_SET/originals/NAME     instances as they came
//! FOLDER/DATASTORE/IMAGE_SET/tags.json          its tags as a resource
//! FOLDER/DATASTORE/jobs/JOB/job.json            import jobs
//! FOLDER/s3/BUCKET/KEY                          objects of the S3 beside it
//! FOLDER/models/ENDPOINT/NAME/model             models of multi-model endpoints, unpacked
//! ```
//!
//! Nothing is cached, so that image sets imported by another process are visible immediately. Files
//! are written under a temporary name and renamed. `image_set.json` is written last: an interrupted
//! import leaves no image set, and an interrupted change leaves the previous version.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::model::now;
pub use super::model::{Datastore, ImageSet, StorageFormat};
use crate::error::{Error, ErrorKind, Result};
use crate::memory::Shelf;

/// Folder of the original files of an image set.
const ORIGINALS: &str = "originals";

/// A folder of data stores.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
    /// Held while image sets are changed.
    writing: Arc<Mutex<()>>,
}

/// Creates a new identifier in AHI's format.
pub fn new_id() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

/// Whether `id` has the format of an identifier; nothing else becomes part of a path.
pub fn is_id(id: &str) -> bool {
    id.len() == 32 && id.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase())
}

impl Store {
    /// Opens the store in `root`, which is created if missing.
    pub fn open(root: &Path) -> Result<Self> {
        std::fs::create_dir_all(root).map_err(|e| io(root, e))?;
        Ok(Self { root: root.to_owned(), writing: Arc::default() })
    }

    /// Acquires the lock for changing image sets; hold it from reading an image set to writing it.
    pub(super) fn writing(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the folder of the local S3's buckets.
    pub fn s3_folder(&self) -> PathBuf {
        self.root.join("s3")
    }

    /// Returns the folder of the models unpacked for servers.
    pub fn models_folder(&self) -> PathBuf {
        self.root.join("models")
    }

    /// Returns the folder of a data store's import jobs.
    pub(super) fn job_folder(&self, datastore_id: &str) -> PathBuf {
        self.root.join(datastore_id).join("jobs")
    }

    /// Creates a data store.
    pub fn create_datastore(&self, name: &str, format: StorageFormat) -> Result<Datastore> {
        let datastore = Datastore {
            datastore_id: new_id(),
            datastore_name: name.to_owned(),
            datastore_status: "ACTIVE".to_owned(),
            lossless_storage_format: format,
            created_at: now(),
            updated_at: now(),
        };
        self.save_datastore(&datastore)?;
        Ok(datastore)
    }

    /// Writes a data store's description.
    pub fn save_datastore(&self, datastore: &Datastore) -> Result<()> {
        let folder = self.root.join(&datastore.datastore_id);
        write_json(&folder.join("datastore.json"), datastore)
    }

    /// Returns the data store with this id.
    pub fn datastore(&self, id: &str) -> Result<Option<Datastore>> {
        if !is_id(id) {
            return Ok(None);
        }
        read_json(&self.root.join(id).join("datastore.json"))
    }

    /// Returns all data stores, oldest first.
    pub fn datastores(&self) -> Result<Vec<Datastore>> {
        let mut all = Vec::new();
        for id in ids_in(&self.root)? {
            all.extend(self.datastore(&id)?);
        }
        all.sort_by(|a, b| {
            a.created_at.total_cmp(&b.created_at).then(a.datastore_id.cmp(&b.datastore_id))
        });
        Ok(all)
    }

    /// Returns the image set with this id.
    pub fn image_set(&self, datastore_id: &str, id: &str) -> Result<Option<ImageSet>> {
        if !is_id(datastore_id) || !is_id(id) {
            return Ok(None);
        }
        read_json(&self.image_set_folder(datastore_id, id).join("image_set.json"))
    }

    /// Returns all image sets of a data store, oldest first.
    pub fn image_sets(&self, datastore_id: &str) -> Result<Vec<ImageSet>> {
        let mut all = Vec::new();
        for id in ids_in(&self.root.join(datastore_id))? {
            all.extend(self.image_set(datastore_id, &id)?);
        }
        all.sort_by(|a, b| {
            a.created_at.total_cmp(&b.created_at).then(a.image_set_id.cmp(&b.image_set_id))
        });
        Ok(all)
    }

    /// Writes an image set's description. For a new image set, write its frames and metadata first.
    pub fn save_image_set(&self, datastore_id: &str, image_set: &ImageSet) -> Result<()> {
        let folder = self.image_set_folder(datastore_id, &image_set.image_set_id);
        write_json(&folder.join("image_set.json"), image_set)
    }

    /// Writes the gzip-compressed metadata document of an image set version.
    pub fn save_metadata(
        &self,
        datastore_id: &str,
        id: &str,
        version: u32,
        gzip: &[u8],
    ) -> Result<()> {
        write(&self.metadata_path(datastore_id, id, version), gzip)
    }

    /// Returns the gzip-compressed metadata document of an image set version.
    pub fn metadata(&self, datastore_id: &str, id: &str, version: u32) -> Result<Option<Vec<u8>>> {
        read(&self.metadata_path(datastore_id, id, version))
    }

    /// Writes a frame.
    pub fn save_frame(&self, datastore_id: &str, id: &str, frame: &str, data: &[u8]) -> Result<()> {
        write(&self.frame_path(datastore_id, id, frame), data)
    }

    /// Returns a frame.
    pub fn frame(&self, datastore_id: &str, id: &str, frame: &str) -> Result<Option<Bytes>> {
        if !is_id(frame) {
            return Ok(None);
        }
        let path = self.frame_path(datastore_id, id, frame);
        there(&path, read_passing(&path))
    }

    /// Writes the original of an instance; its name consists of letters, digits and a period.
    pub(super) fn save_original(
        &self,
        datastore_id: &str,
        id: &str,
        name: &str,
        data: &[u8],
    ) -> Result<()> {
        write(&self.image_set_folder(datastore_id, id).join(ORIGINALS).join(name), data)
    }

    /// Returns the original of an instance.
    pub(super) fn original(
        &self,
        datastore_id: &str,
        id: &str,
        name: &str,
    ) -> Result<Option<Vec<u8>>> {
        read(&self.image_set_folder(datastore_id, id).join(ORIGINALS).join(name))
    }

    /// Shares the frame `frame` of the image set `from` with `to`. They can share its file, because
    /// frame files never change.
    pub(super) fn share_frame(
        &self,
        datastore_id: &str,
        from: &str,
        to: &str,
        frame: &str,
    ) -> Result<()> {
        if !is_id(frame) {
            return Err(Error::new(
                ErrorKind::Io,
                "an image set has a frame without an identifier",
            ));
        }
        share(
            &self.frame_path(datastore_id, from, frame),
            &self.frame_path(datastore_id, to, frame),
        )
    }

    /// Shares the original of an instance like [`share_frame`](Self::share_frame), if there is one.
    pub(super) fn share_original(
        &self,
        datastore_id: &str,
        from: &str,
        to: &str,
        name: &str,
    ) -> Result<()> {
        let path = |id| self.image_set_folder(datastore_id, id).join(ORIGINALS).join(name);
        if !path(from).is_file() {
            return Ok(());
        }
        share(&path(from), &path(to))
    }

    /// Returns the resource tags of a data store, or of an image set in it.
    pub(super) fn resource_tags(
        &self,
        datastore_id: &str,
        image_set: Option<&str>,
    ) -> Result<BTreeMap<String, String>> {
        Ok(read_json(&self.tags_path(datastore_id, image_set))?.unwrap_or_default())
    }

    /// Writes the resource tags of a data store, or of an image set in it.
    pub(super) fn save_resource_tags(
        &self,
        datastore_id: &str,
        image_set: Option<&str>,
        tags: &BTreeMap<String, String>,
    ) -> Result<()> {
        write_json(&self.tags_path(datastore_id, image_set), tags)
    }

    /// Removes all content of a deleted image set; its description stays.
    pub fn remove_content(&self, datastore_id: &str, id: &str) -> Result<()> {
        let folder = self.image_set_folder(datastore_id, id);
        let entries = std::fs::read_dir(&folder).map_err(|e| io(&folder, e))?;
        for entry in entries {
            let entry = entry.map_err(|e| io(&folder, e))?;
            let path = entry.path();
            if entry.file_name() == "image_set.json" {
                continue;
            }
            let removed = if path.is_dir() {
                std::fs::remove_dir_all(&path)
            } else {
                std::fs::remove_file(&path)
            };
            match removed {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(io(&path, e)),
                _ => {}
            }
        }
        Ok(())
    }

    fn tags_path(&self, datastore_id: &str, image_set: Option<&str>) -> PathBuf {
        let folder = match image_set {
            Some(id) => self.image_set_folder(datastore_id, id),
            None => self.root.join(datastore_id),
        };
        folder.join("tags.json")
    }

    fn metadata_path(&self, datastore_id: &str, id: &str, version: u32) -> PathBuf {
        let name = match version {
            1 => "metadata.json.gz".to_owned(),
            version => format!("metadata.{version}.json.gz"),
        };
        self.image_set_folder(datastore_id, id).join(name)
    }

    fn image_set_folder(&self, datastore_id: &str, id: &str) -> PathBuf {
        self.root.join(datastore_id).join(id)
    }

    fn frame_path(&self, datastore_id: &str, id: &str, frame: &str) -> PathBuf {
        self.image_set_folder(datastore_id, id).join("frames").join(frame)
    }
}

fn io(path: &Path, e: std::io::Error) -> Error {
    Error::new(ErrorKind::Io, format!("{} cannot be read or written", path.display())).caused_by(e)
}

/// Returns the names in a folder that are identifiers; empty if the folder does not exist.
pub(super) fn ids_in(folder: &Path) -> Result<Vec<String>> {
    match std::fs::read_dir(folder) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(io(folder, e)),
        Ok(entries) => Ok(entries
            .filter_map(|e| e.ok()?.file_name().into_string().ok())
            .filter(|name| is_id(name))
            .collect()),
    }
}

fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    there(path, std::fs::read(path))
}

/// Maps a missing file to `None`.
fn there<T>(path: &Path, read: std::io::Result<T>) -> Result<Option<T>> {
    match read {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(io(path, e)),
    }
}

/// Buffers of sent frames, reused for the next ones.
static SENT: Shelf<u8> = Shelf::new(16 << 20);

/// Reads a file into a reusable buffer, which is returned to the shelf once it has been sent.
fn read_passing(path: &Path) -> std::io::Result<Bytes> {
    let mut file = std::fs::File::open(path)?;
    let length = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    let mut bytes = SENT.room(length);
    file.read_to_end(&mut bytes)?;
    Ok(SENT.lend(bytes))
}

pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let Some(bytes) = read(path)? else { return Ok(None) };
    serde_json::from_slice(&bytes).map(Some).map_err(|e| {
        Error::new(ErrorKind::Io, format!("{} is damaged", path.display())).caused_by(e)
    })
}

pub(super) fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let bytes = serde_json::to_vec_pretty(value)
        .map_err(|e| Error::internal("a description cannot be written").caused_by(e))?;
    write(path, &bytes)
}

/// Hard-links a file, or copies it if the file system does not support links.
fn share(from: &Path, to: &Path) -> Result<()> {
    let folder = to.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(|e| io(folder, e))?;
    if to.is_file() || std::fs::hard_link(from, to).is_ok() {
        return Ok(());
    }
    std::fs::copy(from, to).map(drop).map_err(|e| io(from, e))
}

/// Writes to a temporary file, then renames it.
fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(|e| io(folder, e))?;
    let temporary = folder.join(format!(".{}", new_id()));
    std::fs::write(&temporary, bytes).and_then(|()| std::fs::rename(&temporary, path)).map_err(
        |e| {
            // The file may never have been created.
            let _ = std::fs::remove_file(&temporary);
            io(path, e)
        },
    )
}
