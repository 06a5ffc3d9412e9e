//! Settings that come from environment variables: which variable an error is about, and which variables are none.

use std::ffi::{OsStr, OsString};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Command, CommandFactory as _};

use super::Cli;

/// What the names of ours begin with.
const PREFIX: &str = "POSTHOUSE_";

/// Variables with a value, as the system has them.
type Variables = Vec<(OsString, OsString)>;

/// Those with a name like ours.
pub(super) fn ours() -> Variables {
    std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with(PREFIX)).collect()
}

/// Names that no setting has: slips, as a rule.
pub(super) fn unknown(variables: &Variables) -> Vec<String> {
    let mut known = Vec::new();
    of_all(&Cli::command(), &mut |_, variable| known.push(variable.to_owned()));
    let names = variables.iter().map(|(name, _)| name).filter(|name| !known.contains(name));
    names.map(|name| name.to_string_lossy().into_owned()).collect()
}

/// Which variable the error is about, where the command line does not show what is wrong.
pub(super) fn blamed(error: &clap::Error, line: &[OsString], variables: &Variables) -> Option<String> {
    let named = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(named)) => named.as_str(),
        _ if error.kind() == ErrorKind::InvalidUtf8 => "",
        _ => return None,
    };
    let flag = named.split(' ').next().unwrap_or_default();
    if line.iter().any(|word| !flag.is_empty() && word.to_string_lossy().split('=').next() == Some(flag)) {
        return None;
    }
    let mut found = None;
    of_all(&Cli::command(), &mut |named, variable| {
        let set = variables.iter().find(|(name, _)| name == variable);
        let is_it = match flag.strip_prefix("--") {
            Some(flag) => flag == named,
            None => set.is_some_and(|(_, value)| value.to_str().is_none()),
        };
        if is_it && set.is_some() {
            found = Some(variable.to_string_lossy().into_owned());
        }
    });
    found.map(|variable| format!("It comes from the environment variable {variable}."))
}

/// Every argument that may come from a variable, in all commands.
fn of_all(command: &Command, each: &mut impl FnMut(&str, &OsStr)) {
    for argument in command.get_arguments() {
        if let (Some(flag), Some(variable)) = (argument.get_long(), argument.get_env()) {
            each(flag, variable);
        }
    }
    command.get_subcommands().for_each(|command| of_all(command, each));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_that_no_setting_has_is_found() {
        let variables = ["POSTHOUSE_LISTEN", "POSTHOUSE_LISEN"].map(|name| (name.into(), "x".into()));
        assert_eq!(unknown(&variables.into()), ["POSTHOUSE_LISEN"]);
    }
}
