//! What breaks, and what the onlooker has to know about it.

use std::time::Duration;

use posthouse::protocol::RejectReason;

use super::plan::Fault;
use super::world::{Who, World, is_known};

impl World {
    /// Breaks something.
    pub(crate) fn fault(&mut self) {
        let fault = self.chance.pick(&self.plan.faults.clone());
        self.happens(fault);
    }

    pub(crate) fn happens(&mut self, fault: Fault) {
        let at = self.chance.below(self.relays.len());
        self.note(|| format!("FAULT {fault:?}"));
        match fault {
            Fault::Hangup => {
                let client = self.chance.below(self.clients());
                let link = self.link(client);
                if self.chance.one_in(3)
                    && let Some(link) = link
                {
                    let arrives = self.chance.one_in(2);
                    self.end(link, arrives);
                } else {
                    self.leave(client);
                }
            }
            Fault::CrashClient => {
                let client = self.chance.below(self.senders.len() + self.recipients.len());
                let kept = self.chance.below(4);
                match self.who(client) {
                    Who::Sender(at) => {
                        self.rows_may_stay = true;
                        self.senders[at].crash(&mut self.net, self.time, &mut self.ledger, kept);
                    }
                    Who::Recipient(at) => self.recipients[at].crash(&mut self.net, &mut self.ledger, kept),
                    Who::Hop(_) => {}
                }
            }
            Fault::CrashRelay => {
                self.crash_relay(at);
                self.reopen_hops(at);
            }
            Fault::RestoreRelay if self.relays[at].backup.is_none() => {
                self.relays[at].backup = Some(self.relays[at].disk.clone());
            }
            Fault::RestoreRelay | Fault::LoseRelay => {
                self.crash_relay(at);
                (self.ledger.disk_lost, self.rows_may_stay) = (true, true);
                self.relays[at].replace_disk(self.time, fault == Fault::LoseRelay);
                self.reopen_hops(at);
            }
            Fault::RestoreSender => {
                let sender = self.chance.below(self.senders.len());
                match self.senders[sender].has_copy() {
                    false => self.senders[sender].back_up(&self.ledger),
                    true => {
                        self.rows_may_stay = true;
                        self.senders[sender].put_back(&mut self.net, self.time, &mut self.ledger);
                    }
                }
            }
            Fault::Full => self.relays[at].full ^= true,
            Fault::Refuse => {
                let reason = self.chance.pick(&[RejectReason::Blocked, RejectReason::NoRoute, RejectReason::TooLarge]);
                self.relays[at].refuses = match self.relays[at].refuses {
                    None => Some((reason, 1 + self.chance.below(3))),
                    Some(_) => None,
                };
            }
            Fault::LoseOperation => drop(self.relays[at].lose_operation(&mut self.chance)),
            Fault::Wait => self.wait(),
            Fault::Sleep => {
                for client in 0..self.clients() {
                    self.leave(client);
                }
                for link in self.net.links.keys().copied().collect::<Vec<_>>() {
                    self.end(link, false);
                }
                let hours = self.chance.pick(&[0, 0, 1, 2, 23, 30, 60]);
                self.time.0 += Duration::from_secs(hours * 3600 + self.chance.below(60) as u64);
                for recipient in &mut self.recipients {
                    recipient.forget(self.time);
                }
                if self.chance.one_in(2) {
                    self.time_passed();
                }
            }
        }
        self.carry_out();
    }

    fn crash_relay(&mut self, at: usize) {
        // What it knew of lanes that it needs no longer is gone.
        self.rows_may_stay |= self.relays.len() > 1;
        let arrives = self.chance.one_in(2);
        let news = self.relays[at].crash(&mut self.net, self.time, &mut self.chance, &is_known, arrives);
        self.see(at, news);
    }

    /// The links of a relay that has begun anew do so as well.
    fn reopen_hops(&mut self, at: usize) {
        for hop in self.hops.iter_mut().filter(|hop| hop.from == at) {
            hop.reopen(&mut self.net, &self.relays[at], self.time);
        }
    }
}
