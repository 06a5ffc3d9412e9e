//! What keeps a relay from starting is named, with the way out, and the exit code is 1.

use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Command, Output};

use super::program::Relay;

/// Starts a relay that should not start.
fn run(directory: &Path, data: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_posthouse"));
    command.args(["run", "--log", "error", "--data"]).arg(directory.join(data));
    command.arg("--certs").arg(directory.join("certs")).args(arguments).output().unwrap()
}

fn says(output: &Output, words: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for words in words {
        assert!(said.contains(words), "{words}: {said}");
    }
}

const ANYWHERE: [&str; 4] = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];

#[test]
fn a_second_relay_on_the_same_store() {
    let directory = tempfile::tempdir().unwrap();
    let relay = Relay::start(directory.path());
    let output = run(directory.path(), "data", &ANYWHERE);
    says(&output, &["relay.redb is in use by another process", "stop that one, or use another directory"]);
    assert_eq!(relay.get("healthz").0, 200, "the first one is as it was");
}

#[test]
fn a_port_that_is_taken() {
    let directory = tempfile::tempdir().unwrap();
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = run(directory.path(), "data", &["--listen", &address, "--admin", "127.0.0.1:0"]);
    says(&output, &["--listen", &address, "choose another address or port"]);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = run(directory.path(), "data", &["--listen", "127.0.0.1:0", "--admin", &address]);
    says(&output, &["--admin", &address, "choose another address or port"]);
}

#[test]
fn a_data_directory_that_cannot_be_written() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("data"), "a file").unwrap();
    says(&run(directory.path(), "data", &ANYWHERE), &["data", "name another with --data"]);
    // There nobody may write, not even root.
    let output = run(directory.path(), "/proc/self/fdinfo", &ANYWHERE);
    says(&output, &["/proc/self/fdinfo", "cannot be written", "--data"]);
}

#[test]
fn a_certificate_of_another_key() {
    let directory = tempfile::tempdir().unwrap();
    let [one, two] = ["one", "two"].map(|name| directory.path().join(name));
    for place in [&one, &two] {
        fs::create_dir(place).unwrap();
        drop(Relay::start(place));
    }
    fs::copy(two.join("certs/relay.crt"), one.join("certs/relay.crt")).unwrap();
    says(&run(&one, "data", &ANYWHERE), &["relay.crt belongs to another key than", "move the certificate away"]);
}

#[test]
fn a_relay_delivers_even_where_its_file_for_commands_cannot_be_written() {
    let directory = tempfile::tempdir().unwrap();
    // In the way of that file, as a full disk would be.
    fs::create_dir_all(directory.path().join("data/admin.json.new")).unwrap();
    let relay = Relay::start(directory.path());
    assert_eq!(relay.get("readyz").0, 200);
    assert!(relay.logged().contains("admin.json"), "{}", relay.logged());
}
