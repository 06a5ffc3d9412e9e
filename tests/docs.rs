//! Holds the documents to the code: every number, name and byte that docs/PROTOCOL.md gives is checked here.
//!
//! A document is looked at as text: lists as rows of its tables, bytes as hex with all white space taken out. When
//! a test fails it prints what the document has to say.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test says what is wrong by panicking")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::BytesMut;
use posthouse::id::{LaneId, MessageId, StoreId};
use posthouse::identity::{Identity, verify};
use posthouse::protocol::{
    AckA, AckN, AckR, Answer, CloseCode, Durability, Envelope, Frame, FrameType, HEADER_BYTES, Header, HelloA, HelloR,
    MsgA, MsgN, MsgR, OpenN, PushMode, RejectReason, Role, Status, StreamKind, Taken, WaitReason, decode, encode,
    limit,
};
use posthouse::ranges::Ranges;
use posthouse::time::UnixMillis;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text(file: &str) -> String {
    std::fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn protocol() -> String {
    text("docs/PROTOCOL.md")
}

/// The rows of all tables whose first cell is this.
fn rows<'a>(document: &'a str, first: &str) -> Vec<Vec<&'a str>> {
    let cells = document.lines().filter(|line| line.starts_with("| ")).map(|line| {
        let inner = line.trim().trim_start_matches('|').trim_end_matches('|');
        inner.split(" | ").map(str::trim).collect::<Vec<_>>()
    });
    cells.filter(|cells| cells.first() == Some(&first)).collect()
}

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

#[test]
fn every_frame_type_is_in_the_protocol_document_and_no_other() {
    let document = protocol();
    for frame in FrameType::ALL {
        let number = format!("`{:#06x}`", frame.number());
        let rows = rows(&document, &number);
        let [row] = &rows[..] else { panic!("{number} {} has {} rows", frame.name(), rows.len()) };
        assert_eq!(row[1], frame.name(), "{number}");
    }
    let numbered = document.lines().filter_map(|line| line.strip_prefix("| `0x")?.split_once('`'));
    for (number, _) in numbered.filter(|(number, _)| number.len() == 4) {
        let number = u16::from_str_radix(number, 16).unwrap();
        assert!(FrameType::ALL.iter().any(|frame| frame.number() == number), "{number:#06x} is no frame");
    }
}

#[test]
fn every_close_code_is_in_the_protocol_document_with_what_a_client_does() {
    let document = protocol();
    for code in CloseCode::ALL {
        let number = format!("`{:#04x}`", code.number());
        let rows = rows(&document, &number);
        let [row] = &rows[..] else { panic!("{number} {code} has {} rows", rows.len()) };
        let again = if code.is_transient() { "yes" } else { "no" };
        assert_eq!(row[1..3], [format!("`{code}`").as_str(), again], "{number}");
    }
    let numbered = document.lines().filter_map(|line| line.strip_prefix("| `0x")?.split_once('`'));
    for (number, _) in numbered.filter(|(number, _)| number.len() == 2) {
        let number = u64::from_str_radix(number, 16).unwrap();
        assert!(CloseCode::from_number(number).is_some(), "{number:#04x} is no close code");
    }
}

#[test]
fn every_reason_is_in_the_protocol_document() {
    let document = protocol();
    let names = RejectReason::ALL.iter().map(|reason| reason.name());
    for name in names.chain(WaitReason::ALL.iter().map(|reason| reason.name())) {
        assert_eq!(rows(&document, &format!("`{name}`")).len(), 1, "{name}");
    }
}

