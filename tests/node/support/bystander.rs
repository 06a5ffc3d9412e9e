//! Two clients that have nothing to do with it: whatever somebody else does wrong, they go on.

use posthouse::address::RelayAddress;
use posthouse::client::Client;
use posthouse::protocol::Outcome;

use super::client::{Log, Taker, client, outcomes, send};
use super::relay::TestRelay;

/// Their numbers in the cast.
const SENDER: u8 = 201;
const RECIPIENT: u8 = 202;

/// See the head of this file.
pub(crate) struct Bystanders {
    home: RelayAddress,
    sender: Client,
    _recipient: Client,
    logs: [Log; 2],
    taker: Taker,
}

impl Bystanders {
    /// Connects them.
    pub(crate) async fn of(relay: &TestRelay) -> Self {
        let home = relay.home();
        let (sender, recipient) = (client(SENDER, &home), client(RECIPIENT, &home));
        let logs = [Log::of(&sender).await, Log::of(&recipient).await];
        for log in &logs {
            log.connected(1).await;
        }
        let taker = Taker::of(&recipient);
        Self { home, sender, _recipient: recipient, logs, taker }
    }

    /// A message goes from one to the other, in the sessions they always had.
    pub(crate) async fn assert_unharmed(&self) {
        let before = self.taker.len();
        let mut sent = send(&self.sender, &self.home, RECIPIENT, &["still here"]).await;
        assert_eq!(outcomes(&mut sent).await, [Outcome::Delivered]);
        assert_eq!(self.taker.len(), before + 1);
        for log in &self.logs {
            assert_eq!((log.connections(), log.farewells()), (1, Vec::new()));
        }
    }
}
