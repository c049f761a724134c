//! The folders that models may be loaded from on request.
//!
//! A caller of `POST /models` names a folder; loading it reads files and reports their defects. A
//! folder outside the roots, directly or through a symbolic link, is therefore rejected with the
//! same error whether it exists or not.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};

/// Maximum number of files and folders of a bundle checked for links; usual bundles have a few
/// dozen.
const MOST_ENTRIES: usize = 10_000;

/// Folders below which models may be loaded.
#[derive(Debug, Clone)]
pub struct Roots(Arc<[PathBuf]>);

impl Roots {
    /// Creates roots from these folders, which need not exist yet.
    pub fn new(roots: Vec<PathBuf>) -> Self {
        Self(roots.into())
    }

    /// Returns the absolute path `folder` with links resolved; unchanged if it does not exist.
    ///
    /// # Errors
    /// [`ErrorKind::AccessDenied`] if it is, or leads, outside the roots.
    pub fn permitted(&self, folder: &Path) -> Result<PathBuf> {
        let canonical = self.canonical();
        // Checks the path lexically before accessing the file system.
        let plain =
            folder.components().all(|c| matches!(c, Component::RootDir | Component::Normal(_)));
        let mut roots = self.0.iter().chain(&canonical);
        let Some(root) = roots.find(|root| plain && folder.starts_with(root)) else {
            return Err(refused());
        };
        // Resolves one component at a time, so that nothing behind a link out of the roots is
        // accessed.
        let mut steps: Vec<&Path> =
            folder.ancestors().take_while(|step| step.starts_with(root)).collect();
        steps.reverse();
        let mut resolved = folder.to_owned();
        for step in steps {
            match step.canonicalize() {
                Ok(path) if is_within(&canonical, &path) => resolved = path,
                Ok(_) => return Err(refused()),
                // A dangling link is rejected like any other, so that it reveals nothing.
                Err(_) if step.is_symlink() => return Err(refused()),
                Err(_) => return Ok(folder.to_owned()),
            }
        }
        Ok(resolved)
    }

    /// Checks that `folder` and everything in it, including link targets, is below the roots.
    ///
    /// # Errors
    /// [`ErrorKind::AccessDenied`] if a link leads outside, [`ErrorKind::InvalidModel`] if there
    /// are too many files or a folder cannot be read.
    pub fn ensure_within(&self, folder: &Path) -> Result<()> {
        let canonical = self.canonical();
        let invalid = |problem: &str| {
            let message = format!("{}: {problem}", folder.display());
            Error::new(ErrorKind::InvalidModel, message)
        };
        let mut left = vec![folder.to_owned()];
        let mut folders = BTreeSet::new();
        let mut seen = 0;
        while let Some(path) = left.pop() {
            seen += 1;
            if seen > MOST_ENTRIES {
                return Err(invalid("has too many files for a bundle"));
            }
            let inside = path.canonicalize().ok().filter(|path| is_within(&canonical, path));
            let path = inside.ok_or_else(refused)?;
            if path.is_dir() && folders.insert(path.clone()) {
                for entry in fs::read_dir(&path).map_err(|_| invalid("it cannot be read"))? {
                    left.push(entry.map_err(|_| invalid("it cannot be read"))?.path());
                }
            }
        }
        Ok(())
    }

    fn canonical(&self) -> Vec<PathBuf> {
        self.0.iter().filter_map(|root| root.canonicalize().ok()).collect()
    }
}

fn is_within(roots: &[PathBuf], path: &Path) -> bool {
    roots.iter().any(|root| path.starts_with(root))
}

fn refused() -> Error {
    Error::new(
        ErrorKind::AccessDenied,
        "models are loaded only from below the folders in MODEL_ROOTS (--model-roots), without links \
         that lead out of them; url names another place",
    )
    .with("path", "url")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn kind(result: Result<impl std::fmt::Debug>) -> Option<(ErrorKind, String)> {
        result.err().map(|e| (e.kind(), e.message().to_owned()))
    }

    #[test]
    fn only_what_lies_below_a_root_is_permitted() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        let root = base.join("root");
        for folder in ["root/a/model", "outside/model", "root-too"] {
            fs::create_dir_all(base.join(folder)).unwrap();
        }
        symlink(base.join("outside"), root.join("out")).unwrap();
        symlink(base.join("nowhere"), root.join("dangling")).unwrap();
        symlink(root.join("a"), root.join("in")).unwrap();
        symlink(&root, base.join("alias")).unwrap();
        let roots = Roots::new(vec![root.clone(), base.join("later")]);

        let model = root.join("a/model");
        assert_eq!(roots.permitted(&model).unwrap(), model);
        assert_eq!(roots.permitted(&root.join("in/model")).unwrap(), model);
        assert_eq!(roots.permitted(&root).unwrap(), root);
        // A missing folder is reported by the search for a bundle.
        assert_eq!(roots.permitted(&root.join("no/model")).unwrap(), root.join("no/model"));

        let expected = kind(roots.permitted(Path::new("/no/such/folder")));
        assert_eq!(expected.as_ref().unwrap().0, ErrorKind::AccessDenied);
        assert!(expected.as_ref().unwrap().1.contains("MODEL_ROOTS"));
        for outside in [
            base.clone(),
            base.join("outside/model"),
            base.join("root-too"),
            root.join("a/../../outside/model"),
            root.join("a/../a/model"),
            root.join("out"),
            root.join("out/model"),
            root.join("out/no/such/folder"),
            root.join("dangling"),
            root.join("dangling/model"),
            base.join("alias/a/model"),
            PathBuf::from("/"),
        ] {
            assert_eq!(kind(roots.permitted(&outside)), expected, "{}", outside.display());
        }
        // A root may be a link to a folder, which then goes by both names.
        let roots = Roots::new(vec![base.join("alias")]);
        for name in [base.join("alias/a/model"), model.clone()] {
            assert_eq!(roots.permitted(&name).unwrap(), model);
        }
    }

    #[test]
    fn links_in_a_bundle_may_not_lead_out() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        let models = base.join("root/bundle/models");
        fs::create_dir_all(&models).unwrap();
        fs::write(base.join("root/blob"), "").unwrap();
        fs::write(base.join("secret"), "").unwrap();
        let roots = Roots::new(vec![base.join("root")]);
        let bundle = base.join("root/bundle");
        symlink(base.join("root/blob"), models.join("model.onnx")).unwrap();
        roots.ensure_within(&bundle).unwrap();
        symlink(base.join("secret"), models.join("weights.bin")).unwrap();
        assert_eq!(kind(roots.ensure_within(&bundle)).unwrap().0, ErrorKind::AccessDenied);
        fs::remove_file(models.join("weights.bin")).unwrap();
        symlink("/no/such/file", models.join("weights.bin")).unwrap();
        assert_eq!(kind(roots.ensure_within(&bundle)).unwrap().0, ErrorKind::AccessDenied);
        fs::remove_file(models.join("weights.bin")).unwrap();
        // A cycle, and a folder elsewhere below the root with a link of its own.
        symlink(&bundle, models.join("circle")).unwrap();
        fs::create_dir(base.join("root/other")).unwrap();
        symlink(base.join("root/other"), models.join("other")).unwrap();
        roots.ensure_within(&bundle).unwrap();
        symlink(base.join("secret"), base.join("root/other/file")).unwrap();
        assert_eq!(kind(roots.ensure_within(&bundle)).unwrap().0, ErrorKind::AccessDenied);
    }
}
