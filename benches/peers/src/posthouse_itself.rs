//! posthouse: all six packets, each message synced to the disk before it is accepted, over TLS 1.3. Its own bench does
//! the work; it tells its figures as JSON.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;

use crate::work::{Figures, Load};

pub fn run(program: &str, load: Load, body_bytes: usize, seconds: Duration) -> anyhow::Result<Figures> {
    let [pairs, window, body] = [load.pairs, load.window, u32::try_from(body_bytes)?].map(|count| count.to_string());
    bench(program, seconds, &["--pairs", &pairs, "--window", &window, "--body", &body])
}

/// So many messages in a second, by all pairs together.
pub fn run_steadily(program: &str, pairs: u32, rate: u32, seconds: Duration) -> anyhow::Result<Figures> {
    bench(program, seconds, &["--pairs", &pairs.to_string(), "--rate", &rate.to_string()])
}

fn bench(program: &str, seconds: Duration, arguments: &[&str]) -> anyhow::Result<Figures> {
    let mut command = Command::new(program);
    command.args(["bench", "--json", "--seconds", &seconds.as_secs().to_string()]).args(arguments);
    let output = command.output().with_context(|| format!("{program} cannot be started"))?;
    if !output.status.success() {
        bail!("{program} bench: {}", String::from_utf8_lossy(&output.stderr));
    }
    let lines = String::from_utf8(output.stdout)?;
    let mut told = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let result = told.rfind(|line| line["event"] == "result").context("the bench told no result")?;
    if result["durability"] != "disk" {
        bail!("the relay does not sync: {result}");
    }
    let figure = |name: &str| result[name].as_f64().with_context(|| format!("no {name} in {result}"));
    Ok(Figures {
        per_second: figure("messages_per_second")?,
        p50_us: figure("p50_us")?,
        p99_us: figure("p99_us")?,
        server_us: figure("relay_cpu_us_per_message")?,
        clients_us: figure("clients_cpu_us_per_message")?,
    })
}
