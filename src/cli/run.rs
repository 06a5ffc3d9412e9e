//! `posthouse run`: a relay, until it is told to stop.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use clap::Args as ClapArgs;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use super::config::{Place, Settings};
use super::reload::Reload;
use super::{CliError, identity, output};
use crate::admin::Admin;
use crate::random::SystemEntropy;
use crate::relay::{Relay, RelayOptions};
use crate::store::redb::Backend;
use crate::store::redb::relay::{FreeSpace, OpenOptions, RedbRelayStore};
use crate::time::SystemClock;
use crate::transport::Socket;

#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    #[command(flatten)]
    place: Place,
    /// Directory of the store [default: ./data]
    #[arg(long, value_name = "DIR", env = "POSTHOUSE_DATA")]
    data: Option<PathBuf>,
    /// TCP address of the admin endpoint [default: 127.0.0.1:9443]
    #[arg(long, value_name = "HOST:PORT", env = "POSTHOUSE_ADMIN")]
    admin: Option<SocketAddr>,
    /// What to log on standard error: error, warn, info, debug, or a tracing filter [default: info]
    #[arg(long, value_name = "FILTER", env = "POSTHOUSE_LOG")]
    log: Option<String>,
    /// Print one JSON object a line instead of words
    #[arg(long)]
    json: bool,
}

/// Runs a relay until SIGTERM, Ctrl-C, or a failure that only a new start can mend.
pub(super) fn run(args: Args) -> Result<(), CliError> {
    let json = args.json;
    let read = move || {
        let mut settings = Settings::load(&args.place, args.data.as_deref(), args.admin)?;
        settings.log = args.log.clone().unwrap_or(settings.log);
        Ok(settings)
    };
    let now = read()?;
    let log = tracing_subscriber::fmt()
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .with_env_filter(filter(&now.log).map_err(CliError::Usage)?)
        .with_filter_reloading();
    let handle = log.reload_handle();
    log.init();
    let reload = Reload { now, read: Box::new(read), set_log: Box::new(move |filter| Ok(handle.reload(filter)?)) };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("no runtime")?;
    Ok(runtime.block_on(serve(reload, json))?)
}

/// What to log.
pub(super) fn filter(log: &str) -> anyhow::Result<EnvFilter> {
    EnvFilter::builder().parse(log).with_context(|| format!("log {log:?} is no filter"))
}

async fn serve(mut reload: Reload, json: bool) -> anyhow::Result<()> {
    let settings = &reload.now;
    let identity = identity::load(settings)?;
    let data = &settings.data;
    std::fs::create_dir_all(data)
        .with_context(|| format!("the data directory {} cannot be made: name another with --data", data.display()))?;
    let (clock, entropy) = (SystemClock::shared(), SystemEntropy::shared());
    let store_file = settings.store_file();
    let store = RedbRelayStore::open(OpenOptions {
        free_space: FreeSpace::File(store_file.clone()),
        limits: settings.store.clone(),
        ..OpenOptions::new(Backend::File(store_file), clock.clone(), entropy.clone())
    })?;
    let store = Arc::new(store);
    let relay = Relay::start(RelayOptions {
        socket: Socket::Bind(settings.listen),
        limits: settings.relay.clone(),
        clock,
        ..RelayOptions::new(identity, store.clone())
    });
    let relay = relay.with_context(|| format!("--listen {}", settings.listen))?;
    let admin = Admin::start(settings.admin, relay.observer(), &*entropy).await;
    let admin = admin.with_context(|| format!("--admin {}: choose another address or port", settings.admin))?;
    admin.access().write(data).with_context(|| format!("the file for commands in {}", data.display()))?;
    announce(settings, &relay, &admin, json)?;
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut hangup = signal(SignalKind::hangup())?;
    let failed = loop {
        tokio::select! {
            _ = terminate.recv() => break None,
            _ = interrupt.recv() => break None,
            _ = hangup.recv() => reload.run(&relay, &store),
            error = relay.failed() => break Some(error),
        }
    };
    relay.shutdown().await;
    match failed {
        Some(error) => Err(anyhow!(error)),
        None => Ok(store.close().await?),
    }
}

fn announce(settings: &Settings, relay: &Relay, admin: &Admin, json: bool) -> anyhow::Result<()> {
    let (host, guessed) = settings.shown(relay.local_addr());
    let address = relay.address(host).to_string();
    let admin = admin.access().address;
    if json {
        let ready = json!({ "event": "ready", "address": address, "admin": admin.to_string() });
        return Ok(output::line(&ready.to_string())?);
    }
    let version = env!("CARGO_PKG_VERSION");
    output::line(&format!(
        "posthouse {version} is ready\n\n  address  {address}\n  admin    http://{admin}/healthz\n"
    ))?;
    if guessed {
        output::line("The address is for this machine; name what others reach with --advertise HOST:PORT.")?;
    }
    output::line(&format!(
        "Connect the example peer:\n\n  cargo run --release --example peer -- --data ./alice --relay {address} recv\n"
    ))?;
    Ok(())
}
