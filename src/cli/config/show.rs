//! `posthouse config`: every setting, explained.

use anyhow::Context;
use clap::Args as ClapArgs;

use super::super::{CliError, output};
use super::{Flags, Settings, file};

#[derive(Debug, ClapArgs)]
#[command(after_help = EXAMPLES)]
pub(in crate::cli) struct Args {
    #[command(flatten)]
    flags: Flags,
    /// Print a file with every setting, its meaning and its default, to begin with
    #[arg(long)]
    example: bool,
}

const EXAMPLES: &str = "\
Examples:
  posthouse config --example > posthouse.toml      a file to begin with: it changes nothing until it is edited
  posthouse config --config posthouse.toml         check a file, and show the settings that it leads to";

/// Prints the example, or the settings in force.
pub(in crate::cli) fn run(args: Args) -> Result<(), CliError> {
    let text = match args.example {
        true => example(),
        false => in_force(&Settings::load(args.flags)?),
    };
    Ok(output::line(text.trim_end()).context("standard output")?)
}

/// A file with all settings at their defaults, each behind a comment sign.
pub(super) fn example() -> String {
    let mut text = String::from(
        "# The settings of a posthouse relay, with their defaults. Take away the sign before one to change it.\n\
         # Flags and environment variables of `posthouse run` come before this file.\n",
    );
    for (table, settings) in file::shown(&Settings::default()) {
        if !table.is_empty() {
            text += &format!("\n[{table}]\n");
        }
        for setting in settings {
            text += "\n";
            for line in setting.words {
                text += &format!("#{line}\n");
            }
            match setting.value {
                Some(value) => text += &format!("#{} = {value}\n", setting.key),
                None => text += &format!("# It is not set.\n#{} = \"...\"\n", setting.key),
            }
        }
    }
    text
}

fn in_force(settings: &Settings) -> String {
    let mut text = String::new();
    for (table, settings) in file::shown(settings) {
        if !table.is_empty() {
            text += &format!("\n[{table}]\n");
        }
        for setting in settings {
            if let Some(value) = setting.value {
                text += &format!("{} = {value}\n", setting.key);
            }
        }
    }
    text
}
