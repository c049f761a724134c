//! Finds the models in a folder.
//!
//! SageMaker unpacks `model.tar.gz` to `/opt/ml/model`. The archive may contain a MONAI bundle
//! directly, or one or more folders that are bundles. A bundle is named after its folder.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};

/// A bundle found on disk.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ModelLocation {
    /// The name used in requests: that of its folder.
    pub name: String,
    /// The folder with `configs` and `models`.
    pub path: PathBuf,
}

/// Finds the bundles at `dir`: `dir` itself, or its direct subfolders, sorted by name. Folders that
/// are not bundles and hidden folders are skipped.
///
/// # Errors
/// [`ErrorKind::Configuration`] if `dir` cannot be read or contains no bundle.
pub fn discover(dir: &Path) -> Result<Vec<ModelLocation>> {
    if is_bundle(dir) {
        return Ok(vec![location(dir)?]);
    }
    let unreadable = |e| {
        Error::new(
            ErrorKind::Configuration,
            format!("the model folder {} cannot be read", dir.display()),
        )
        .caused_by(e)
    };
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let hidden = path.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(b"."));
        if hidden || !path.is_dir() {
            continue;
        }
        if is_bundle(&path) {
            found.push(location(&path)?);
        } else {
            tracing::debug!(folder = %path.display(), "not a MONAI bundle");
        }
    }
    if found.is_empty() {
        return Err(Error::new(
            ErrorKind::Configuration,
            format!(
                "no MONAI bundle in {}: neither it nor a folder in it holds \
                 configs/inference.json or configs/inference.yaml",
                dir.display()
            ),
        ));
    }
    found.sort();
    Ok(found)
}

/// Whether a folder is meant to be a bundle: incomplete bundles are reported, not skipped.
fn is_bundle(path: &Path) -> bool {
    crate::bundle::is_bundle(path)
        || (path.join("configs").is_dir() && path.join("models").is_dir())
}

fn location(path: &Path) -> Result<ModelLocation> {
    // `.` and `a/..` have no file name.
    let absolute = path.canonicalize();
    let name = path.file_name().or_else(|| absolute.as_ref().ok()?.file_name());
    match name.and_then(|n| n.to_str()) {
        Some(name) => Ok(ModelLocation { name: name.to_owned(), path: path.to_owned() }),
        None => Err(Error::new(
            ErrorKind::Configuration,
            format!("the bundle at {} has no name in UTF-8; rename its folder", path.display()),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle(at: &Path) {
        fs::create_dir_all(at.join("configs")).unwrap();
        fs::create_dir_all(at.join("models")).unwrap();
        fs::write(at.join("configs/inference.json"), "{}").unwrap();
    }

    fn names(dir: &Path) -> Vec<String> {
        discover(dir).unwrap().into_iter().map(|l| l.name).collect()
    }

    #[test]
    fn a_bundle_itself() {
        let dir = tempfile::tempdir().unwrap();
        let model = dir.path().join("model");
        bundle(&model);
        // A subfolder of a bundle is never treated as another bundle.
        bundle(&model.join("docs"));
        assert_eq!(
            discover(&model).unwrap(),
            [ModelLocation { name: "model".to_owned(), path: model.clone() }]
        );
        assert_eq!(names(&model.join("configs/..")), ["model"]);
    }

    #[test]
    fn one_nested_folder_or_several() {
        let dir = tempfile::tempdir().unwrap();
        bundle(&dir.path().join("spleen_ct"));
        fs::create_dir(dir.path().join("code")).unwrap();
        fs::write(dir.path().join("README"), "").unwrap();
        bundle(&dir.path().join(".cache"));
        assert_eq!(names(dir.path()), ["spleen_ct"]);
        // An incomplete bundle: loading it reports what is missing.
        fs::create_dir_all(dir.path().join("lung/configs")).unwrap();
        fs::create_dir_all(dir.path().join("lung/models")).unwrap();
        assert_eq!(names(dir.path()), ["lung", "spleen_ct"]);
    }

    #[test]
    fn nothing_to_serve_is_an_error_that_says_where() {
        let dir = tempfile::tempdir().unwrap();
        for path in [dir.path().to_owned(), dir.path().join("absent")] {
            let error = discover(&path).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Configuration);
            assert!(error.message().contains(&*path.to_string_lossy()), "{error}");
        }
    }
}
