//! `completions` and `man`: shell completions and manual pages for the flags.

use std::path::{Path, PathBuf};

use clap::{Args, Command};
use clap_complete::Shell;
use clap_mangen::Man;

use super::console;
use crate::error::{Error, ErrorKind, Result};

/// Settings of `completions`.
#[derive(Debug, Clone, Args)]
pub struct CompletionsArgs {
    /// The shell to complete in
    pub shell: Shell,
}

/// Settings of `man`.
#[derive(Debug, Clone, Args)]
pub struct ManArgs {
    /// Folder for the pages, one for each subcommand; made where it is not there. Without it, the page that lists
    /// the subcommands is printed
    #[arg(long, env = "MAN_DIR", value_name = "DIR")]
    pub out: Option<PathBuf>,
}

/// Prints the completion script of a shell.
pub(super) fn completions(args: &CompletionsArgs, mut command: Command) -> Result<()> {
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    // Generated in memory, because clap panics if the output cannot be written.
    clap_complete::generate(args.shell, &mut command, name, &mut script);
    console::print(&utf8(script)?)
}

/// Writes all pages to a folder and prints its name, or prints the main page.
pub(super) fn man(args: &ManArgs, command: Command) -> Result<()> {
    match &args.out {
        Some(folder) => pages(folder, command),
        None => {
            let mut page = Vec::new();
            let rendered = Man::new(command).render(&mut page);
            rendered.map_err(|e| Error::internal("the page cannot be made").caused_by(e))?;
            console::print(&utf8(page)?)
        }
    }
}

fn pages(folder: &Path, command: Command) -> Result<()> {
    let failed = |e: std::io::Error| {
        let message = format!("pages cannot be written to {}: {}", folder.display(), e.kind());
        Error::new(ErrorKind::Io, message).caused_by(e)
    };
    std::fs::create_dir_all(folder).map_err(failed)?;
    clap_mangen::generate_to(command, folder).map_err(failed)?;
    let folder = console::shown(&folder.to_string_lossy());
    console::print(&format!("the pages are in {folder}; read them with `man {folder}/PAGE`"))
}

fn utf8(text: Vec<u8>) -> Result<String> {
    String::from_utf8(text).map_err(|e| Error::internal("text that is not UTF-8").caused_by(e))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::super::Cli;
    use super::*;

    #[test]
    fn every_subcommand_has_a_page() {
        let folder = tempfile::tempdir().unwrap();
        man(&ManArgs { out: Some(folder.path().join("man")) }, Cli::command()).unwrap();
        for subcommand in Cli::command().get_subcommands() {
            let page = folder.path().join(format!("man/ahi-inference-{}.1", subcommand.get_name()));
            let text = std::fs::read_to_string(&page).unwrap();
            assert!(text.contains(".SH SYNOPSIS"), "{}", page.display());
        }
    }
}
