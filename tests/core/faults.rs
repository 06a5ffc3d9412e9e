//! What breaks, and what the onlooker has to know about it.

use std::time::Duration;

use posthouse::protocol::RejectReason;

use super::plan::Fault;
use super::world::{World, is_known};

impl World {
    /// Breaks something.
    pub(crate) fn fault(&mut self) {
        let fault = self.chance.pick(&self.plan.faults.clone());
        self.note(|| format!("FAULT {fault:?}"));
        match fault {
            Fault::Hangup => {
                let client = self.chance.below(self.clients());
                let link = self.link(client);
                if self.chance.one_in(3)
                    && let Some(link) = link
                {
                    let arrives = self.chance.one_in(2);
                    self.relay.end(&mut self.net, link, arrives);
                } else {
                    self.leave(client);
                }
            }
            Fault::CrashClient => {
                let client = self.chance.below(self.clients());
                let kept = self.chance.below(4);
                match client.checked_sub(self.senders.len()) {
                    None => {
                        self.rows_may_stay = true;
                        self.senders[client].crash(&mut self.net, self.time, &mut self.ledger, kept);
                    }
                    Some(at) => self.recipients[at].crash(&mut self.net, &mut self.ledger, kept),
                }
            }
            Fault::CrashRelay => self.crash_relay(),
            Fault::RestoreRelay if self.relay.backup.is_none() => {
                self.relay.backup = Some(self.relay.disk.clone());
            }
            Fault::RestoreRelay | Fault::LoseRelay => {
                self.crash_relay();
                (self.ledger.disk_lost, self.rows_may_stay) = (true, true);
                self.relay.replace_disk(self.time, fault == Fault::LoseRelay);
            }
            Fault::RestoreSender => {
                let at = self.chance.below(self.senders.len());
                match self.senders[at].has_copy() {
                    false => self.senders[at].back_up(&self.ledger),
                    true => {
                        self.rows_may_stay = true;
                        self.senders[at].put_back(&mut self.net, self.time, &mut self.ledger);
                    }
                }
            }
            Fault::Full => self.relay.full = !self.relay.full,
            Fault::Refuse => {
                let reason = self.chance.pick(&[RejectReason::Blocked, RejectReason::NoRoute, RejectReason::TooLarge]);
                self.relay.refuses = match self.relay.refuses {
                    None => Some((reason, 1 + self.chance.below(3))),
                    Some(_) => None,
                };
            }
            Fault::LoseOperation => drop(self.relay.lose_operation(&mut self.chance)),
            Fault::Sleep => {
                for client in 0..self.clients() {
                    self.leave(client);
                }
                for link in self.net.links.keys().copied().collect::<Vec<_>>() {
                    self.relay.end(&mut self.net, link, false);
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
        for sender in &mut self.senders {
            sender.carry_out(&mut self.ledger);
        }
    }

    fn crash_relay(&mut self) {
        let arrives = self.chance.one_in(2);
        let news = self.relay.crash(&mut self.net, self.time, &mut self.chance, &is_known, arrives);
        self.see(news);
    }
}
