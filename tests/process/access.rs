//! What an operator and a recipient do by command: invitations, peers, policies, and a configuration that changes.

use std::process::Output;

use serde_json::Value;

use super::program::{Peer, Relay, value};

fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[track_caller]
fn ends(output: &Output, with: i32) -> String {
    assert_eq!(output.status.code(), Some(with), "{}", words(output));
    words(output)
}

fn lines(output: &Output) -> Vec<Value> {
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn id(peer: &Peer) -> String {
    peer.address().rsplit('/').next().unwrap().to_owned()
}

#[test]
fn an_invitation_is_made_shown_once_and_forgotten_by_its_peer() {
    let directory = tempfile::tempdir().unwrap();
    let relay = Relay::configured(directory.path(), "log = 'info'\n[access]\nmailboxes = 'invited'\n");
    let [alice, bob] = ["alice", "bob"].map(|name| Peer::new(directory.path().join(name), &relay));
    let refused = ends(&alice.run(&["count"]), 1);
    assert!(refused.contains("not_invited") && refused.contains("--invite"), "{refused}");
    assert_eq!(lines(&relay.command(&["peers", "--json"])), [] as [Value; 0], "nothing was stored");
    let token = ends(&relay.command(&["invite", "--uses", "1", "--expires", "1h"]), 0);
    // Remembered by a command that connects to nothing, and used by the next.
    ends(&alice.run(&["id", "--invite", token.trim()]), 0);
    assert!(alice.directory.join("invitation").exists());
    ends(&alice.run(&["count"]), 0);
    assert!(!alice.directory.join("invitation").exists());
    ends(&alice.run(&["count"]), 0);
    assert!(ends(&bob.run(&["count", "--invite", token.trim()]), 1).contains("used up"));
}

#[test]
fn peers_are_listed_blocked_allowed_and_removed_by_command() {
    let directory = tempfile::tempdir().unwrap();
    let relay = Relay::start(directory.path());
    let [alice, bob] = ["alice", "bob"].map(|name| Peer::new(directory.path().join(name), &relay));
    let (to, bobs) = (bob.address(), id(&bob));
    ends(&bob.run(&["count"]), 0);
    ends(&alice.run(&["send", "--until", "accepted", "--to", &to, "hello"]), 0);
    let of_bob =
        |relay: &Relay| lines(&relay.command(&["peers", "--json"])).into_iter().find(|peer| peer["peer"] == *bobs);
    let state = of_bob(&relay).unwrap();
    assert_eq!((&state["messages"], &state["online"], &state["access"]), (&1.into(), &false.into(), &Value::Null));
    assert!(state["last_seen"].as_u64().unwrap() > 1_700_000_000_000);
    assert!(ends(&relay.command(&["peers"]), 0).contains("1 messages"));
    ends(&relay.command(&["peers", "block", &to]), 0);
    assert_eq!(of_bob(&relay).unwrap()["access"], "blocked");
    assert!(ends(&bob.run(&["count"]), 1).contains("not_allowed"));
    ends(&relay.command(&["peers", "reset", &bobs]), 0);
    ends(&bob.run(&["count"]), 0);
    assert!(ends(&relay.command(&["peers", "remove", &bobs]), 0).contains("1 messages"));
    assert_eq!(of_bob(&relay), None);
    let told = ends(&alice.run(&["recv", "--idle", "1s"]), 3);
    assert!(told.contains(r#""reason":"removed""#), "{told}");
    assert!(ends(&relay.command(&["peers", "block", "nobody"]), 2).contains("PEER"));
}

#[test]
fn a_recipient_says_whose_messages_it_takes_and_senders_are_told() {
    let directory = tempfile::tempdir().unwrap();
    let relay = Relay::start(directory.path());
    let [alice, bob] = ["alice", "bob"].map(|name| Peer::new(directory.path().join(name), &relay));
    let (to, alices) = (bob.address(), id(&alice));
    let policy = |arguments: &[&str]| {
        let output = bob.run(arguments);
        ends(&output, 0);
        let policy = lines(&output).pop().unwrap();
        assert_eq!(policy["event"], "policy");
        (policy["senders"].as_str().unwrap().to_owned(), policy["allowed"].clone(), policy["blocked"].clone())
    };
    let (none, her): (Value, Value) = (Vec::<Value>::new().into(), vec![Value::from(&*alices)].into());
    assert_eq!(policy(&["policy"]), ("anyone".to_owned(), none.clone(), none.clone()));
    assert_eq!(policy(&["block", &alices]), ("anyone".to_owned(), none.clone(), her.clone()));
    let told = ends(&alice.run(&["send", "--to", &to, "hello"]), 3);
    assert!(told.contains(r#""reason":"blocked""#), "{told}");
    assert_eq!(policy(&["policy", "contacts"]).0, "contacts");
    assert_eq!(policy(&["allow", &alices]), ("contacts".to_owned(), her, none));
    ends(&alice.run(&["send", "--until", "accepted", "--to", &to, "hello"]), 0);
}

#[test]
fn whoever_is_refused_is_told_why_and_counted() {
    let directory = tempfile::tempdir().unwrap();
    let rates = "[rates]\npeer_messages_per_second = 1\npeer_burst = 1\n";
    let relay = Relay::configured(directory.path(), &format!("log = 'info'\n{rates}"));
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(|name| Peer::new(directory.path().join(name), &relay));
    let counted = |series: &str| value(&relay.get("metrics").1, series);
    ends(&bob.run(&["block", &id(&carol)]), 0);
    assert!(ends(&carol.run(&["send", "--to", &bob.address(), "hello"]), 3).contains(r#""reason":"blocked""#));
    assert_eq!(counted(r#"posthouse_refusals_total{reason="blocked"}"#), Some(1.0));
    // The second one waits for its turn and is taken then.
    ends(&alice.run(&["send", "--until", "accepted", "--to", &bob.address(), "one", "two"]), 0);
    assert!(counted(r#"posthouse_refusals_total{reason="rate"}"#) >= Some(1.0));
    assert_eq!(lines(&bob.run(&["count"])).pop().unwrap()["total"], 2, "nothing of what was refused is stored");
    let said = relay.reconfigure("log = 'info'\n[access]\nmailboxes = 'invited'\n");
    assert!(said.contains("access.mailboxes"), "{said}");
    let dave = Peer::new(directory.path().join("dave"), &relay);
    assert!(ends(&dave.run(&["count"]), 1).contains("not_invited"));
    assert!(counted(r#"posthouse_closed_sessions_total{code="not_invited"}"#) >= Some(1.0));
}

#[test]
fn a_changed_configuration_is_taken_up_and_a_wrong_one_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let relay = Relay::configured(directory.path(), "log = 'info'\n");
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(|name| Peer::new(directory.path().join(name), &relay));
    let (to, carols) = (bob.address(), id(&carol));
    ends(&bob.run(&["count"]), 0);
    let said = relay.reconfigure("log = 'info'\n[limits]\nbody_byte = 3\n[access]\nmailboxes = 'listed'\n");
    assert!(said.contains("nothing was changed") && said.contains("line 3") && said.contains("body_byte"), "{said}");
    ends(&alice.run(&["send", "--until", "accepted", "--to", &to, "too long?"]), 0);
    let changed = format!(
        "log = 'info'\ndata = '/elsewhere'\nlisten = '127.0.0.1:1'\n[limits]\nbody_bytes = 3\nidle_timeout_seconds = 99\n\
         [access]\nmailboxes = 'listed'\nallow = ['{carols}']\n[rates]\npeer_messages_per_second = 1000\n"
    );
    let said = relay.reconfigure(&changed);
    for key in ["limits.body_bytes", "access.mailboxes", "access.allow", "rates.peer_messages_per_second"] {
        assert!(said.lines().any(|line| line.contains(key) && !line.contains("start")), "{key}: {said}");
    }
    let anew: Vec<_> = said.lines().filter(|line| line.contains("start the relay anew")).collect();
    assert!(anew.len() == 1 && anew[0].contains("limits.idle_timeout_seconds"), "flags come before the file: {said}");
    let told = ends(&carol.run(&["send", "--to", &to, "too long"]), 3);
    assert!(told.contains(r#""reason":"too_large""#) || told.contains(r#""reason":"unknown_peer""#), "{told}");
    assert!(ends(&bob.run(&["count"]), 1).contains("not_allowed"));
    let said = relay.reconfigure(&changed.replace("'info'", "'error'"));
    assert!(!said.contains("body_bytes"), "what is in force already is no change: {said}");
}
