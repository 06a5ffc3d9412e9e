//! The commands of the `posthouse` binary.
//!
//! Exit codes: 0 done, 1 failed, 2 usage or configuration. Errors go to standard error and say what to do.

mod ask;
mod backup;
mod bench;
mod config;
mod environment;
mod identity;
mod live;
mod output;
mod peers;
mod relays;
mod reload;
mod run;
mod shell;
mod status;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A relay node over QUIC that gets one-to-one messages delivered and tells the sender so.
#[derive(Debug, Parser)]
#[command(name = "posthouse", version, about, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  posthouse run                                        a relay on this machine, on defaults alone
  posthouse run --advertise relay.example.org:4433     one that others can reach
  posthouse identity                                   its id and address, to give to clients
  posthouse bench --scenario offline                   how fast a mailbox fills and empties on this machine";

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a relay. Everything it needs is made at the first start.
    Run(run::Args),
    /// Show every setting, or check a configuration file.
    Config(config::show::Args),
    /// Show the relay's id and address.
    Identity(identity::Args),
    /// Show how the links of a running relay to other relays stand.
    #[command(after_help = "\
Examples:
  posthouse relays                                   how each link stands, and what waits for it
  posthouse relays --data /var/lib/posthouse/data --json")]
    Relays(ask::Question),
    /// Show how a running relay is.
    #[command(after_help = "\
Examples:
  posthouse status                                   of the relay that runs on ./data
  posthouse status --data /var/lib/posthouse/data --json")]
    Status(ask::Question),
    /// Succeed if the relay runs, and takes sessions and messages.
    Health(status::Health),
    /// Copy the store of a relay, which may run.
    Backup(backup::Backup),
    /// Make a store of a backup, for a relay that does not run.
    Restore(backup::Restore),
    /// Read the whole store of a relay that does not run, and say whether it is sound.
    Check(backup::Check),
    /// Show the peers of a running relay, let them in or keep them out.
    Peers(peers::Args),
    /// Make an invitation to a running relay.
    Invite(peers::Invite),
    /// Measure a relay: its own one, or one that is named.
    Bench(bench::Args),
    /// Print completions for a shell.
    Completions(shell::Completions),
    /// Write the manual pages.
    Man(shell::Man),
}

/// What a command could not do, and whose fault that is.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// Flags, environment or configuration file: exit code 2.
    #[error(transparent)]
    Usage(anyhow::Error),
    /// Everything else: exit code 1.
    #[error(transparent)]
    Failed(#[from] anyhow::Error),
}

/// Runs the command that the arguments name.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let blamed = environment::blamed(&error, &std::env::args_os().collect::<Vec<_>>(), &environment::ours());
            error.print().ok();
            if let Some(blamed) = blamed {
                output::note(&blamed);
            }
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    let result = match cli.command {
        Command::Run(args) => run::run(args),
        Command::Config(args) => config::show::run(args),
        Command::Identity(args) => identity::run(args),
        Command::Relays(args) => relays::run(args),
        Command::Status(args) => status::run(args),
        Command::Health(args) => status::health(args),
        Command::Backup(args) => backup::backup(args),
        Command::Restore(args) => backup::restore(args),
        Command::Check(args) => backup::check(args),
        Command::Peers(args) => peers::run(args),
        Command::Invite(args) => peers::invite(args),
        Command::Bench(args) => bench::run(args),
        Command::Completions(args) => shell::completions(&args),
        Command::Man(args) => shell::man(&args),
    };
    let (error, code) = match result {
        Ok(()) => return ExitCode::SUCCESS,
        Err(CliError::Usage(error)) => (error, 2),
        Err(CliError::Failed(error)) => (error, 1),
    };
    if !output::is_unread(&error) {
        output::error(&error);
    }
    ExitCode::from(code)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn without_example(command: &clap::Command, found: &mut Vec<String>) {
        let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        if !after.contains("Example") || !after.contains("posthouse ") {
            found.push(command.get_name().to_owned());
        }
        command.get_subcommands().for_each(|command| without_example(command, found));
    }

    #[test]
    fn the_command_line_is_sound_and_every_command_shows_an_example() {
        let command = Cli::command();
        command.clone().debug_assert();
        let mut found = Vec::new();
        without_example(&command, &mut found);
        assert_eq!(found, [] as [&str; 0]);
    }
}
