//! The side of who submits: an outbox, and the connection to the relay that it goes over. A sender has one, and so has a
//! link between two relays.

use posthouse::delivery::{Outbox, Request};
use posthouse::protocol::Durability;

use super::ledger::Ledger;
use super::net::{Down, Letter, Net, SUBMIT, Up};
use super::world::Time;

#[derive(Debug, Clone)]
pub(crate) struct Session {
    pub(crate) link: Option<u64>,
    /// A:HELLO has come.
    pub(crate) connected: bool,
    pub(crate) outbox: Outbox,
}

impl Session {
    pub(crate) const fn new(outbox: Outbox) -> Self {
        Self { link: None, connected: false, outbox }
    }

    pub(crate) fn leave(&mut self, net: &mut Net) {
        if let Some(link) = self.link.take() {
            net.leave(link);
        }
        self.connected = false;
        self.outbox.disconnect();
    }

    /// What a relay says to who submits.
    pub(crate) fn receive(&mut self, time: Time, ledger: &mut Ledger, frame: Down) {
        let outbox = &mut self.outbox;
        let taken = match frame {
            Down::Hello { store, .. } => {
                self.connected = true;
                outbox.connect(store, Durability::Disk);
                Ok(())
            }
            Down::Answer(answer) => outbox.on_msg_a(time.now(), answer),
            Down::Rows(rows) => outbox.on_where_a(time.now(), rows),
            Down::Closed(closed) => outbox.on_close_a(&closed),
            Down::Outcomes(outcomes) => {
                outbox.on_ack_n(&outcomes);
                Ok(())
            }
            other => panic!("{other:?} for a sender"),
        };
        if let Err(error) = taken {
            ledger.breaks(format!("an honest relay broke the protocol: {error}"));
        }
    }

    /// Sends one request, if there is one. `held` finds the message of a key, if it is still there.
    pub(crate) fn send(
        &mut self,
        net: &mut Net,
        time: Time,
        held: impl FnOnce(u64) -> Option<Letter>,
    ) -> Option<String> {
        let link = self.link.filter(|_| self.connected)?;
        let request = self.outbox.poll_request(time.now())?;
        let said = format!("{request:?}");
        let frame = match request {
            Request::Ask(ask) => Up::Where(ask),
            Request::Close(close) => Up::Close(close),
            Request::Offer(offer) => {
                let Some(letter) = held(offer.key) else {
                    self.outbox.withdraw(offer.request);
                    return Some(format!("{said} withdrawn"));
                };
                let ttl = offer.deadline - time.now();
                Up::Message { request: offer.request, prev: offer.prev, ttl, letter }
            }
        };
        net.up(link, SUBMIT, frame);
        Some(said)
    }
}
