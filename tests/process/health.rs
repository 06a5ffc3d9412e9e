//! What an operator sees of a relay: readiness, status, metrics, and a log that names nobody.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;

use super::program::{Peer, Relay, value};

const SECRET: &str = "a body that nobody else may read";

fn id(address: &str) -> &str {
    address.rsplit('/').next().unwrap()
}

/// Words that begin with the prefix of all metrics.
fn names(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("posthouse_") && *word != "posthouse_").map(str::to_owned).collect()
}

#[test]
fn status_and_metrics_say_what_happened() {
    let directory = tempfile::tempdir().unwrap();
    let relay = Relay::configured(directory.path(), "[limits]\nbody_bytes = 100");
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(|name| Peer::new(directory.path().join(name), &relay));
    let receiver = bob.start(&["recv"]);
    receiver.expect("status");
    for _ in 0..3 {
        assert!(alice.run(&["send", "--to", &bob.address(), "hello"]).status.success());
    }
    assert!(alice.run(&["send", "--until", "accepted", "--to", &carol.address(), "later"]).status.success());
    assert!(!alice.run(&["send", "--to", &bob.address(), &"x".repeat(101)]).status.success());

    let output = relay.command(&["status", "--json"]);
    let status: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&status["ready"], &status["sessions"], &status["messages"]), (&true.into(), &1.into(), &1.into()));
    assert_eq!((&status["mailboxes"], &status["provisional_mailboxes"]), (&3.into(), &1.into()));
    assert!(status["store_bytes"].as_u64().unwrap() > 0);
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    let words = String::from_utf8(relay.command(&["status"]).stdout).unwrap();
    assert!(words.contains("1 message in 3 mailboxes"), "{words}");
    assert_eq!(relay.get("readyz"), (200, "ready\n".to_owned()));
    assert!(relay.command(&["health"]).status.success());

    let (code, metrics) = relay.get("metrics");
    assert_eq!(code, 200);
    let is = |series: &str, expected: f64| assert_eq!(value(&metrics, series), Some(expected), "{series}\n{metrics}");
    is(r#"posthouse_packets_total{packet="MSG:R"}"#, 5.0);
    is(r#"posthouse_packets_total{packet="MSG:A"}"#, 5.0);
    is(r#"posthouse_packets_total{packet="MSG:N"}"#, 3.0);
    is(r#"posthouse_packets_total{packet="ACK:R"}"#, 3.0);
    is(r#"posthouse_packets_total{packet="ACK:A"}"#, 3.0);
    is(r#"posthouse_packets_total{packet="ACK:N"}"#, 3.0);
    is("posthouse_accepted_messages_total", 4.0);
    is(r#"posthouse_refusals_total{reason="too_large"}"#, 1.0);
    is(r#"posthouse_refusals_total{reason="quota"}"#, 0.0);
    is(r#"posthouse_outcomes_total{outcome="delivered"}"#, 3.0);
    is("posthouse_delivery_duration_seconds_count", 3.0);
    is(r#"posthouse_delivery_duration_seconds_bucket{le="+Inf"}"#, 3.0);
    is("posthouse_sessions", 1.0);
    is("posthouse_mailbox_messages", 1.0);
    assert!(value(&metrics, "posthouse_commit_duration_seconds_count").unwrap() > 8.0);
    // The report behind these figures was read, so the tables had all of it.
    assert!(value(&metrics, "posthouse_tables_duration_seconds_count").unwrap() > 0.0);
    for name in names(&metrics) {
        let family = ["_total", "_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        let described = format!("# HELP {} ", family.unwrap_or(&name));
        assert!(metrics.contains(&described), "{name} is explained");
    }
}

#[test]
fn the_dashboard_and_the_manual_name_the_metrics_that_there_are() {
    let directory = tempfile::tempdir().unwrap();
    let there = names(&Relay::start(directory.path()).get("metrics").1);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dashboard = fs::read_to_string(root.join("docs/packaging/grafana.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&dashboard).unwrap();
    let shown = names(&dashboard.to_string());
    assert!(shown.len() > 10, "{shown:?}");
    assert_eq!(shown.difference(&there).collect::<Vec<_>>(), [] as [&String; 0], "shown, but not told");
    let manual = names(&fs::read_to_string(root.join("docs/OPERATIONS.md")).unwrap());
    assert_eq!(manual.difference(&there).collect::<Vec<_>>(), [] as [&String; 0], "described, but not told");
    let described = |name: &&String| {
        let plain = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
        !manual.contains(plain) && !manual.iter().any(|told| told.starts_with(plain))
    };
    assert_eq!(there.iter().filter(described).collect::<Vec<_>>(), [] as [&String; 0], "told, but not described");
}

#[test]
fn the_log_names_no_peer_and_shows_no_body() {
    let directory = tempfile::tempdir().unwrap();
    let mut relay = Relay::configured(directory.path(), "log = 'info'\nlog_format = 'json'");
    let [alice, bob] = ["alice", "bob"].map(|name| Peer::new(directory.path().join(name), &relay));
    let receiver = bob.start(&["recv"]);
    receiver.expect("status");
    assert!(alice.run(&["send", "--to", &bob.address(), SECRET]).status.success());
    // The newer session of one peer ends the older one.
    assert!(bob.run(&["count"]).status.code().is_some());
    relay.terminate();
    assert_eq!(relay.wait().code(), Some(0));
    let log = relay.logged();
    assert!(log.lines().count() >= 2, "{log}");
    for line in log.lines() {
        let event: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        assert!(event["fields"]["message"].is_string(), "{line}");
    }
    for hidden in [SECRET, id(&alice.address()), id(&bob.address())] {
        assert!(!log.contains(hidden), "{hidden} is in the log:\n{log}");
    }
}
