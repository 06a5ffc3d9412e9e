//! A recipient: the shell around its inbox, and an application that answers when it likes.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use posthouse::delivery::{Inbox, InboxRow, Judgement};
use posthouse::id::{LaneId, PeerId, StoreId};
use posthouse::protocol::{AckR, Refusal, Taken};
use posthouse::time::{Moment, UnixMillis};

use super::ledger::Ledger;
use super::net::{Ask, Down, Letter, NOTIFY, Net, SYNC, Up};
use super::relay::Reading;
use super::store::LANE_REST;
use super::world::Time;

/// A message that was asked about or handed in is at most so much older than its clocks say.
const SLACK: Duration = Duration::from_secs(3600);

/// How long ACK:R may stay unconfirmed.
const CONFIRMED_IN: Duration = Duration::from_secs(2);

type Row = (PeerId, LaneId);

#[derive(Debug, Clone)]
struct Hand {
    letter: Letter,
    store: StoreId,
    seq: u64,
}

#[derive(Debug, Clone)]
pub(crate) struct Recipient {
    pub(crate) peer: PeerId,
    pub(crate) reading: Reading,
    pub(crate) credit: usize,
    pub(crate) link: Option<u64>,
    pub(crate) connected: bool,
    disk: BTreeMap<Row, InboxRow>,
    inbox: Inbox,
    batches: VecDeque<(Row, InboxRow, usize, bool)>,
    hands: BTreeMap<usize, Hand>,
    ready: VecDeque<usize>,
    store: StoreId,
    backlog_done: bool,
    cursor: Option<u64>,
    asked: Option<Taken>,
    held: Vec<(u64, Letter)>,
    owed: Taken,
    unconfirmed: VecDeque<(u64, Taken, Moment)>,
    next_ack: u64,
}

impl Recipient {
    pub(crate) fn new(peer: PeerId, reading: Reading, credit: usize) -> Self {
        Self {
            peer,
            reading,
            credit,
            link: None,
            connected: false,
            disk: BTreeMap::new(),
            inbox: Inbox::default(),
            batches: VecDeque::new(),
            hands: BTreeMap::new(),
            ready: VecDeque::new(),
            store: StoreId([0; 16]),
            backlog_done: false,
            cursor: None,
            asked: None,
            held: vec![],
            owed: Taken::default(),
            unconfirmed: VecDeque::new(),
            next_ack: 0,
        }
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.batches.is_empty() && self.hands.is_empty() && self.owed.is_empty()
    }

    pub(crate) fn has_batches(&self) -> bool {
        !self.batches.is_empty()
    }

    pub(crate) fn is_asked(&self) -> bool {
        !self.ready.is_empty()
    }

    pub(crate) fn wants_page(&self) -> bool {
        self.connected && !self.backlog_done && self.asked.is_none()
    }

    pub(crate) fn owes(&self) -> bool {
        self.connected && !self.owed.is_empty()
    }

    pub(crate) fn leave(&mut self, net: &mut Net) {
        if let Some(link) = self.link.take() {
            net.leave(link);
        }
        (self.connected, self.backlog_done) = (false, true);
        self.held.clear();
        let lost = self.unconfirmed.drain(..).map(|(_, answers, _)| answers).chain(self.asked.take());
        for answers in lost.collect::<Vec<_>>() {
            self.owe_again(answers);
        }
    }

    fn owe_again(&mut self, answers: Taken) {
        self.owed.taken.extend(&answers.taken);
        self.owed.refused.extend(answers.refused);
    }

    pub(crate) fn receive(&mut self, frame: Down) {
        match frame {
            Down::Hello { store, watermark } => {
                if self.store != store {
                    (self.store, self.owed) = (store, Taken::default());
                }
                (self.connected, self.next_ack) = (true, 0);
                self.backlog_done = self.reading == Reading::Nothing;
                self.cursor = (self.reading == Reading::AtOnce).then_some(watermark + 1);
            }
            Down::Push { seq, letter } if self.reading == Reading::InOrder && !self.backlog_done => {
                self.held.push((seq, letter));
            }
            Down::Push { seq, letter } => self.arrive(seq, letter),
            Down::Page { items, cursor, complete } => {
                self.asked = None;
                for (seq, letter) in items {
                    self.arrive(seq, letter);
                }
                (self.cursor, self.backlog_done) = (cursor, complete);
                if complete {
                    for (seq, letter) in std::mem::take(&mut self.held) {
                        self.arrive(seq, letter);
                    }
                }
            }
            Down::Confirmed(confirmed) => {
                while self.unconfirmed.pop_front_if(|(request, ..)| *request <= confirmed.request).is_some() {}
            }
            other => panic!("{other:?} for a recipient"),
        }
    }

