//! `peer chat` on a terminal, as a person sees it.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use super::program::{PATIENCE, Peer, Relay};

const ROWS: u16 = 20;
const COLUMNS: u16 = 60;

/// A program on a terminal of its own.
struct Terminal {
    child: Child,
    keys: File,
    screen: Arc<Mutex<vt100::Parser>>,
}

impl Terminal {
    fn start(mut command: Command) -> Self {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&ours).unwrap();
        unlockpt(&ours).unwrap();
        tcsetwinsize(&ours, Winsize { ws_row: ROWS, ws_col: COLUMNS, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        let name = ptsname(&ours, Vec::new()).unwrap();
        let name = std::path::Path::new(std::ffi::OsStr::from_bytes(name.as_bytes()));
        let theirs = File::options().read(true).write(true).open(name).unwrap();
        let copy = || theirs.try_clone().unwrap();
        let child = command.stdin(copy()).stdout(copy()).stderr(copy()).spawn().unwrap();
        let keys = File::from(ours);
        let screen = Arc::new(Mutex::new(vt100::Parser::new(ROWS.try_into().unwrap(), COLUMNS.try_into().unwrap(), 0)));
        let (mut output, shown) = (keys.try_clone().unwrap(), screen.clone());
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(length @ 1..) = output.read(&mut bytes) {
                shown.lock().unwrap().process(&bytes[..length]);
            }
        });
        Self { child, keys, screen }
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    /// The rows that are not empty, with the times of day left out.
    fn rows(&self) -> Vec<String> {
        let shown = self.screen.lock().unwrap().screen().contents();
        let word = |word: &str| if word.matches(':').count() == 2 { "TIME".to_owned() } else { word.to_owned() };
        let row = |row: &str| row.trim_end().split(' ').map(word).collect::<Vec<_>>().join(" ");
        shown.lines().map(row).filter(|row| !row.is_empty()).collect()
    }

    /// Waits until this is what it ends with.
    fn expect(&self, last: &[&str]) {
        self.wait_for(&format!("{last:#?} at the end"), |rows| {
            rows.iter().map(String::as_str).collect::<Vec<_>>().ends_with(last)
        });
    }

    fn wait_for(&self, what: &str, shows: impl Fn(&[String]) -> bool) {
        let begin = Instant::now();
        while !shows(&self.rows()) {
            assert!(begin.elapsed() < PATIENCE, "{what}: not in {:#?}", self.rows());
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn wait(mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
fn ticks_change_in_their_place_and_what_is_being_typed_stays_whole() {
    let directory = tempfile::tempdir().unwrap();
    let mut relay = Relay::start(directory.path());
    let (alice, bob) = (Peer::new(directory.path().join("a"), &relay), Peer::new(directory.path().join("b"), &relay));
    let (to_alice, to_bob) = (alice.address(), bob.address());
    let short = format!("{}..", &to_alice.rsplit('/').next().unwrap()[..8]);
    let (from, talking) = (
        format!("   TIME {short} > hi bob"),
        format!("talking with {short}; /help says what can be typed, Ctrl-D ends"),
    );

    let mut chat = Terminal::start(bob.human(&["chat", &to_alice]));
    chat.expect(&[&talking, "connected; 0 messages wait here", ">"]);
    chat.press("hello\r");
    chat.expect(&["✓  TIME you > hello", ">"]);
    chat.press("half a li");
    chat.expect(&["✓  TIME you > hello", "> half a li"]);
    assert!(alice.run(&["send", "--to", &to_bob, "hi bob"]).status.success());
    chat.expect(&["✓  TIME you > hello", &from, "> half a li"]);
    assert!(alice.run(&["recv", "--max", "1"]).status.success());
    chat.expect(&["connected; 0 messages wait here", "✓✓ TIME you > hello", &from, "> half a li"]);

    relay.terminate();
    assert!(relay.wait().success());
    chat.expect(&["(not connected) > half a li"]);
    chat.press("ne\r");
    chat.expect(&["   TIME you > half a line", "(not connected) >"]);
    relay.start_again();
    chat.wait_for("its tick", |rows| rows.iter().any(|row| row == "✓  TIME you > half a line"));
    chat.press("/quit\r");
    assert!(chat.wait().success());

    // It is known the next time, and so is what became of it meanwhile.
    let chat = Terminal::start(bob.human(&["chat", &to_alice]));
    chat.expect(&[
        "✓✓ TIME you > hello",
        &from,
        "✓  TIME you > half a line",
        &talking,
        "connected; 0 messages wait here",
        ">",
    ]);
    assert!(alice.run(&["recv", "--max", "1"]).status.success());
    chat.expect(&["✓✓ TIME you > half a line", &talking, "connected; 0 messages wait here", ">"]);
}
