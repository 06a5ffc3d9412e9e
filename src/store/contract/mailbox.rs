//! Mailboxes: what they hold, and how they are read.

use super::*;

const QUOTA: Answer = Answer::Wait { reason: WaitReason::Quota, retry_after_ms: 5000 };
const QUOTA_PAIR: Answer = Answer::Wait { reason: WaitReason::QuotaPair, retry_after_ms: 5000 };

pub(crate) fn quotas_hold_one_pair_and_all<H: Harness>(mut home: Home<H>) {
    let (reader, ..) = home.open(2);
    home.limit(|limits| limits.mailbox_messages = 6);
    home.send(lane(1, 2, 1), 1..=3);
    assert_eq!(home.append(message(lane(1, 2, 1), 4)), QUOTA_PAIR);
    assert_eq!(home.append(message(lane(1, 2, 2), 1)), QUOTA_PAIR, "another lane of the pair");
    home.send(lane(3, 2, 1), 1..=2);
    home.send(lane(4, 2, 1), 1..=1);
    assert_eq!(home.append(message(lane(5, 2, 1), 1)), QUOTA);
    // A refusal for now has no consequence: the same number is accepted later.
    home.take_all(reader);
    home.send(lane(1, 2, 1), 4..=6);
    home.take_all(reader);
    home.limit(|limits| (limits.mailbox_messages, limits.mailbox_bytes) = (100, 4 * MESSAGE_BYTES));
    home.send(lane(1, 2, 1), 7..=8);
    assert_eq!(home.append(message(lane(1, 2, 1), 9)), QUOTA_PAIR);
    home.send(lane(3, 2, 1), 3..=4);
    assert_eq!(home.append(message(lane(4, 2, 1), 2)), QUOTA);
    home.take_all(reader);
    home.limit(|limits| limits.mailbox_messages = 1);
    home.send(lane(1, 2, 1), 9..=9);
}

pub(crate) fn a_mailbox_of_a_peer_never_seen_is_small_and_they_are_few<H: Harness>(mut home: Home<H>) {
    let nobody = Answer::Final(rejected(RejectReason::UnknownPeer));
    home.limit(|limits| {
        limits.pair_percent = 100;
        limits.provisional_messages = 2;
        limits.provisional_per_submitter = 2;
        limits.provisional_total = 3;
    });
    home.send(lane(1, 20, 1), 1..=2);
    // Its lane has a row, so the refusal is recorded; another lane's is not.
    assert_eq!(home.append_full(message(lane(1, 20, 1), 3)), (nobody.clone(), false));
    assert_eq!(home.append(message(lane(1, 20, 1), 3)), home.accepted(true, Some(rejected(RejectReason::UnknownPeer))));
    assert_eq!(home.append_full(message(lane(4, 20, 1), 1)), (nobody.clone(), true));
    home.send(lane(1, 21, 1), 1..=1);
    assert_eq!(home.append_full(message(lane(1, 22, 1), 1)), (nobody.clone(), true));
    home.send(lane(2, 22, 1), 1..=1);
    assert_eq!(home.append_full(message(lane(3, 23, 1), 1)), (nobody.clone(), true), "a fourth of the relay");
    // Whoever comes has the messages, and a mailbox as everybody's; another one may be caused in its place.
    let (_, _, status) = home.open(20);
    assert_eq!(status.messages, 2);
    home.send(lane(1, 20, 1), 4..=9);
    home.send(lane(1, 22, 1), 1..=1);
    home.limit(|limits| (limits.provisional_total, limits.provisional_bytes) = (10, 2 * MESSAGE_BYTES - 1));
    home.send(lane(5, 24, 1), 1..=1);
    assert_eq!(home.append(message(lane(5, 24, 1), 2)), nobody);
}