    fn arrive(&mut self, seq: u64, letter: Letter) {
        if let Some(hand) = self.hands.get_mut(&letter.uid) {
            (hand.store, hand.seq) = (self.store, seq);
            return;
        }
        match self.inbox.judge(letter.lane.pair.sender, letter.lane.lane, letter.n) {
            Judgement::New => {
                self.hands.insert(letter.uid, Hand { letter, store: self.store, seq });
                self.ready.push_back(letter.uid);
            }
            judged => self.owe(self.store, seq, judged.refusal(seq)),
        }
    }

    fn owe(&mut self, store: StoreId, seq: u64, refusal: Option<Refusal>) {
        if self.store == store {
            match refusal {
                Some(refusal) => self.owed.refused.push(refusal),
                None => drop(self.owed.taken.insert(seq)),
            }
        }
    }

    /// The application answers for the message that it was given first.
    pub(crate) fn answer(&mut self, time: Time, takes: bool) {
        let Some(uid) = self.ready.pop_front() else { return };
        let Letter { lane, n, .. } = self.hands[&uid].letter;
        let (sender, lane) = (lane.pair.sender, lane.lane);
        match takes {
            true => self.inbox.take(sender, lane, n, time.date()),
            false => self.inbox.refuse(sender, lane, n, Some("no".to_owned()), time.date()),
        }
        let row = self.inbox.row(sender, lane).cloned().unwrap_or_default();
        self.batches.push_back(((sender, lane), row, uid, takes));
    }

    /// The oldest answer is durable: it may be told.
    pub(crate) fn commit(&mut self, ledger: &mut Ledger) {
        let Some((row, content, uid, takes)) = self.batches.pop_front() else { return };
        self.disk.insert(row, content);
        ledger.answer(uid, takes);
        if let Some(hand) = self.hands.remove(&uid) {
            let refusal = (!takes).then(|| Refusal { seq: hand.seq, text: Some("no".to_owned()) });
            self.owe(hand.store, hand.seq, refusal);
        }
    }

    pub(crate) fn page(&mut self, net: &mut Net) {
        let Some(link) = self.link else { return };
        let answers = std::mem::take(&mut self.owed);
        net.up(link, SYNC, Up::Page(Ask { cursor: self.cursor, store: self.store, answers: answers.clone() }));
        self.asked = Some(answers);
    }

    pub(crate) fn acknowledge(&mut self, net: &mut Net, time: Time) {
        let Some(link) = self.link else { return };
        let answers = std::mem::take(&mut self.owed);
        let ack = AckR { request: self.next_ack, store: self.store, answers: answers.clone() };
        net.up(link, NOTIFY, Up::Answers(ack));
        self.unconfirmed.push_back((self.next_ack, answers, time.now()));
        self.next_ack += 1;
    }

    pub(crate) fn next_timeout(&self) -> Option<Moment> {
        self.unconfirmed.front().map(|(_, _, sent)| *sent + CONFIRMED_IN)
    }

    pub(crate) fn on_timeout(&mut self, time: Time) {
        if self.next_timeout().is_some_and(|at| at <= time.now()) {
            for (_, answers, _) in std::mem::take(&mut self.unconfirmed) {
                self.owe_again(answers);
            }
        }
    }

    /// Forgets what can bring nothing any more.
    pub(crate) fn forget(&mut self, time: Time) {
        let silent = (LANE_REST + SLACK).as_millis() as u64;
        for row in self.inbox.forget(UnixMillis(time.date().0.saturating_sub(silent))) {
            self.disk.remove(&row);
        }
    }

    pub(crate) fn crash(&mut self, net: &mut Net, ledger: &mut Ledger, kept: usize) {
        for _ in 0..kept {
            if let Some((row, content, uid, takes)) = self.batches.pop_front() {
                self.disk.insert(row, content);
                ledger.answer(uid, takes);
            }
        }
        self.leave(net);
        self.batches.clear();
        self.hands.clear();
        self.ready.clear();
        (self.owed, self.store) = (Taken::default(), StoreId([0; 16]));
        self.inbox = Inbox::restore(self.disk.clone());
    }
}