/// A number with a comma every three digits.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[test]
fn the_limits_in_the_protocol_document_are_those_of_the_code() {
    let document = protocol();
    let bytes = |count: usize| format!("{} bytes", grouped(count as u64));
    let messages = |count: u64| format!("{} messages", grouped(count));
    let ms = |length: Duration| format!("{} ms", grouped(length.as_millis() as u64));
    for (name, value) in [
        ("body", bytes(limit::MAX_BODY_BYTES)),
        ("frame content", bytes(limit::MAX_FRAME_BYTES)),
        ("integer", grouped(limit::MAX_INTEGER)),
        ("nesting", grouped(limit::MAX_DEPTH as u64)),
        ("list", format!("{} items", grouped(limit::MAX_LIST as u64))),
        ("lanes in one R:WHERE or R:CLOSE", grouped(limit::MAX_LANES_ASKED as u64)),
        ("text", bytes(limit::MAX_TEXT_BYTES)),
        ("page", format!("{}, {}", messages(limit::MAX_PAGE_MESSAGES), bytes(limit::MAX_PAGE_BYTES as usize))),
        ("senders in a status", grouped(limit::MAX_STATUS_SENDERS as u64)),
        ("lifetime", format!("{} to {}", ms(limit::MIN_TTL), ms(limit::MAX_TTL))),
        ("lifetime, if none is named", ms(limit::DEFAULT_TTL)),
        ("ack timeout", format!("{} to {}", ms(limit::MIN_ACK_TIMEOUT), ms(limit::MAX_ACK_TIMEOUT))),
        ("ack timeout, usual", ms(limit::DEFAULT_ACK_TIMEOUT)),
        ("credit", format!("{}, {}", messages(limit::MAX_CREDIT_MESSAGES), bytes(limit::MAX_CREDIT_BYTES as usize))),
        (
            "credit, usual",
            format!("{}, {}", messages(limit::DEFAULT_CREDIT_MESSAGES), bytes(limit::DEFAULT_CREDIT_BYTES as usize)),
        ),
        ("window", format!("{}, {}", messages(limit::WINDOW_MESSAGES as u64), bytes(limit::WINDOW_BYTES))),
    ] {
        let rows = rows(&document, name);
        assert_eq!(rows.first().and_then(|row| row.get(1)).copied(), Some(value.as_str()), "{name}");
    }
    assert!(document.contains(std::str::from_utf8(limit::ALPN).unwrap()));
}

/// The people of the document's example.
struct Example {
    relay: Identity,
    alice: Identity,
    bob: Identity,
}

impl Example {
    fn new() -> Self {
        let [relay, alice, bob] = [0x10, 0x0a, 0x0b].map(|byte| Identity::from_seed([byte; 32]));
        Self { relay, alice, bob }
    }

    fn envelope(&self) -> Envelope {
        let header = Header {
            sender: self.alice.peer_id(),
            relay: self.relay.relay_id(),
            recipient: self.bob.peer_id(),
            id: MessageId::new(1_700_000_000_000, &[0x11; 10]),
            lane: LaneId(0x0102_0304_0506_0708),
            n: 1,
            created: UnixMillis(1_700_000_000_000),
            ttl: Duration::from_secs(7 * 24 * 3600),
        };
        Envelope::new(header, b"hello")
    }

    /// The frames in the order in which they travel.
    fn frames(&self) -> Vec<(&'static str, Frame)> {
        const SEQ: u64 = 1_700_000_000_000 << 10;
        let (envelope, store) = (self.envelope(), StoreId([0x5a; 16]));
        let bytes = envelope.bytes().clone();
        let hello = HelloR {
            version: 1,
            role: Role::Peer,
            device: 0,
            push: PushMode::AtOnce,
            sender: None,
            credit_messages: 256,
            credit_bytes: 4 << 20,
            ack_timeout_ms: 30_000,
            invitation: None,
            agent: None,
        };
        let welcome = HelloA {
            version: 1,
            store,
            durability: Durability::Disk,
            watermark: 0,
            status: Status::default(),
            max_body_bytes: 1 << 20,
            credit_messages: 256,
            agent: None,
        };
        let accepted = Answer::Accepted { durability: Durability::Disk, duplicate: false, ttl_ms: None, verdict: None };
        let offer =
            MsgR { request: 0, prev: 0, ttl_ms: 604_800_000, envelope: bytes.clone(), signature: None, home: None };
        let push = MsgN { seq: SEQ, ttl_ms: 604_799_990, attempt: 1, envelope: bytes, signature: None };
        let answers = Taken { taken: Ranges::one(SEQ), refused: vec![] };
        let outcome = AckN {
            sender: None,
            recipient: self.bob.peer_id(),
            lane: envelope.header().lane,
            delivered: Ranges::one(1),
            exceptions: vec![],
        };
        vec![
            ("N:OPEN", OpenN { kind: StreamKind::Submit }.into()),
            ("R:HELLO", hello.into()),
            ("A:HELLO", welcome.into()),
            ("N:OPEN", OpenN { kind: StreamKind::Notify }.into()),
            ("MSG:R", offer.into()),
            ("MSG:A", MsgA { request: 0, count: 1, answer: accepted }.into()),
            ("MSG:N", push.into()),
            ("ACK:R", AckR { request: 0, store, answers }.into()),
            ("ACK:A", AckA { request: 0 }.into()),
            ("ACK:N", outcome.into()),
        ]
    }
}

