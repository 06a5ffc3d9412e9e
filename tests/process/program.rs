//! Starts, reads and kills the two programs.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, LazyLock, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use serde_json::Value;

use super::lasting::lasting_place;

/// How long anything may take before a test gives up: far more than it needs on a busy machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// A relay's configuration in its directory.
const CONFIG: &str = "posthouse.toml";

/// The example peer.
pub(super) static PEER: LazyLock<PathBuf> = LazyLock::new(|| example("peer"));

/// An example's program. `cargo test --test process` alone does not build examples, so it is built here.
pub(super) fn example(name: &str) -> PathBuf {
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--example", name]).current_dir(env!("CARGO_MANIFEST_DIR"));
    if !cfg!(debug_assertions) {
        build.arg("--release");
    }
    // What cargo tells this test of its package would look like a change to build scripts, and build all anew.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_") && !matches!(&*text, "CARGO_HOME" | "CARGO_TARGET_DIR") {
            build.env_remove(&name);
        }
    }
    assert!(build.status().unwrap().success(), "the example {name} builds");
    Path::new(env!("CARGO_BIN_EXE_posthouse")).parent().unwrap().join("examples").join(name)
}

/// A running program whose standard output is one JSON object a line.
pub(super) struct Program {
    child: Child,
    events: Receiver<Value>,
    pub(super) errors: Arc<Mutex<String>>,
}

impl Program {
    /// Starts it; what it is to read is given at once, and then its standard input ends.
    pub(super) fn start(mut command: Command, input: Option<Vec<u8>>) -> Self {
        let stdin = if input.is_some() { Stdio::piped() } else { Stdio::null() };
        command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        if let (Some(input), Some(mut stdin)) = (input, child.stdin.take()) {
            // The program may be killed before it has read all of it.
            thread::spawn(move || stdin.write_all(&input).ok());
        }
        let (sender, events) = channel();
        let output = BufReader::new(child.stdout.take().unwrap());
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                // A line may be cut by a kill; then it was not printed.
                if let Ok(event) = serde_json::from_str(&line)
                    && sender.send(event).is_err()
                {
                    break;
                }
            }
        });
        let errors = Arc::new(Mutex::new(String::new()));
        let (kept, stderr) = (errors.clone(), BufReader::new(child.stderr.take().unwrap()));
        thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                kept.lock().unwrap().push_str(&format!("{line}\n"));
            }
        });
        Self { child, events, errors }
    }

    /// The next event; `None` once the program has ended and all of its events are read.
    pub(super) fn next(&self) -> Option<Value> {
        match self.events.recv_timeout(PATIENCE) {
            Ok(event) => Some(event),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("no event in time; stderr: {}", self.errors.lock().unwrap()),
        }
    }

    /// An event that has come already.
    pub(super) fn try_next(&self) -> Option<Value> {
        self.events.try_recv().ok()
    }

    /// Reads events until one of this name.
    pub(super) fn expect(&self, name: &str) -> Value {
        loop {
            let event = self.next().unwrap_or_else(|| panic!("no {name}; stderr: {}", self.errors.lock().unwrap()));
            if event["event"] == name {
                return event;
            }
        }
    }

    /// Its process id.
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// kill -9. The events printed before it can still be read.
    pub(super) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Freezes it. The signal alone does not: on a busy machine its threads run on for a while.
    pub(super) fn freeze(&self) {
        signal(self.id(), Signal::STOP);
        let (_, status) = waitpid(Some(pid(self.id())), WaitOptions::UNTRACED).unwrap().unwrap();
        assert!(status.stopped(), "it ended; stderr: {}", self.errors.lock().unwrap());
    }

    /// Waits for its end.
    pub(super) fn wait(&mut self) -> ExitStatus {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(begin.elapsed() < PATIENCE, "it does not end; stderr: {}", self.errors.lock().unwrap());
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A relay that always has the same place, key and store.
pub(super) struct Relay {
    directory: PathBuf,
    port: u16,
    program: Option<Program>,
    pub(super) address: String,
    /// Where its admin endpoint is.
    pub(super) admin: String,
}

impl Relay {
    pub(super) fn start(directory: &Path) -> Self {
        Self::configured(directory, "log = 'warn'\n")
    }

    /// With this configuration.
    pub(super) fn configured(directory: &Path, text: &str) -> Self {
        let port = lasting_place().port();
        std::fs::write(directory.join(CONFIG), text).unwrap();
        let mut relay =
            Self { directory: directory.to_owned(), port, program: None, address: String::new(), admin: String::new() };
        relay.start_again();
        relay
    }

    pub(super) fn start_again(&mut self) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_posthouse"));
        command.args(["run", "--json", "--admin", "127.0.0.1:0", "--listen"]);
        command.arg(format!("127.0.0.1:{}", self.port));
        command.arg("--config").arg(self.directory.join(CONFIG));
        command.arg("--data").arg(self.data()).arg("--certs").arg(self.directory.join("certs"));
        let program = Program::start(command, None);
        let ready = program.expect("ready");
        self.address = ready["address"].as_str().unwrap().to_owned();
        self.admin = ready["admin"].as_str().unwrap().to_owned();
        self.program = Some(program);
    }

    /// Changes its configuration while it runs, and waits until it says that it has read it.
    pub(super) fn reconfigure(&self, text: &str) -> String {
        std::fs::write(self.directory.join(CONFIG), text).unwrap();
        let program = self.program.as_ref().unwrap();
        let before = program.errors.lock().unwrap().len();
        let pid = rustix::process::Pid::from_raw(i32::try_from(program.id()).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
        let begin = Instant::now();
        loop {
            let said = program.errors.lock().unwrap()[before..].to_owned();
            if said.contains("read anew") || said.contains("nothing was changed") {
                return said;
            }
            assert!(begin.elapsed() < PATIENCE, "it does not say so: {said}");
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Takes another port, from the next start on.
    pub(super) fn move_away(&mut self) {
        self.port = lasting_place().port();
    }

    pub(super) fn kill(&mut self) {
        self.program.as_mut().unwrap().kill();
    }

    /// Its process id.
    pub(super) fn id(&self) -> u32 {
        self.program.as_ref().unwrap().id()
    }

    /// Asks it to stop.
    pub(super) fn terminate(&self) {
        signal(self.id(), Signal::TERM);
    }

    /// Waits for its end.
    pub(super) fn wait(&mut self) -> ExitStatus {
        self.program.as_mut().unwrap().wait()
    }

    /// What it logged so far.
    pub(super) fn logged(&self) -> String {
        self.program.as_ref().unwrap().errors.lock().unwrap().clone()
    }

    /// What its admin endpoint answers.
    pub(super) fn get(&self, path: &str) -> (u16, String) {
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
        let mut answer = agent.get(format!("http://{}/{path}", self.admin)).call().unwrap();
        (answer.status().as_u16(), answer.body_mut().read_to_string().unwrap())
    }

    /// Runs a command of the relay's program on its data directory, to its end.
    pub(super) fn command(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_posthouse"));
        command.args(arguments).arg("--data").arg(self.data()).stdin(Stdio::null()).output().unwrap()
    }

    pub(super) fn data(&self) -> PathBuf {
        self.directory.join("data")
    }
}

/// Waits until a condition holds, looking often.
pub(super) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < PATIENCE, "{what}: not in time");
        thread::sleep(Duration::from_millis(5));
    }
}

