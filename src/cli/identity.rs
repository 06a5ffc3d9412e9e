//! `posthouse identity`: the relay's id and address.

use anyhow::Context;
use clap::Args as ClapArgs;
use serde_json::json;

use super::config::{ConfigFile, Flags, Place, Settings};
use super::{CliError, output};
use crate::address::RelayAddress;
use crate::identity::Identity;
use crate::random::SystemEntropy;

/// The name of a relay's certificate and key in their directory.
pub(super) const RELAY_NAME: &str = "relay";

#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  posthouse identity                                 as it is seen from this machine
  posthouse identity --advertise relay.example.org:4433 --certs /var/lib/posthouse/certs")]
pub(super) struct Args {
    #[command(flatten)]
    file: ConfigFile,
    #[command(flatten)]
    place: Place,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Shows who the relay is; makes its key if there is none yet.
pub(super) fn run(args: Args) -> Result<(), CliError> {
    let settings = Settings::load(Flags { file: args.file, place: args.place, ..Flags::default() })?;
    let identity = load(&settings)?;
    let (host, guessed) = settings.shown(settings.listen);
    let address = RelayAddress::new(identity.relay_id(), host);
    let text = if args.json {
        json!({ "event": "identity", "relay": identity.relay_id().to_string(), "address": address.to_string() })
            .to_string()
    } else {
        let hint =
            if guessed { "\n(for this machine only: name what others reach with --advertise HOST:PORT)" } else { "" };
        format!("relay    {}\naddress  {address}{hint}", identity.relay_id())
    };
    Ok(output::line(&text).context("standard output")?)
}

/// The relay's identity, made if there is none yet.
pub(super) fn load(settings: &Settings) -> anyhow::Result<Identity> {
    Ok(Identity::load_or_create(&settings.certs, RELAY_NAME, &SystemEntropy)?)
}
