//! `posthouse run`: a relay, until it is told to stop.

use std::io::IsTerminal;
use std::num::NonZero;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use clap::Args as ClapArgs;
use futures_util::FutureExt;
use serde_json::json;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};

use super::config::{Flags, LogFormat, Settings, log_filter};
use super::live::Live;
use super::reload::{Reload, SetLog};
use super::{CliError, environment, identity, output};
use crate::admin::{ACCESS_FILE, Admin};
use crate::random::SystemEntropy;
use crate::relay::{Relay, RelayOptions};
use crate::store::StoreError;
use crate::store::redb::Backend;
use crate::store::redb::relay::{FreeSpace, OpenOptions, RedbRelayStore};
use crate::time::SystemClock;
use crate::transport::Socket;

/// Signals that come within this long ask for the same thing.
const SAME_REQUEST: Duration = Duration::from_millis(200);

#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  posthouse run                                      on defaults alone: files below this directory
  posthouse run --advertise relay.example.org:4433   one that others can reach
  posthouse run --config /etc/posthouse/posthouse.toml --log info,posthouse::federation=debug

SIGTERM or Ctrl-C drains and ends it; SIGHUP reads the configuration file anew.")]
pub(super) struct Args {
    #[command(flatten)]
    flags: Flags,
    /// Print one JSON object a line instead of words
    #[arg(long)]
    json: bool,
}

/// Runs a relay until SIGTERM, Ctrl-C, or a failure that only a new start can mend.
pub(super) fn run(args: Args) -> Result<(), CliError> {
    let json = args.json;
    let read = move || Settings::load(args.flags.clone());
    let now: Settings = read()?;
    let live = Live::new();
    let above = live.clone();
    let log = tracing_subscriber::fmt()
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(move || above.log())
        .with_env_filter(log_filter(&now.log).map_err(|what| CliError::Usage(anyhow!("log {what}")))?);
    let set_log: SetLog = match now.log_format {
        LogFormat::Text => {
            let log = log.with_filter_reloading();
            let handle = log.reload_handle();
            log.init();
            Box::new(move |filter| Ok(handle.reload(filter)?))
        }
        LogFormat::Json => {
            let log = log.json().with_filter_reloading();
            let handle = log.reload_handle();
            log.init();
            Box::new(move |filter| Ok(handle.reload(filter)?))
        }
    };
    let reload = Reload { now, read: Box::new(read), set_log };
    let runtime = runtime().context("no runtime")?;
    Ok(runtime.block_on(serve(reload, json, &live))?)
}

/// The store's writer has a thread of its own, and is as busy as a worker: with one worker less nobody waits for a
/// processor, and fewer are woken for one message. `TOKIO_WORKER_THREADS` says otherwise.
///
/// Its answers come to the runtime from outside, and tokio looks there but five thousand times a second while it has work of
/// its own: with a thousand sessions under load an answer that took 5 ms in the store was sent after 50 more. So it looks
/// there first.
fn runtime() -> std::io::Result<Runtime> {
    let mut builder = Builder::new_multi_thread();
    builder.global_queue_interval(1);
    if std::env::var_os("TOKIO_WORKER_THREADS").is_none() {
        let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
        builder.worker_threads(processors.saturating_sub(1).max(1));
    }
    builder.enable_all().build()
}

async fn serve(mut reload: Reload, json: bool, live: &Live) -> anyhow::Result<()> {
    let slips = environment::unknown(&environment::ours());
    if !slips.is_empty() {
        tracing::warn!("no setting is called {}: such environment variables change nothing", slips.join(" or "));
    }
    let settings = &reload.now;
    let identity = identity::load(settings)?;
    let data = &settings.data;
    std::fs::create_dir_all(data)
        .with_context(|| format!("the data directory {} cannot be made: name another with --data", data.display()))?;
    // The token goes there, and the store. Found out before either, it is said in one word.
    tempfile::Builder::new().prefix(".writable").tempfile_in(data).with_context(|| {
        format!(
            "the data directory {} cannot be written: make it this user's, or name another with --data",
            data.display()
        )
    })?;
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
        clock: clock.clone(),
        ..RelayOptions::new(identity, store.clone())
    });
    let relay = relay.with_context(|| format!("--listen {}", settings.listen))?;
    let admin = Admin::start(settings.admin, relay.observer(), clock, &*entropy).await;
    let admin = admin.with_context(|| format!("--admin {}: choose another address or port", settings.admin))?;
    if let Err(error) = admin.access().write(data) {
        // A full disk, as a rule: what waits has to be taken for there to be room again.
        let data = data.display();
        tracing::error!(%error, "{ACCESS_FILE} in {data} cannot be written: commands do not find this relay until a new start");
    }
    // Before anybody can know that it is ready: a signal that comes at once would end it without a word.
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut hangup = signal(SignalKind::hangup())?;
    announce(settings, &relay, &admin, json)?;
    let mut asked = async || {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let observer = relay.observer();
    let shown = async {
        live.show(observer).await;
        std::future::pending::<()>().await;
    };
    tokio::pin!(shown);
    loop {
        tokio::select! {
            () = asked() => break,
            _ = hangup.recv() => reload.run(&relay, &store),
            () = &mut shown => {}
            error = relay.failed() => return fail(relay, error).await,
        }
    }
    let again = async {
        // One request may come as several signals: timeout(1) sends two, and Ctrl-C reaches a whole group.
        tokio::time::sleep(SAME_REQUEST).await;
        while asked().now_or_never().is_some() {}
        asked().await;
    };
    tokio::select! {
        stopped = stop(relay, &store, reload.now.drain) => stopped,
        () = again => bail!("told twice to stop: ended at once, as a crash would; nothing that was promised is lost"),
    }
}

/// The store failed for good: nothing can be finished any more.
async fn fail(relay: Relay, error: StoreError) -> anyhow::Result<()> {
    relay.shutdown().await;
    Err(anyhow!(error))
}

/// Sends everybody away, finishes what they have begun, and closes the store.
async fn stop(relay: Relay, store: &RedbRelayStore, limit: Duration) -> anyhow::Result<()> {
    let polite = async {
        tokio::select! {
            () = relay.drain() => {}
            error = relay.failed() => return Err(anyhow!(error)),
        }
        relay.shutdown().await;
        Ok(())
    };
    match tokio::time::timeout(limit, polite).await {
        Ok(stopped) => stopped?,
        Err(_) => {
            tracing::warn!("some sessions did not finish in time; they are cut off, and go on when they come back")
        }
    }
    Ok(store.close().await?)
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