pub(crate) fn nobody_fills_the_mailbox_of_a_peer_never_seen_alone<H: Harness>(mut home: Home<H>) {
    let nobody = Answer::Final(rejected(RejectReason::UnknownPeer));
    home.limit(|limits| (limits.provisional_messages, limits.provisional_bytes) = (6, 100 * MESSAGE_BYTES));
    home.send(lane(1, 20, 1), 1..=3);
    assert_eq!(home.append(message(lane(1, 20, 1), 4)), QUOTA_PAIR);
    assert_eq!(home.append(message(lane(1, 20, 2), 1)), QUOTA_PAIR, "another lane of the pair");
    home.send(lane(3, 20, 1), 1..=3);
    assert_eq!(home.append(message(lane(4, 20, 1), 1)), nobody, "the mailbox is full");
    home.limit(|limits| (limits.provisional_messages, limits.provisional_bytes) = (100, 4 * MESSAGE_BYTES));
    home.send(lane(1, 21, 1), 1..=2);
    assert_eq!(home.append(message(lane(1, 21, 1), 3)), QUOTA_PAIR);
    home.send(lane(3, 21, 1), 1..=1);
    // One message that is more than the share: in a new mailbox, and in one that is there.
    home.limit(|limits| limits.provisional_bytes = 2 * MESSAGE_BYTES - 1);
    assert_eq!(home.append_full(message(lane(1, 22, 1), 1)), (nobody.clone(), true));
    home.limit(|limits| limits.provisional_bytes = 2 * MESSAGE_BYTES);
    home.send(lane(1, 22, 1), 1..=1);
    home.limit(|limits| limits.provisional_bytes = 2 * MESSAGE_BYTES - 1);
    assert_eq!(home.append_full(message(lane(3, 22, 1), 1)), (nobody, true));
    // Once its owner comes it is a mailbox like any other, and what waited is taken.
    home.open(20);
    home.send(lane(1, 20, 1), 4..=9);
}

pub(crate) fn an_empty_provisional_mailbox_makes_room_for_another<H: Harness>(home: Home<H>) {
    home.limit(|limits| limits.provisional_total = 1);
    home.send(lane(1, 20, 1), 1..=2);
    let seq = home.seqs(20)[1];
    assert!(matches!(home.append(message(lane(1, 21, 1), 1)), Answer::Final(_)));
    home.clock.advance(Duration::from_secs(3601));
    assert_eq!(home.expire().settled, [settled(lane(1, 20, 1), &[], &[(1, 2, EXPIRED)])]);
    home.send(lane(1, 21, 1), 1..=1);
    home.limit(|limits| limits.provisional_total = 2);
    home.send(lane(1, 20, 1), 3..=3);
    assert!(home.seqs(20)[0] > seq, "a seq was given twice");
}

pub(crate) fn closed_access_knows_nobody_new<H: Harness>(mut home: Home<H>) {
    home.limit(|limits| limits.open = false);
    let nobody = Answer::Final(rejected(RejectReason::UnknownPeer));
    assert_eq!(home.append_full(message(lane(1, 2, 1), 1)), (nobody, true));
    home.visit(2);
    home.send(lane(1, 2, 1), 1..=1);
}

pub(crate) fn pages_go_on_behind_their_cursor_from_either_end<H: Harness>(mut home: Home<H>) {
    let (reader, ..) = home.open(2);
    let empty = home.page(2, Order::Oldest, None, 10);
    assert_eq!((empty.messages.len(), empty.cursor, empty.remaining, empty.complete), (0, None, 0, true));
    let stranger = home.page(99, Order::Newest, Some(7), 10);
    assert_eq!((stranger.cursor, stranger.remaining, stranger.complete), (Some(7), 0, true));
    for n in 1..=7u64 {
        home.send(lane(1 + u8::try_from(n % 2).unwrap() * 8, 2, 1), n.div_ceil(2)..=n.div_ceil(2));
    }
    let all = home.seqs(2);
    for order in [Order::Oldest, Order::Newest] {
        let (mut seen, mut cursor) = (Vec::new(), None);
        loop {
            let page = home.page(2, order, cursor, 3);
            assert_eq!((page.remaining, page.complete), (7, seen.len() == 6));
            seen.extend(page.messages.iter().map(|message| message.seq));
            assert_eq!(page.cursor, seen.last().copied());
            // Asking again changes nothing.
            assert_eq!(home.page(2, order, cursor, 3).messages, page.messages);
            cursor = page.cursor;
            if page.complete {
                break;
            }
        }
        if order == Order::Newest {
            seen.reverse();
        }
        assert_eq!(seen, all);
        let behind = home.page(2, order, cursor, 3);
        assert_eq!((behind.messages.len(), behind.cursor, behind.complete), (0, cursor, true));
    }
    // What was taken meanwhile does not disturb the cursor, nor does what came.
    home.settle(reader, taken([(all[0], all[3])]), u64::MAX);
    home.send(lane(9, 2, 1), 5..=5);
    let page = home.page(2, Order::Oldest, Some(all[1]), 10);
    assert_eq!((page.messages[0].seq, page.messages.len(), page.remaining), (all[4], 4, 4));
    for (order, cursor) in [(Order::Oldest, u64::MAX), (Order::Newest, 0)] {
        assert!(home.page(2, order, Some(cursor), 3).complete);
    }
}

