//! Which models a folder holds.
//!
//! SageMaker unpacks `model.tar.gz` at `/opt/ml/model`. The archive may hold a MONAI bundle, a
//! folder that is one, or several folders that each are one; a bundle's name is its folder's.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};

/// A bundle found on disk.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ModelLocation {
    /// The name requests choose it by: that of its folder.
    pub name: String,
    /// The folder with `configs` and `models`.
    pub path: PathBuf,
}

/// Finds the bundles at `dir`: `dir` itself, or those of its folders that are bundles, by name.
/// Folders that are not bundles, and hidden ones, are left alone.
///
/// # Errors
/// [`ErrorKind::Configuration`] where `dir` cannot be read or holds no bundle.
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

/// A folder that means to be a bundle, so that one that is incomplete is reported, not passed over.
fn is_bundle(path: &Path) -> bool {
    crate::bundle::is_bundle(path)
        || (path.join("configs").is_dir() && path.join("models").is_dir())
}

fn location(path: &Path) -> Result<ModelLocation> {
    // `.` and `a/..` have no name of their own.
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
        // A folder of a bundle is never taken for another bundle.
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
        // Incomplete, yet meant to be a bundle: loading it says what is missing.
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
