//! The viewer's files, downloaded by `scripts/get-viewer.sh`.

use std::path::{Path, PathBuf};

use axum::body::Bytes;

use crate::error::{Error, ErrorKind, Result};

/// The viewer, an ECMAScript module.
pub(super) const VIEWER: &str = "niivue.js";

/// Its licence, which is distributed with it.
pub(super) const LICENCE: &str = "niivue-LICENSE.txt";

/// Their folder in the container image.
const IN_THE_IMAGE: &str = "/opt/ahi-inference/ui";

/// Maximum size of such a file.
const LARGEST: u64 = 64 << 20;

/// The contents of the viewer's files.
pub(super) struct Assets {
    pub viewer: Bytes,
    pub licence: Bytes,
}

impl Assets {
    /// Loads the files from `folder`, or from the default folders.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`], naming the folders and the remedy.
    pub fn find(folder: Option<&Path>) -> Result<Self> {
        let folders = folder.map_or_else(usual, |folder| vec![folder.to_owned()]);
        let found = folders.iter().find(|folder| folder.join(VIEWER).is_file());
        let Some(folder) = found else {
            let folders: Vec<String> = folders.iter().map(|f| f.display().to_string()).collect();
            return Err(Error::new(
                ErrorKind::Configuration,
                format!(
                    "--ui: there is no {VIEWER} in {}; run scripts/get-viewer.sh, and set --ui-assets \
                     (UI_ASSETS) to the folder that it prints",
                    folders.join(" or ")
                ),
            ));
        };
        Ok(Self { viewer: read(&folder.join(VIEWER))?, licence: read(&folder.join(LICENCE))? })
    }
}

fn usual() -> Vec<PathBuf> {
    let program = std::env::current_exe().ok();
    let beside = program.and_then(|program| Some(program.parent()?.join("ui")));
    beside.into_iter().chain([PathBuf::from(IN_THE_IMAGE)]).collect()
}

fn read(path: &Path) -> Result<Bytes> {
    let wrong = |what: String| {
        let what = format!("--ui: {} {what}; run scripts/get-viewer.sh again", path.display());
        Error::new(ErrorKind::Configuration, what)
    };
    let cannot = |e: std::io::Error| wrong(format!("cannot be read ({})", e.kind()));
    let bytes = std::fs::metadata(path).map_err(cannot)?.len();
    if bytes == 0 || bytes > LARGEST {
        return Err(wrong(format!("has {bytes} bytes")));
    }
    std::fs::read(path).map(Bytes::from).map_err(cannot)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_said_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let message = |folder: &Path| Assets::find(Some(folder)).err().unwrap().to_string();
        assert!(message(folder.path()).contains("scripts/get-viewer.sh"));
        std::fs::write(folder.path().join(VIEWER), "export const Niivue = 1;").unwrap();
        assert!(message(folder.path()).contains(LICENCE));
        std::fs::write(folder.path().join(LICENCE), "").unwrap();
        assert!(message(folder.path()).contains("0 bytes"));
        std::fs::write(folder.path().join(LICENCE), "BSD").unwrap();
        assert_eq!(Assets::find(Some(folder.path())).unwrap().licence, "BSD");
    }
}
