//! Who may have a mailbox, what an operator decides, and whose messages a recipient takes.

use std::time::Duration;

use super::{EXPIRED, Harness, Home, START, fence, lane, message, peer, rejected, remote, settled};
use crate::id::{LaneId, LaneKey, Pair, PeerId};
use crate::protocol::limit::MAX_CONTACTS;
use crate::protocol::{Answer, Outcome, Policy, PolicyChange, RejectReason, Senders, Verdict};
use crate::store::{
    Denied, Done, Fence, Invitation, Mailboxes, Op, PeerState, RelayStore as _, Settled, Standing, invitation_key,
};

const OPERATOR: u8 = 251;

fn operator<H: Harness>(home: &Home<H>, op: Op) -> Done {
    home.submit(fence(OPERATOR, u64::MAX), vec![op]).pop().unwrap()
}

fn decide<H: Harness>(home: &Home<H>, name: u8, standing: Option<Standing>) {
    assert_eq!(operator(home, Op::Decide { peer: peer(name), standing }), Done::Done);
}

fn invite<H: Harness>(home: &Home<H>, token: &str, uses: u64, lifetime: Duration) {
    let invitation = Invitation { key: invitation_key(token), uses, expires: home.date() + lifetime };
    assert_eq!(operator(home, Op::Invite(invitation)), Done::Changed(true));
}

/// Tries to open a session, showing this token; why it did not.
fn enter<H: Harness>(home: &mut Home<H>, name: u8, token: Option<&str>) -> Option<Denied> {
    home.epoch += 1;
    let invitation = token.map(invitation_key);
    let fence = fence(name, home.epoch);
    match home.submit(fence, vec![Op::Open { remote: remote(1), invitation }]).pop() {
        Some(Done::Denied(denied)) => Some(denied),
        Some(Done::Opened { .. }) => {
            home.submit(fence, vec![Op::End { handed_out: 0 }]);
            None
        }
        other => panic!("{other:?}"),
    }
}

fn remove<H: Harness>(home: &Home<H>, name: u8, limit: usize) -> (Vec<Settled>, u64, bool) {
    match operator(home, Op::Remove { peer: peer(name), limit }) {
        Done::Removed { settled, left, gone } => (settled, left, gone),
        other => panic!("{other:?}"),
    }
}

fn change<H: Harness>(home: &Home<H>, name: u8, change: PolicyChange) -> bool {
    match home.submit(fence(name, u64::MAX), vec![Op::Policy(change)]).pop() {
        Some(Done::Changed(holds)) => holds,
        other => panic!("{other:?}"),
    }
}

fn policy<H: Harness>(home: &Home<H>, name: u8) -> Policy {
    home.get(home.store().policy(peer(name)))
}

fn peers<H: Harness>(home: &Home<H>, limit: usize) -> Vec<PeerState> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let page = home.get(home.store().peers(after, limit));
        assert!(page.peers.len() <= limit);
        all.extend(page.peers);
        match page.next {
            Some(next) => after = Some(next),
            None => return all,
        }
    }
}

pub(crate) fn an_invitation_is_used_up_by_as_many_new_mailboxes_as_it_was_made_for<H: Harness>(mut home: Home<H>) {
    home.limit(|limits| limits.access.mailboxes = Mailboxes::Invited);
    invite(&home, "token", 2, Duration::from_secs(60));
    for token in [None, Some("other")] {
        assert_eq!(enter(&mut home, 1, token), Some(Denied::NotInvited));
    }
    assert_eq!(peers(&home, 10), [], "nothing was stored");
    assert_eq!(enter(&mut home, 1, Some("token")), None);
    for token in [Some("token"), Some("other"), None] {
        assert_eq!(enter(&mut home, 1, token), None, "who has a mailbox needs none, and uses none up");
    }
    assert_eq!(enter(&mut home, 2, Some("token")), None);
    assert_eq!(enter(&mut home, 3, Some("token")), Some(Denied::NotInvited));
    assert_eq!(enter(&mut home, 2, None), None);
    invite(&home, "late", 1, Duration::from_secs(60));
    home.clock.advance(Duration::from_secs(60));
    assert_eq!(enter(&mut home, 3, Some("late")), Some(Denied::NotInvited));
}