pub(crate) fn pages_of_one_sender_hold_no_other<H: Harness>(mut home: Home<H>) {
    home.visit(2);
    for n in 1..=3 {
        home.send(lane(1, 2, 1), n..=n);
        home.send(lane(3, 2, 1), n..=n);
    }
    let all = home.seqs(2);
    let query = Query {
        mailbox: peer(2),
        order: Order::Newest,
        cursor: None,
        sender: Some(peer(3)),
        max_messages: 2,
        max_bytes: 1 << 20,
    };
    let page = home.get(home.store().page(query));
    let seqs = |page: &Page| page.messages.iter().map(|message| message.seq).collect::<Vec<_>>();
    assert_eq!((seqs(&page), page.remaining, page.complete), (vec![all[5], all[3]], 3, false));
    let page = home.get(home.store().page(Query { cursor: page.cursor, ..query }));
    assert_eq!((seqs(&page), page.complete), (vec![all[1]], true));
    let page = home.get(home.store().page(Query { order: Order::Oldest, cursor: Some(all[1]), ..query }));
    assert_eq!((seqs(&page), page.complete), (vec![all[3], all[5]], true));
    let page = home.get(home.store().page(Query { sender: Some(peer(77)), ..query }));
    assert_eq!((page.messages.len(), page.remaining, page.complete), (0, 0, true));
}

pub(crate) fn pages_of_one_sender_go_on_however_far_apart_its_messages_lie<H: Harness>(mut home: Home<H>) {
    let (reader, ..) = home.open(2);
    // One of the sender's for ten of the others'.
    let all = (0..3000_u64).map(|at| if at % 11 == 5 { (3, at / 11 + 1) } else { (1, at - (at + 5) / 11 + 1) });
    home.send_all(all.map(|(from, n)| message(lane(from, 2, 1), n)));
    let read = |order| {
        let (mut seqs, mut cursor) = (Vec::new(), None);
        loop {
            let sender = Some(peer(3));
            let query = Query { mailbox: peer(2), order, cursor, sender, max_messages: 100, max_bytes: 1 << 20 };
            let page = home.get(home.store().page(query));
            assert!(page.messages.iter().all(|message| message.envelope.header().sender == peer(3)));
            seqs.extend(page.messages.iter().map(|message| (message.seq, message.envelope.header().n)));
            cursor = page.cursor;
            if page.complete {
                if order == Order::Newest {
                    seqs.reverse();
                }
                return seqs;
            }
        }
    };
    let oldest = read(Order::Oldest);
    assert!(oldest.iter().map(|(_, n)| *n).eq(1..=273));
    assert_eq!(read(Order::Newest), oldest);
    // Every third of them goes, and all that lies between some.
    let thirds = oldest.iter().step_by(3).map(|(seq, _)| *seq);
    home.settle(reader, Taken { taken: thirds.collect(), refused: Vec::new() }, u64::MAX);
    home.settle(reader, taken([(oldest[100].0, oldest[200].0)]), u64::MAX);
    let left: Vec<_> = (0..273).filter(|at| at % 3 != 0 && !(100..=200).contains(at)).map(|at| oldest[at]).collect();
    assert_eq!(read(Order::Oldest), left);
    assert_eq!(read(Order::Newest), left);
    let one = home.get(home.store().status(peer(2), Some(peer(3))));
    assert_eq!(one.messages, left.len() as u64);
}

pub(crate) fn a_page_is_bounded_but_never_empty_while_something_waits<H: Harness>(mut home: Home<H>) {
    home.visit(2);
    home.send(lane(1, 2, 1), 1..=5);
    let query = Query {
        mailbox: peer(2),
        order: Order::Oldest,
        cursor: None,
        sender: None,
        max_messages: 100,
        max_bytes: 2 * MESSAGE_BYTES,
    };
    let page = |query| home.get(home.store().page(query));
    let by_bytes = page(query);
    assert_eq!((by_bytes.messages.len(), by_bytes.complete), (2, false));
    assert_eq!(by_bytes.cursor, Some(by_bytes.messages[1].seq));
    let one = page(Query { max_bytes: 1, ..query });
    assert_eq!((one.messages.len(), one.complete), (1, false));
    let none = page(Query { max_messages: 0, ..query });
    assert_eq!((none.messages.len(), none.cursor, none.remaining, none.complete), (0, None, 5, false));
    let exact = page(Query { max_messages: 5, max_bytes: 5 * MESSAGE_BYTES, ..query });
    assert_eq!((exact.messages.len(), exact.complete), (5, true));
}

