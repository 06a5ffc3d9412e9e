//! `posthouse completions` and `posthouse man`: what a shell and a reader of manuals want to have installed.

use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Cli, CliError};

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  posthouse completions bash > /etc/bash_completion.d/posthouse")]
pub(super) struct Completions {
    /// For which shell
    shell: Shell,
}

/// Prints the completions.
pub(super) fn completions(args: &Completions) -> Result<(), CliError> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "posthouse", &mut text);
    Ok(io::stdout().write_all(&text).context("standard output")?)
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  posthouse man /usr/local/share/man/man1")]
pub(super) struct Man {
    /// Directory for the pages, one for each command; it is made if there is none
    directory: PathBuf,
}

/// Writes the manual pages.
pub(super) fn man(args: &Man) -> Result<(), CliError> {
    let written = std::fs::create_dir_all(&args.directory)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), &args.directory));
    Ok(written.with_context(|| format!("{}: the pages cannot be written there", args.directory.display()))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page() {
        let directory = tempfile::tempdir().unwrap();
        man(&Man { directory: directory.path().join("man1") }).unwrap();
        for command in Cli::command().get_subcommands() {
            let page = directory.path().join(format!("man1/posthouse-{}.1", command.get_name()));
            assert!(std::fs::read_to_string(&page).unwrap().contains(".TH"), "{}", page.display());
        }
    }
}