pub(crate) fn an_invitation_survives_and_its_uses_do<H: Harness>(mut home: Home<H>) {
    if !home.harness.keeps() {
        return;
    }
    home.limit(|limits| limits.access.mailboxes = Mailboxes::Invited);
    invite(&home, "token", 2, Duration::from_secs(60));
    assert_eq!(enter(&mut home, 1, Some("token")), None);
    home.reopen();
    home.limit(|_| {});
    assert_eq!(enter(&mut home, 2, Some("token")), None);
    assert_eq!(enter(&mut home, 3, Some("token")), Some(Denied::NotInvited));
}

pub(crate) fn a_relay_of_listed_peers_lets_in_and_writes_to_no_other<H: Harness>(mut home: Home<H>) {
    home.visit(1);
    home.visit(4);
    home.limit(|limits| {
        limits.access.mailboxes = Mailboxes::Listed;
        limits.access.allow = [peer(1)].into();
    });
    let nobody = Answer::Final(rejected(RejectReason::UnknownPeer));
    assert_eq!(enter(&mut home, 1, None), None);
    for stranger in [2, 4] {
        assert_eq!(enter(&mut home, stranger, None), Some(Denied::NotListed));
        assert_eq!(home.append_full(message(lane(1, stranger, 1), 1)), (nobody.clone(), true));
    }
    assert_eq!(home.seqs(4), [] as [u64; 0], "nothing was stored");
    decide(&home, 2, Some(Standing::Allowed));
    home.send(lane(1, 2, 1), 1..=1);
    assert_eq!(enter(&mut home, 2, None), None);
    decide(&home, 2, None);
    assert_eq!(enter(&mut home, 2, None), Some(Denied::NotListed));
}

pub(crate) fn who_is_blocked_by_the_operator_is_out_and_gets_nothing_more<H: Harness>(mut home: Home<H>) {
    home.visit(2);
    home.send(lane(1, 2, 1), 1..=1);
    decide(&home, 2, Some(Standing::Blocked));
    assert_eq!(enter(&mut home, 2, None), Some(Denied::Blocked));
    assert_eq!(home.append(message(lane(1, 2, 1), 2)), Answer::Final(rejected(RejectReason::UnknownPeer)));
    assert_eq!(home.status(2).messages, 1, "what waited waits");
    decide(&home, 2, Some(Standing::Allowed));
    assert_eq!(enter(&mut home, 2, None), None);
    home.send(lane(1, 2, 1), 3..=3);
}

pub(crate) fn a_mailbox_is_removed_in_steps_and_its_senders_are_told<H: Harness>(mut home: Home<H>) {
    home.visit(2);
    home.send(lane(1, 2, 1), 1..=5);
    home.send(lane(3, 2, 1), 1..=1);
    assert!(change(&home, 2, PolicyChange { block: vec![peer(9)], ..PolicyChange::default() }));
    decide(&home, 2, Some(Standing::Allowed));
    let removed =
        |maybe_taken| Verdict::here(Outcome::Rejected { reason: RejectReason::Removed, text: None, maybe_taken });
    let seq = home.seqs(2)[5];
    assert_eq!(remove(&home, 2, 4), (vec![settled(lane(1, 2, 1), &[], &[(1, 4, removed(false))])], 2, false));
    let (open, ..) = home.open(2);
    let (told, left, gone) = remove(&home, 2, 4);
    let rest =
        [settled(lane(1, 2, 1), &[], &[(5, 5, removed(true))]), settled(lane(3, 2, 1), &[], &[(1, 1, removed(true))])];
    assert_eq!((&told[..], left, gone), (&rest[..], 0, false), "a session that is open keeps the mailbox");
    home.submit(open, vec![Op::End { handed_out: 0 }]);
    assert_eq!(remove(&home, 2, 4), (vec![], 0, true));
    assert_eq!(remove(&home, 2, 4), (vec![], 0, true), "once more does no harm");
    assert_eq!(home.state(lane(3, 2, 1)).exceptions[0].verdict, removed(true));
    assert_eq!(peers(&home, 10), [], "neither mailbox nor permission");
    home.visit(2);
    assert_eq!(policy(&home, 2), Policy::default());
    home.send(lane(9, 2, 1), 1..=1);
    assert!(home.seqs(2)[0] > seq, "a seq was given twice");
}