#[test]
fn the_bytes_in_the_protocol_document_are_those_of_the_code() {
    let document: String = protocol().split_whitespace().collect();
    let example = Example::new();
    let envelope = example.envelope();
    let signature = example.alice.sign(&envelope.signed_bytes());
    assert!(verify(&example.alice.peer_id(), &envelope.signed_bytes(), &signature));
    let mut wanted = vec![
        ("relay's id".to_owned(), example.relay.relay_id().to_string()),
        ("alice's id".to_owned(), example.alice.peer_id().to_string()),
        ("bob's id".to_owned(), example.bob.peer_id().to_string()),
        ("relay's key".to_owned(), hex(example.relay.relay_id().as_bytes())),
        ("alice's key".to_owned(), hex(example.alice.peer_id().as_bytes())),
        ("bob's key".to_owned(), hex(example.bob.peer_id().as_bytes())),
        ("message id".to_owned(), envelope.header().id.to_string()),
        ("envelope".to_owned(), hex(envelope.bytes())),
        ("signature".to_owned(), hex(&signature)),
        ("header bytes".to_owned(), HEADER_BYTES.to_string()),
    ];
    for (name, frame) in example.frames() {
        let mut bytes = BytesMut::new();
        encode(&frame, &mut bytes);
        wanted.push((name.to_owned(), hex(&bytes)));
        assert_eq!(decode(&mut bytes), Ok(Some(frame)));
    }
    let missing: Vec<_> = wanted.iter().filter(|(_, text)| !document.contains(text)).collect();
    let lines: Vec<_> = missing.iter().map(|(name, text)| format!("{name}\n{text}\n")).collect();
    assert!(missing.is_empty(), "docs/PROTOCOL.md lacks:\n{}", lines.join("\n"));
}

/// The Markdown files that are ours.
fn documents() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for directory in [root().to_owned(), root().join("docs"), root().join("certs")] {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            if entry.path().extension().is_some_and(|extension| extension == "md") {
                found.push(entry.path());
            }
        }
    }
    found
}

#[test]
fn links_between_the_documents_lead_somewhere() {
    for document in documents() {
        let text = std::fs::read_to_string(&document).unwrap();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target) {
            if target.contains("://") {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let place = if file.is_empty() { document.clone() } else { document.parent().unwrap().join(file) };
            assert!(place.exists(), "{} links to {target}", document.display());
            if anchor.is_empty() {
                continue;
            }
            let headings = std::fs::read_to_string(&place).unwrap();
            let found = headings.lines().filter(|line| line.starts_with('#')).any(|line| slug(line) == anchor);
            assert!(found, "{} links to {target}", document.display());
        }
    }
}

/// The anchor of a heading, as forges make it.
fn slug(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// All our Rust sources as one text.
fn sources() -> String {
    fn walk(directory: &Path, into: &mut String) {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                walk(&path, into);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                into.push_str(&std::fs::read_to_string(path).unwrap());
            }
        }
    }
    let mut all = String::new();
    ["src", "tests", "examples"].iter().for_each(|directory| walk(&root().join(directory), &mut all));
    all
}

#[test]
fn every_invariant_names_tests_that_exist() {
    let (document, sources) = (text("docs/ARCHITECTURE.md"), sources());
    let (_, rest) = document.split_once("\n## Invariants\n").unwrap();
    let (section, _) = rest.split_once("\n## ").unwrap();
    let mut named = 0;
    for invariant in section.split("\n- invariant:").skip(1) {
        let words = invariant.split('`').skip(1).step_by(2);
        let tests: Vec<_> = words.filter(|word| !word.contains(['/', ' ']) && word.contains('_')).collect();
        assert!(!tests.is_empty(), "no test holds: {invariant}");
        for test in tests {
            let declared = [format!("fn {test}("), format!("fn {test}<")];
            assert!(declared.iter().any(|fun| sources.contains(fun)), "there is no test {test}");
            named += 1;
        }
    }
    assert!(named > 20, "only {named} tests are named");
}

#[test]
fn the_library_example_of_the_readme_is_the_one_that_is_tested() {
    let (readme, client) = (text("README.md"), text("src/client/mod.rs"));
    let (_, rest) = readme.split_once("```rust\n").expect("an example in Rust");
    let (example, _) = rest.split_once("```").unwrap();
    let tested: Vec<_> = client.lines().filter_map(|line| line.strip_prefix("//!")).map(str::trim).collect();
    for line in example.lines().map(str::trim).filter(|line| !line.is_empty()) {
        assert!(tested.contains(&line), "not in the example that cargo test runs: {line}");
    }
}
