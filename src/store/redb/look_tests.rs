//! What an engine wants to look at beside its writer is read, whoever made the group before it durable.

use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use redb::WriteTransaction;

use super::backend::Backend;
use super::engine::{Beside, Changes, Engine, Weight};
use super::fault::Fault;
use super::file::{Schema, Sizes, StoreFile};
use super::writer::{Writer, WriterMode};
use crate::random::SystemEntropy;

/// Has the tables synced for each request, and looks at them after each.
struct Looker(Sender<()>);

impl Engine for Looker {
    type Request = ();
    type Answer = ();
    type Work<'t> = ();

    fn begin(&mut self, _transaction: &WriteTransaction) -> Result<(), Fault> {
        Ok(())
    }

    fn apply(&mut self, _work: &mut (), _request: &()) -> Result<(), Fault> {
        Ok(())
    }

    fn finish(&mut self, _work: &mut ()) -> Result<Changes, Fault> {
        Ok(Changes::Some)
    }

    fn committed(&mut self) {}

    fn beside(&mut self) -> Option<Box<Beside>> {
        let looks = self.0.clone();
        Some(Box::new(move |_| {
            looks.send(()).unwrap();
            Ok(())
        }))
    }

    fn weight(_request: &()) -> Weight {
        Weight { ops: 1, bytes: 0, patient: false }
    }
}

#[test]
fn what_an_engine_wants_to_look_at_is_read_after_a_group_that_synced_the_tables() {
    for mode in [WriterMode::Thread, WriterMode::Inline] {
        let (looks, looked) = channel();
        let schema = Schema { kind: "test", upgrades: &[], replay: None };
        let file = StoreFile::open(Backend::Memory, schema, Sizes::default(), &SystemEntropy, &mut |_| Ok(())).unwrap();
        let writer = Writer::start(file, Looker(looks), mode, "test").unwrap();
        let answer = writer.submit(());
        looked.recv_timeout(Duration::from_secs(10)).expect("it looks");
        drop(answer);
    }
}
