//! `posthouse run` as a process on a host of its own. A network may have several.

use std::path::{Path, PathBuf};
use std::process::Command;

use posthouse::address::RelayAddress;

use super::network::{Host, Network};
use super::program::Program;

const PORT: u16 = 4433;

/// See the head of this file.
pub(crate) struct Relay {
    pub(crate) host: Host,
    pub(crate) address: RelayAddress,
    _program: Program,
}

impl Relay {
    /// Starts one with a fresh store and key in this directory.
    pub(crate) fn start(network: &Network, directory: &Path) -> Self {
        let host = network.host();
        let door = network.publish(&host, PORT);
        let mut command = Command::new(env!("CARGO_BIN_EXE_posthouse"));
        command.args(["run", "--json", "--admin", "127.0.0.1:0", "--log", "warn"]);
        command.arg(format!("--listen={}:{PORT}", host.address())).arg(format!("--advertise={door}"));
        let place = |name: &str| -> PathBuf { directory.join(name) };
        command.arg("--data").arg(place("data")).arg("--certs").arg(place("certs"));
        let program = host.namespace.within(|| Program::start(command, None));
        let ready = program.expect("ready");
        let address = ready["address"].as_str().unwrap().parse().unwrap();
        Self { host, address, _program: program }
    }
}