pub(crate) fn no_outbox_is_removed_as_if_it_were_a_peers<H: Harness>(home: Home<H>) {
    let relay = crate::id::RelayId::from_bytes([9; 32]);
    let forward = Some(crate::store::Forward { relay, address: "there".to_owned() });
    home.send_all([crate::store::Append { forward, ..message(lane(1, 2, 1), 1) }]);
    let outbox = crate::store::outbox_key(&relay);
    operator(&home, Op::Remove { peer: outbox, limit: 10 });
    assert_eq!(home.get(home.store().links())[0].waiting, 1);
    assert_eq!(peers(&home, 10), []);
}

pub(crate) fn a_recipient_says_whose_messages_it_takes<H: Harness>(mut home: Home<H>) {
    home.visit(2);
    let blocked = || Answer::Final(rejected(RejectReason::Blocked));
    let takes = |home: &Home<H>, from: u8, lane_id: u64| {
        let answer = home.append(message(lane(from, 2, lane_id), 1));
        assert!(answer == home.accepted(false, None) || answer == blocked(), "{answer:?}");
        answer != blocked()
    };
    assert!(takes(&home, 1, 1));
    assert!(change(&home, 2, PolicyChange { block: vec![peer(1)], allow: vec![peer(3)], ..PolicyChange::default() }));
    assert_eq!([1, 3, 4].map(|from| takes(&home, from, 2)), [false, true, true]);
    assert_eq!(home.append(message(lane(1, 2, 1), 2)), blocked(), "also on a lane that had begun");
    assert_eq!(home.append(message(lane(1, 2, 1), 1)), home.accepted(true, None), "what was taken stays");
    assert!(change(&home, 2, PolicyChange { senders: Some(Senders::Contacts), ..PolicyChange::default() }));
    assert_eq!([1, 3, 4].map(|from| takes(&home, from, 3)), [false, true, false]);
    let now = Policy { senders: Senders::Contacts, allowed: vec![peer(3)], blocked: vec![peer(1)] };
    assert_eq!(policy(&home, 2), now);
    if home.harness.keeps() {
        home.reopen();
        assert_eq!(policy(&home, 2), now);
    }
    let both =
        PolicyChange { forget: vec![peer(1)], block: vec![peer(3)], allow: vec![peer(3), peer(4)], senders: None };
    for _ in 0..2 {
        assert!(change(&home, 2, both.clone()), "twice is once");
        let now = Policy { senders: Senders::Contacts, allowed: vec![peer(4)], blocked: vec![peer(3)] };
        assert_eq!(policy(&home, 2), now);
    }
    assert_eq!([1, 3, 4].map(|from| takes(&home, from, 4)), [false, false, true]);
    assert_eq!(home.status(2).messages, 5);
}

pub(crate) fn a_recipients_list_is_bounded_and_kept_whole<H: Harness>(mut home: Home<H>) {
    home.visit(2);
    let numbered = |number: u64| {
        let mut key = [7; 32];
        key[..8].copy_from_slice(&number.to_be_bytes());
        PeerId::from_bytes(key)
    };
    let all: Vec<PeerId> = (0..MAX_CONTACTS).map(numbered).collect();
    for some in all.chunks(1000) {
        assert!(change(&home, 2, PolicyChange { block: some.to_vec(), ..PolicyChange::default() }));
    }
    let one_more = PolicyChange {
        senders: Some(Senders::Contacts),
        allow: vec![numbered(1), numbered(MAX_CONTACTS)],
        ..PolicyChange::default()
    };
    assert!(!change(&home, 2, one_more.clone()));
    assert_eq!(policy(&home, 2), Policy { senders: Senders::Anyone, allowed: vec![], blocked: all });
    assert!(change(&home, 2, PolicyChange { forget: vec![numbered(0)], ..one_more }));
}

