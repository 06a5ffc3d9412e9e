//! A server of its own for one run: its process, its port, its directory. All are gone afterwards.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tempfile::TempDir;

/// How long it may take to listen.
const START: Duration = Duration::from_secs(10);

pub struct Server {
    process: Child,
    pub address: SocketAddr,
    _directory: TempDir,
}

impl Server {
    /// Starts `program` with a configuration made for a port and a data directory.
    pub fn start(program: &str, flag: &str, config: impl Fn(u16, &Path) -> String) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("posthouse-peers-").tempdir()?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let file = directory.path().join("server.conf");
        fs::write(&file, config(port, &directory.path().join("data")))?;
        let mut command = Command::new(program);
        command.arg(flag).arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().with_context(|| format!("{program} cannot be started"))?;
        let mut server = Self { process, address: ([127, 0, 0, 1], port).into(), _directory: directory };
        let start = Instant::now();
        while std::net::TcpStream::connect(server.address).is_err() {
            if let Some(status) = server.process.try_wait()? {
                bail!("{program} ended with {status}");
            }
            if start.elapsed() > START {
                bail!("{program} does not listen on {}", server.address);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
    }

    pub fn id(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}