/// The value of one series among metrics.
pub(super) fn value(metrics: &str, series: &str) -> Option<f64> {
    metrics.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

/// Sends a signal to a process of ours.
pub(super) fn signal(process: u32, signal: Signal) {
    kill_process(pid(process), signal).unwrap();
}

fn pid(process: u32) -> Pid {
    Pid::from_raw(i32::try_from(process).unwrap()).unwrap()
}

/// The example peer with this directory.
pub(super) struct Peer {
    pub(super) directory: PathBuf,
    relay: String,
}

impl Peer {
    pub(super) fn new(directory: PathBuf, relay: &Relay) -> Self {
        Self { directory, relay: relay.address.clone() }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&*PEER);
        command.arg("--json").arg("--data").arg(&self.directory).args(["--relay", &self.relay]).args(arguments);
        command
    }

    pub(super) fn start(&self, arguments: &[&str]) -> Program {
        Program::start(self.command(arguments), None)
    }

    pub(super) fn start_with_input(&self, arguments: &[&str], input: Vec<u8>) -> Program {
        Program::start(self.command(arguments), Some(input))
    }

    /// As a person runs it.
    pub(super) fn human(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&*PEER);
        command.arg("--data").arg(&self.directory).args(["--relay", &self.relay]).args(arguments);
        command
    }

    /// Runs it to its end.
    pub(super) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).stdin(Stdio::null()).output().unwrap()
    }

    /// Its address, for others to send to.
    pub(super) fn address(&self) -> String {
        let output = self.run(&["id"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let event: Value = serde_json::from_slice(&output.stdout).unwrap();
        event["address"].as_str().unwrap().to_owned()
    }
}