pub(crate) fn what_ran_out_is_on_no_page<H: Harness>(mut home: Home<H>) {
    home.visit(2);
    for n in 1..=4 {
        let short = Duration::from_secs(if n == 2 || n == 4 { 10 } else { 3600 });
        home.append(Append { ttl: short, ..message(lane(1, 2, 1), n) });
    }
    let all = home.seqs(2);
    home.clock.advance(Duration::from_secs(10));
    assert_eq!(home.seqs(2), [all[0], all[2]]);
    let page = home.page(2, Order::Oldest, None, 2);
    assert!(page.complete && page.cursor == Some(all[3]), "what ran out was looked at, and nothing lies beyond");
    let page = home.page(2, Order::Newest, None, 1);
    assert_eq!((page.messages[0].seq, page.complete), (all[2], false));
    // No sweep came yet, and they count until then.
    assert_eq!(home.status(2).messages, 4);
    home.expire();
    assert_eq!((home.status(2).messages, home.page(2, Order::Oldest, None, 9).remaining), (2, 2));
}

pub(crate) fn status_counts_without_touching<H: Harness>(mut home: Home<H>) {
    let nobody = home.status(2);
    assert_eq!((nobody.messages, nobody.oldest_ms, nobody.senders.len()), (0, None, 0));
    let (reader, _, status) = home.open(2);
    assert_eq!(status, Status::default());
    home.send(lane(1, 2, 1), 1..=1);
    home.clock.advance(Duration::from_secs(5));
    home.send(lane(3, 2, 1), 1..=2);
    let status = home.status(2);
    assert_eq!((status.messages, status.bytes), (3, 3 * MESSAGE_BYTES));
    assert_eq!((status.oldest_ms, status.newest_ms), (Some(START.0), Some(START.0 + 5000)));
    let senders: Vec<_> = status.senders.iter().map(|sender| (sender.sender, sender.messages, sender.bytes)).collect();
    assert_eq!(senders, [(peer(3), 2, 2 * MESSAGE_BYTES), (peer(1), 1, MESSAGE_BYTES)]);
    let one = home.get(home.store().status(peer(2), Some(peer(1))));
    assert_eq!((one.messages, one.oldest_ms, one.newest_ms), (1, Some(START.0), Some(START.0)));
    assert_eq!((one.senders.len(), one.more), (1, false));
    assert_eq!(home.get(home.store().status(peer(2), Some(peer(9)))), Status::default());
    let (_, watermark, opened) = home.open(2);
    assert_eq!((opened, watermark), (status, *home.seqs(2).last().unwrap()));
    assert_eq!(home.try_submit(reader, vec![]), Err(StoreError::Superseded));
    home.limit(|limits| limits.lanes_per_submitter = 1000);
    for name in 10..=160 {
        home.send(lane(name, 2, 1), 1..=1);
    }
    let status = home.status(2);
    assert_eq!((status.messages, status.senders.len(), status.more), (154, 100, true));
    assert_eq!(status.senders[0].sender, peer(3), "the largest comes first");
}

pub(crate) fn status_tells_the_largest_of_many_senders_in_order<H: Harness>(mut home: Home<H>) {
    let (reader, ..) = home.open(2);
    let key = |name| lane(name, 2, 1);
    home.send_all((10..=240).map(|name| message(key(name), 1)));
    // The larger the name the more, and two with many.
    home.send_all((41..=240).flat_map(|name| (2..=u64::from(name) / 40).map(move |n| message(key(name), n))));
    home.send_all((7..=306).map(|n| message(key(240), n)));
    home.send_all((6..=310).map(|n| message(key(201), n)));
    let told = |home: &Home<H>| {
        let status = home.status(2);
        assert_eq!((status.senders.len(), status.more), (100, true));
        status.senders.iter().map(|count| (count.sender, count.messages)).collect::<Vec<_>>()
    };
    let status = told(&home);
    assert_eq!(status[..3], [(peer(201), 310), (peer(240), 306), (peer(200), 5)]);
    assert!(status.is_sorted_by_key(|(_, messages)| std::cmp::Reverse(*messages)));
    // All with five, all with four, and some of those with three.
    assert!((160..240).all(|name| status.iter().any(|(sender, _)| *sender == peer(name))));
    assert_eq!(status[99].1, 3);
    // Who has fewer goes down, who has none goes.
    let mailbox = home.page(2, Order::Oldest, None, 10_000);
    let of = |name| mailbox.messages.iter().filter(move |message| message.envelope.header().sender == peer(name));
    let some = of(239).skip(1).chain(of(238)).chain(of(201).skip(1)).map(|message| message.seq).collect();
    home.settle(reader, Taken { taken: some, refused: Vec::new() }, u64::MAX);
    let status = told(&home);
    assert_eq!(status[0], (peer(240), 306));
    assert!([201, 238, 239].iter().all(|name| status.iter().all(|(sender, _)| *sender != peer(*name))));
    home.take_all(reader);
    assert_eq!(home.status(2), Status::default());
}
