//! The network's part of the `bundle check` report.

use std::fmt;

use serde::Serialize;

/// The network as described by its file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkPart {
    /// The file, relative to the bundle.
    pub file: String,
    /// Its SHA-256, as given in results.
    pub sha256: String,
    /// Sizes of the input (N, C, X, Y, Z, or N, C, X, Y); null for a size that can vary.
    pub input: Vec<Option<usize>>,
    /// Channels of the result; null if the file does not say.
    pub output_channels: Option<usize>,
    /// Norms of the file that are computed in two stages on a CPU.
    pub norms_in_two_stages: usize,
}

impl fmt::Display for NetworkPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = |size: &Option<usize>| size.map_or("any".to_owned(), |n| n.to_string());
        let sizes: Vec<String> = self.input.iter().map(size).collect();
        writeln!(f, "  {} (SHA-256 {})", self.file, self.sha256)?;
        let axes = if self.input.len() == 4 { "N, C, X, Y" } else { "N, C, X, Y, Z" };
        writeln!(f, "  input     {} ({axes}), float32", sizes.join(" × "))?;
        writeln!(f, "  output    {} channels", size(&self.output_channels))?;
        match self.norms_in_two_stages {
            0 => Ok(()),
            n => writeln!(f, "  {n} norms are computed in two stages on a CPU, for accuracy"),
        }
    }
}
