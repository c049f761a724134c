//! Data stores and image sets as described in the store.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// How a data store keeps losslessly compressed frames.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum StorageFormat {
    /// HTJ2K in RPCL order, transfer syntax 1.2.840.10008.1.2.4.202.
    #[default]
    #[serde(rename = "HTJ2K")]
    Htj2k,
    /// JPEG 2000, transfer syntax 1.2.840.10008.1.2.4.90.
    #[serde(rename = "JPEG_2000_LOSSLESS")]
    Jpeg2000,
}

impl StorageFormat {
    /// Returns the format with this name in the service's API.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "HTJ2K" => Some(Self::Htj2k),
            "JPEG_2000_LOSSLESS" => Some(Self::Jpeg2000),
            _ => None,
        }
    }
}

/// A data store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Datastore {
    /// 32 characters of `[0-9a-z]`.
    pub datastore_id: String,
    /// Its name.
    pub datastore_name: String,
    /// `ACTIVE` or `DELETED`.
    pub datastore_status: String,
    /// How frames are stored.
    #[serde(default)]
    pub lossless_storage_format: StorageFormat,
    /// Seconds since 1970.
    pub created_at: f64,
    /// Seconds since 1970.
    pub updated_at: f64,
}

/// An image set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageSet {
    /// 32 characters of `[0-9a-z]`.
    pub image_set_id: String,
    /// `ACTIVE`, `LOCKED` or `DELETED`.
    pub image_set_state: String,
    /// `CREATED`, or how the latest version was made: `IMPORTED`, `COPIED`, `UPDATED`, `DELETED`.
    pub image_set_workflow_status: String,
    /// The latest version, starting at 1.
    pub version: u32,
    /// Whether it holds the instances of the series, not those in conflict with them.
    pub is_primary: bool,
    /// Seconds since 1970.
    pub created_at: f64,
    /// Seconds since 1970.
    pub updated_at: f64,
    /// Seconds since 1970, once deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deleted_at: Option<f64>,
    /// Whether the latest version was made with `force`, despite conflicting metadata.
    #[serde(default)]
    pub forced: bool,
    /// Searchable attributes.
    pub tags: serde_json::Map<String, serde_json::Value>,
    /// Earlier versions, oldest first, each without its own history.
    #[serde(default)]
    pub history: Vec<ImageSet>,
}

impl ImageSet {
    /// Creates an image set in version 1.
    pub fn new(
        id: String,
        is_primary: bool,
        tags: serde_json::Map<String, serde_json::Value>,
    ) -> Self {
        let time = now();
        Self {
            image_set_id: id,
            image_set_state: "ACTIVE".to_owned(),
            image_set_workflow_status: "CREATED".to_owned(),
            version: 1,
            is_primary,
            created_at: time,
            updated_at: time,
            deleted_at: None,
            forced: false,
            tags,
            history: Vec::new(),
        }
    }

    /// Starts a new version with the workflow status `status`.
    pub fn advance(&mut self, status: &str) {
        let history = std::mem::take(&mut self.history);
        let before = self.clone();
        self.history = history;
        self.history.push(before);
        self.version = self.version.saturating_add(1);
        self.updated_at = now();
        self.forced = false;
        status.clone_into(&mut self.image_set_workflow_status);
    }

    /// Returns the image set as of a version, including the latest.
    pub fn at(&self, version: u32) -> Option<&Self> {
        if version == self.version {
            return Some(self);
        }
        self.history.iter().find(|before| before.version == version)
    }
}

/// Returns the current time in seconds since 1970, with milliseconds.
pub fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_millis() as f64 / 1000.0
}
