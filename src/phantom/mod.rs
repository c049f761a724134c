//! Synthetic CT phantoms as DICOM files, for the demo and for training its model.
//!
//! `ahi-inference phantom` generates a CT of the trunk of a fictitious patient: fat, muscle, bone,
//! lungs, bowel, and four organs whose true labels are written next to the images. A seed results
//! in the same files on every machine. The training script in `model/` calls the same command, so
//! that there is only one generator.

mod anatomy;
mod files;
mod random;
mod volume;

use std::fs;
use std::path::PathBuf;

use clap::Args;
use serde_json::json;

pub use anatomy::LABELS;

use crate::error::{Error, ErrorKind, Result};
use files::cannot_write;
use volume::{Grid, Phantom};

/// Make a synthetic CT of a trunk as DICOM files, with the true labels beside them.
///
/// Writes the images to DIR/dicom, the labels to DIR/truth.npy (axes X, Y, Z) and their names,
/// volumes and affine to DIR/phantom.json, which is also printed.
#[derive(Debug, Clone, Args)]
pub struct PhantomArgs {
    /// Folder to write to; made where it does not exist, and must not hold a phantom already.
    #[arg(long, value_name = "DIR", env = "AHI_PHANTOM_OUT")]
    pub out: PathBuf,
    /// Which patient: the same seed gives the same files.
    #[arg(long, default_value_t = DEMO_SEED, env = "AHI_PHANTOM_SEED")]
    pub seed: u64,
    /// Rows, and as many columns, of each image.
    #[arg(long, value_name = "PIXELS", default_value_t = 128, env = "AHI_PHANTOM_SIZE",
          value_parser = clap::value_parser!(u16).range(16..=1024))]
    pub size: u16,
    /// Number of images.
    #[arg(long, default_value_t = 120, env = "AHI_PHANTOM_SLICES",
          value_parser = clap::value_parser!(u16).range(2..=2000))]
    pub slices: u16,
    /// Distance between rows and between columns.
    #[arg(long, value_name = "MM", default_value_t = 2.5, env = "AHI_PHANTOM_SPACING",
          value_parser = millimetres)]
    pub spacing: f64,
    /// Distance between images.
    #[arg(long, value_name = "MM", default_value_t = 2.0, env = "AHI_PHANTOM_SLICE_SPACING",
          value_parser = millimetres)]
    pub slice_spacing: f64,
}

/// The seed of the demo's patient, which the demo's model has not been trained on.
pub const DEMO_SEED: u64 = 2024;

/// Parses a distance between voxels, rounded to six decimals, so that the files hold it exactly.
fn millimetres(text: &str) -> Result<f64, String> {
    let mm: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if !(0.1..=20.0).contains(&mm) {
        return Err("not between 0.1 and 20 mm".to_owned());
    }
    Ok((mm * 1e6).round() / 1e6)
}

impl PhantomArgs {
    /// Generates the phantom and prints its description as one line of JSON.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] if the folder cannot be written or already holds a phantom.
    pub async fn run(self) -> Result<()> {
        let made = tokio::task::spawn_blocking(move || self.write())
            .await
            .map_err(|e| Error::internal("making the phantom was interrupted").caused_by(e))??;
        println!("{made}");
        Ok(())
    }

    /// Generates the phantom on this thread and rayon's pool; returns the content of
    /// `phantom.json`.
    ///
    /// # Errors
    /// The errors of [`run`](PhantomArgs::run).
    pub fn write(&self) -> Result<serde_json::Value> {
        let images = self.out.join("dicom");
        // Two phantoms in one folder would be two series, but readers expect one.
        if images.exists() {
            let message =
                format!("{} exists already: choose another folder or remove it", images.display());
            return Err(Error::new(ErrorKind::Io, message));
        }
        fs::create_dir_all(&images).map_err(|e| cannot_write(&images).caused_by(e))?;

        let phantom = Phantom::scan(
            self.seed,
            Grid {
                size: usize::from(self.size),
                slices: usize::from(self.slices),
                spacing: self.spacing,
                slice_spacing: self.slice_spacing,
            },
        );
        files::write_images(&images, self.seed, &phantom)?;
        files::write_truth(&self.out.join("truth.npy"), &phantom)?;
        let mut description = files::description(self.seed, &phantom);
        let path = self.out.join("phantom.json");
        fs::write(&path, format!("{description:#}\n"))
            .map_err(|e| cannot_write(&path).caused_by(e))?;
        if let Some(fields) = description.as_object_mut() {
            fields.insert("folder".to_owned(), json!(self.out));
        }
        Ok(description)
    }
}
