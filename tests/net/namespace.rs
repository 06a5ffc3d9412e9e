//! A network of one's own in the kernel, for the programs, sockets and threads that are put into it.
//!
//! A namespace has no name: it exists as long as this test's handle, a process or a socket in it. So nothing can
//! be left behind, not even by a test that is killed, and no two tests can meet.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::{AsFd, AsRawFd};
use std::process::{Command, Stdio};
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::runtime::Handle;

/// See the head of this file.
pub(crate) struct Namespace(File);

impl Namespace {
    /// A new one, in which nothing is but a loopback interface.
    ///
    /// # Errors
    /// Why the system does not give one, in words.
    pub(crate) fn new() -> Result<Self, String> {
        let mut holder = Command::new("unshare")
            .args(["--net", "sh", "-c", "echo ready && read end"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("unshare: {error}"))?;
        let mut ready = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        let namespace = File::open(format!("/proc/{}/ns/net", holder.id()));
        drop(holder.stdin.take());
        let mut errors = String::new();
        holder.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
        holder.wait().unwrap();
        if ready.is_empty() {
            return Err(errors.trim().to_owned());
        }
        let namespace = Self(namespace.map_err(|error| error.to_string())?);
        // Some kernels let a namespace be made and not be entered.
        thread::scope(|scope| scope.spawn(|| namespace.enter()).join().unwrap())?;
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    fn enter(&self) -> Result<(), String> {
        move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network)).map_err(|error| error.to_string())
    }

    /// Does this inside: processes and sockets that it makes are in there, and stay. The caller's tokio runtime is
    /// there as well.
    pub(crate) fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let runtime = Handle::try_current().ok();
        let inside = || {
            let _context = runtime.as_ref().map(Handle::enter);
            self.enter().unwrap();
            work()
        };
        // Entering is for the thread and for good: it is one that ends.
        thread::scope(|scope| scope.spawn(inside).join().unwrap())
    }

    /// Runs `ip` inside.
    ///
    /// # Errors
    /// What it prints.
    pub(crate) fn ip(&self, arguments: &str) -> Result<(), String> {
        let mut command = Command::new("ip");
        command.args(arguments.split(' ')).stdin(Stdio::null());
        let output = self.within(|| command.output()).map_err(|error| format!("ip: {error}"))?;
        if output.status.success() {
            return Ok(());
        }
        Err(format!("ip {arguments}: {}", String::from_utf8_lossy(&output.stderr).trim()))
    }

    /// Where `ip` finds it.
    pub(crate) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }
}
