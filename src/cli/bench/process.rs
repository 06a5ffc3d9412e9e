//! What a process has used, as Linux tells it in `/proc`. Elsewhere nothing is known, and nothing is said.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// A running process.
#[derive(Debug, Clone)]
pub(super) struct Process {
    directory: PathBuf,
}

/// The time that processors have spent on relays, if they are our own, and on the clients, which are in this process.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Used {
    relays: Option<Duration>,
    clients: Option<Duration>,
}

impl Used {
    pub(super) fn so_far(relays: &[Process]) -> Self {
        let of_relays = relays.iter().map(Process::cpu).sum::<Option<Duration>>();
        Self { relays: of_relays.filter(|_| !relays.is_empty()), clients: Process::own().cpu() }
    }

    pub(super) fn since(self, earlier: &Self) -> Self {
        let since = |now: Option<Duration>, then: Option<Duration>| Some(now?.saturating_sub(then?));
        Self { relays: since(self.relays, earlier.relays), clients: since(self.clients, earlier.clients) }
    }

    /// This and what was used at another time.
    pub(super) fn and(self, other: Self) -> Self {
        let sum = |one: Option<Duration>, other: Option<Duration>| Some(one.unwrap_or_default() + other?);
        Self { relays: sum(self.relays, other.relays), clients: sum(self.clients, other.clients) }
    }

    /// Microseconds for each of so many messages, to a tenth: of the relays, and of the clients.
    #[expect(clippy::cast_precision_loss, reason = "messages here are far below 2^52")]
    pub(super) fn per_message(&self, messages: u64) -> [Option<f64>; 2] {
        let each = |used: Duration| (used.as_secs_f64() * 1e7 / messages.max(1) as f64).round() / 10.0;
        [self.relays.map(each), self.clients.map(each)]
    }

    /// The same for people, where it is known.
    pub(super) fn words(&self, messages: u64) -> String {
        match self.per_message(messages) {
            [Some(relays), Some(clients)] => {
                format!("\nCPU time for each message: relay {relays} µs, clients {clients} µs")
            }
            _ => String::new(),
        }
    }
}

/// Its memory, bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Memory {
    /// The most since [`Process::forget_peak`].
    pub(super) peak: u64,
    /// Now.
    pub(super) now: u64,
}

impl Process {
    /// This one.
    pub(super) fn own() -> Self {
        Self { directory: "/proc/self".into() }
    }

    pub(super) fn new(id: u32) -> Self {
        Self { directory: format!("/proc/{id}").into() }
    }

    /// The time that processors have spent on it.
    pub(super) fn cpu(&self) -> Option<Duration> {
        let stat = fs::read_to_string(self.directory.join("stat")).ok()?;
        // The program's name in parentheses may hold anything, spaces included; behind it is field 3.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
        Some(Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second().max(1)))
    }

    pub(super) fn memory(&self) -> Option<Memory> {
        let status = fs::read_to_string(self.directory.join("status")).ok()?;
        let bytes = |name: &str| -> Option<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim_start_matches(':').trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib << 10)
        };
        Some(Memory { peak: bytes("VmHWM")?, now: bytes("VmRSS")? })
    }

    /// Counts the peak of its memory from now on, where the system allows that.
    pub(super) fn forget_peak(&self) {
        fs::write(self.directory.join("clear_refs"), "5").ok();
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn what_this_process_has_used_is_known() {
        let process = Process::own();
        let memory = process.memory().unwrap();
        assert!(memory.now > 100 << 10 && memory.peak >= memory.now, "{memory:?}");
        assert!(process.cpu().unwrap() < Duration::from_secs(86_400));
        assert!(Process::new(u32::MAX).cpu().is_none());
    }
}
