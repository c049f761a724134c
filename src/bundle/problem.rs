//! Describes what is wrong in a bundle, and where.
//!
//! Reading a bundle collects all problems for `bundle check`. Opening a bundle for serving reports only
//! the first, as an [`Error`].

use std::fmt;

use serde::Serialize;

use crate::error::{Error, ErrorKind};

/// One problem that prevents a bundle from being served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The file, relative to the bundle: `configs/inference.json`.
    pub file: String,
    /// The path in the file, in MONAI's notation for ids: `preprocessing#transforms#3#pixdim`. Empty if
    /// the problem concerns the whole file.
    pub path: String,
    /// What is wrong, in lower case, with the expression if there is one.
    pub message: String,
}

impl Problem {
    /// Creates a problem with a whole file.
    pub(crate) fn in_file(file: impl Into<String>, message: impl Into<String>) -> Self {
        Self { file: file.into(), path: String::new(), message: message.into() }
    }

    /// Returns the problem as seen from `file` at `path`, which needs the item at fault.
    pub(super) fn seen_from(self, file: &str, path: &str) -> Self {
        let inside = self.file == file
            && self.path.strip_prefix(path).is_some_and(|r| r.is_empty() || r.starts_with('#'));
        if inside {
            return self;
        }
        let message = if self.path.is_empty() {
            self.message
        } else {
            format!("needs `{}`: {}", self.path, self.message)
        };
        Self { file: file.to_owned(), path: path.to_owned(), message }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            write!(f, "{}: {}", self.file, self.message)
        } else {
            write!(f, "{}: {}: {}", self.file, self.path, self.message)
        }
    }
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        Error::new(ErrorKind::InvalidModel, problem.to_string())
            .with("file", problem.file)
            .with("path", problem.path)
    }
}
