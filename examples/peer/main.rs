//! The example peer: a person's or a script's way to send and receive messages.
//!
//! `args` reads the command line, `directory` holds what a peer keeps on disk, `output` prints for people or
//! programs; `send`, `recv`, `count` and `chat` are the commands, `ledger` and `session` what they share,
//! `source` where messages come from, `screen` and `history` how a conversation looks and what is kept of it. All of it goes through the public client alone.
//!
//! Exit codes: 0 done, 1 failed, 2 usage or configuration, 3 some message ended expired or rejected.

mod args;
mod chat;
mod count;
mod directory;
mod fault;
mod history;
mod ledger;
mod lines;
mod output;
mod policy;
mod recv;
mod screen;
mod send;
mod session;
mod source;
mod words;

use std::future::Future;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, anyhow};
use clap::Parser as _;
use posthouse::client::{Client, ClientBuilder, Connection};
use posthouse::protocol::PolicyChange;
use tracing_subscriber::EnvFilter;

use args::{Args, Command};
use directory::Directory;
use fault::{Done, Fault};
use output::{Output, Report};

/// The environment variable that says what to log on standard error.
const LOG: &str = "POSTHOUSE_LOG";

/// What is logged otherwise: what nobody is told in another way.
const LOG_DEFAULT: &str = "warn,posthouse::client::driver=error";

fn main() -> ExitCode {
    let args = Args::parse();
    let log = std::env::var(LOG).unwrap_or_else(|_| LOG_DEFAULT.to_owned());
    let filter = match EnvFilter::builder().parse(&log) {
        Ok(filter) => filter,
        Err(error) => {
            Output::new(false).note(&format!("peer: the environment variable {LOG} is no filter ({error})"));
            return ExitCode::from(2);
        }
    };
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let mut out = Output::new(args.json);
    match run(args, &mut out) {
        Ok(Done::Well) => ExitCode::SUCCESS,
        Ok(Done::SomeLost) => ExitCode::from(3),
        Err(fault) => {
            if let Some(words) = fault.words() {
                out.note(&format!("peer: {words}"));
            }
            ExitCode::from(fault.code())
        }
    }
}

fn run(args: Args, out: &mut Output) -> Result<Done, Fault> {
    let path = args.data.ok_or_else(|| Fault::Usage(anyhow!("give the peer's directory with --data DIR")))?;
    if matches!(args.command, Command::Id) {
        let found = directory::look(&path, args.relay)?;
        if let Some(token) = &args.invite {
            directory::remember_invitation(&path, token)?;
        }
        return show(&found, out);
    }
    let directory = Directory::open(&path, args.relay)?;
    if let Some(token) = &args.invite {
        directory::remember_invitation(&path, token)?;
    }
    let home = directory.relay.clone().ok_or_else(|| {
        Fault::Usage(anyhow!("no relay is known yet: give one with --relay ADDRESS, as `posthouse run` prints it"))
    })?;
    let mut builder = Client::builder(directory.identity.clone(), home);
    let invitation = directory::invitation(&path)?;
    if let Some(token) = &invitation {
        builder = builder.invitation(token);
    }
    let with = Run { invited: invitation.map(|_| path.clone()) };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("no runtime")?;
    runtime.block_on(async {
        match args.command {
            Command::Id => Ok(Done::Well),
            Command::Send(args) => {
                with.client(send::set_up(builder.directory(&path)), |c| send::run(c, args, out)).await
            }
            Command::Recv(args) => {
                with.client(source::set_up(builder.directory(&path), &args), |c| recv::run(c, args, out)).await
            }
            // In memory: who only looks leaves the outbox alone.
            Command::Count(args) => with.client(count::set_up(builder), |c| count::run(c, args, out)).await,
            Command::Block(args) => {
                let change = PolicyChange { block: vec![args.peer], ..PolicyChange::default() };
                with.client(count::set_up(builder), |c| policy::run(c, change, args.timeout.into(), out)).await
            }
            Command::Allow(args) => {
                let change = PolicyChange { allow: vec![args.peer], ..PolicyChange::default() };
                with.client(count::set_up(builder), |c| policy::run(c, change, args.timeout.into(), out)).await
            }
            Command::Policy(args) => {
                let change = PolicyChange { senders: args.senders.map(policy::senders), ..PolicyChange::default() };
                with.client(count::set_up(builder), |c| policy::run(c, change, args.timeout.into(), out)).await
            }
            Command::Chat(args) => {
                with.client(chat::set_up(builder.directory(&path), &args), |c| chat::run(c, args, &path, out)).await
            }
        }
    })
}

/// How a command runs.
struct Run {
    /// The directory with an invitation that is shown, to be forgotten once the relay has let this peer in.
    invited: Option<PathBuf>,
}

impl Run {
    /// Starts a client for a command, and closes it whatever becomes of the command.
    async fn client<F>(&self, builder: ClientBuilder, command: impl FnOnce(Client) -> F) -> Result<Done, Fault>
    where
        F: Future<Output = Result<Done, Fault>>,
    {
        let client = builder.start().map_err(|error| Fault::Failed(error.into()))?;
        if let Some(path) = self.invited.clone() {
            let mut connection = client.connection();
            tokio::spawn(async move {
                if connection.wait_for(|now| matches!(now, Connection::Open { .. })).await.is_ok() {
                    directory::forget_invitation(&path);
                }
            });
        }
        let result = command(client.clone()).await;
        if let Some(path) = &self.invited
            && matches!(*client.connection().borrow(), Connection::Open { .. })
        {
            directory::forget_invitation(path);
        }
        client.close().await;
        result
    }
}

fn show(found: &directory::Found, out: &mut Output) -> Result<Done, Fault> {
    let peer = found.identity.peer_id();
    let address = found.relay.as_ref().map(|relay| relay.peer(peer).to_string());
    let reach = match &address {
        Some(address) => format!("address  {address}"),
        None => "address  none yet: name a home relay with --relay ADDRESS".to_owned(),
    };
    let human = format!("peer     {peer}\n{reach}");
    out.tell(&Report::Id { peer: peer.to_string(), address }, Some(human))?;
    Ok(Done::Well)
}
