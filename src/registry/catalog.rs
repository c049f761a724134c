//! Where models are: `/opt/ml/model` holds one bundle, one folder with a bundle in it (as a
//! `model.tar.gz` often unpacks), or several bundles side by side.

use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};

/// A model found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelLocation {
    /// The name it is asked for by: its folder's.
    pub name: String,
    /// Its bundle's folder.
    pub path: PathBuf,
}

/// What makes a folder a bundle.
const MARKER: &str = "configs/inference.json";

/// The models below `dir`, by name.
///
/// # Errors
///
/// [`ErrorKind::ModelNotFound`] where there is no folder or no bundle in it.
pub fn discover(dir: &Path) -> Result<Vec<ModelLocation>> {
    if is_bundle(dir) {
        return Ok(vec![location(dir)]);
    }
    let entries = std::fs::read_dir(dir).map_err(|e| {
        Error::new(
            ErrorKind::ModelNotFound,
            format!("the model folder {} cannot be read", dir.display()),
        )
        .caused_by(e)
    })?;
    let mut found: Vec<ModelLocation> = entries
        .filter_map(|entry| entry.ok().map(|e| e.path()))
        .filter(|path| is_bundle(path))
        .map(|path| location(&path))
        .collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    if found.is_empty() {
        return Err(Error::new(
            ErrorKind::ModelNotFound,
            format!(
                "there is no MONAI bundle in {}: neither it nor a folder in it has {MARKER}",
                dir.display()
            ),
        ));
    }
    Ok(found)
}

fn is_bundle(dir: &Path) -> bool {
    dir.join(MARKER).is_file()
}

fn location(path: &Path) -> ModelLocation {
    let full = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let name = full.file_name().map_or_else(|| "model".into(), |n| n.to_string_lossy().into_owned());
    ModelLocation { name, path: path.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle(dir: &Path) {
        std::fs::create_dir_all(dir.join("configs")).unwrap();
        std::fs::write(dir.join(MARKER), "{}").unwrap();
    }

    #[test]
    fn one_nested_or_several() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(discover(root.path()).unwrap_err().kind(), ErrorKind::ModelNotFound);
        bundle(&root.path().join("b"));
        assert_eq!(discover(root.path()).unwrap()[0].name, "b");
        bundle(&root.path().join("a"));
        let names: Vec<_> = discover(root.path()).unwrap().into_iter().map(|l| l.name).collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(discover(&root.path().join("b")).unwrap()[0].name, "b");
    }
}