pub(crate) fn a_policy_outlives_no_fence<H: Harness>(mut home: Home<H>) {
    let (old, ..) = home.open(2);
    home.open(2);
    let change = PolicyChange { senders: Some(Senders::Contacts), ..PolicyChange::default() };
    assert!(home.try_submit(Fence { ..old }, vec![Op::Policy(change)]).is_err());
    assert_eq!(policy(&home, 2), Policy::default());
}

pub(crate) fn peers_are_listed_page_by_page<H: Harness>(mut home: Home<H>) {
    for name in [10, 20, 30] {
        home.visit(name);
    }
    home.clock.advance(Duration::from_secs(5));
    home.open(20);
    home.send(lane(40, 50, 1), 1..=2);
    decide(&home, 5, Some(Standing::Allowed));
    decide(&home, 30, Some(Standing::Blocked));
    home.limit(|limits| limits.access.block = [peer(10)].into());
    let all = peers(&home, 100);
    for limit in 1..6 {
        assert_eq!(peers(&home, limit), all, "in pages of {limit}");
    }
    let told = all.iter().map(|state| {
        let mailbox = state.mailbox.as_ref();
        let seen = mailbox.and_then(|mailbox| mailbox.last_seen).map(|seen| seen.0 - START.0);
        (state.peer, state.standing, mailbox.map(|m| (m.messages, m.provisional, m.online)), seen)
    });
    assert_eq!(
        told.collect::<Vec<_>>(),
        [
            (peer(5), Some(Standing::Allowed), None, None),
            (peer(10), Some(Standing::Blocked), Some((0, false, false)), Some(0)),
            (peer(20), None, Some((0, false, true)), Some(5000)),
            (peer(30), Some(Standing::Blocked), Some((0, false, false)), Some(0)),
            (peer(50), None, Some((2, true, false)), None),
        ]
    );
}

pub(crate) fn many_peers_without_a_mailbox_hide_none_behind_them<H: Harness>(mut home: Home<H>) {
    home.visit(200);
    let senders = (0..5000u16).map(|number| {
        let mut key = [1; 32];
        key[1..3].copy_from_slice(&number.to_be_bytes());
        let pair = Pair { sender: PeerId::from_bytes(key), recipient: peer(200) };
        message(LaneKey { pair, lane: LaneId(1) }, 1)
    });
    home.send_all(senders);
    decide(&home, 250, Some(Standing::Blocked));
    let listed: Vec<PeerId> = peers(&home, 10).into_iter().map(|state| state.peer).collect();
    assert_eq!(listed, [peer(200), peer(250)]);
}

pub(crate) fn a_stranger_of_an_inviting_relay_is_unknown<H: Harness>(mut home: Home<H>) {
    home.send(lane(1, 2, 1), 1..=1);
    home.limit(|limits| limits.access.mailboxes = Mailboxes::Invited);
    let nobody = Answer::Final(rejected(RejectReason::UnknownPeer));
    assert_eq!(home.append(message(lane(1, 2, 1), 2)), nobody.clone());
    assert_eq!(home.append(message(lane(1, 3, 1), 1)), nobody);
    invite(&home, "token", 1, Duration::from_secs(9));
    assert_eq!(enter(&mut home, 2, Some("token")), None);
    home.send(lane(1, 2, 1), 3..=3);
    home.clock.advance(Duration::from_secs(3602));
    let ended = home.expire().settled;
    assert_eq!(ended, [settled(lane(1, 2, 1), &[], &[(1, 1, EXPIRED), (3, 3, EXPIRED)])]);
}
