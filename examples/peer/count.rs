//! `peer count`: what waits, and nothing is changed by looking.

use posthouse::client::{Client, ClientBuilder, Reading};
use posthouse::time::SystemClock;

use crate::args::CountArgs;
use crate::fault::{Done, Fault};
use crate::output::{Output, Report};
use crate::session::{self, Troubles, interrupted};
use crate::words;

pub(crate) fn set_up(builder: ClientBuilder) -> ClientBuilder {
    builder.reading(Reading::Nothing)
}

pub(crate) async fn run(client: Client, args: CountArgs, out: &mut Output) -> Result<Done, Fault> {
    let clock = SystemClock::shared();
    let until = clock.now() + args.timeout.into();
    let mut troubles = Troubles::default();
    let status = tokio::select! {
        status = session::first(&client, (&clock, Some(until)), &mut troubles, out) => status?,
        () = interrupted() => return Err(anyhow::anyhow!("stopped before the relay answered").into()),
    };
    out.tell(&Report::status(&status), Some(words::status(&status, clock.date())))?;
    Ok(Done::Well)
}
