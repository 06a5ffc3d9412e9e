//! `posthouse bench`: every scenario at a tiny size, what it leaves behind, and what it says to wrong flags.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

use super::program::{Relay, wait_until};

/// The benchmark with a temporary directory of its own.
fn bench(temporary: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_posthouse"));
    command.arg("bench").args(arguments).env("TMPDIR", temporary).stdin(Stdio::null());
    command
}

/// What it prints with `--json`, once it has ended well and left nothing behind.
fn measured(arguments: &[&str]) -> Vec<Value> {
    let temporary = tempfile::tempdir().unwrap();
    // To a file: a relay that is left running would hold a pipe open, and reading it would never end.
    let errors = tempfile::NamedTempFile::new().unwrap();
    let mut command = bench(temporary.path(), &[arguments, &["--json"]].concat());
    let output = command.stderr(errors.reopen().unwrap()).output().unwrap();
    let errors = std::fs::read_to_string(errors.path()).unwrap();
    assert!(output.status.success(), "{arguments:?}: {errors}");
    assert_nothing_left(temporary.path());
    let lines = String::from_utf8(output.stdout).unwrap();
    let events: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(events.iter().all(|event| event["event"].is_string()), "each line names its event: {lines}");
    events
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Neither a file nor a process that was started with its directory here.
fn assert_nothing_left(temporary: &Path) {
    let left: Vec<_> = std::fs::read_dir(temporary).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(processes_of(temporary), Vec::<String>::new());
}

/// The command lines that name this directory, where the system shows them.
fn processes_of(temporary: &Path) -> Vec<String> {
    let processes = std::fs::read_dir("/proc").into_iter().flatten();
    let lines = processes.filter_map(|entry| std::fs::read_to_string(entry.ok()?.path().join("cmdline")).ok());
    lines.filter(|line| line.contains(temporary.to_str().unwrap())).collect()
}

fn result(events: &[Value]) -> &Value {
    let result = events.last().unwrap();
    assert_eq!(result["event"], "result");
    assert_eq!(result["durability"], "disk");
    for field in ["messages", "messages_per_second", "p50_us", "p99_us"] {
        assert!(result[field].as_u64().unwrap() > 0, "{field}: {result}");
    }
    assert!(result["p99_us"].as_u64() >= result["p50_us"].as_u64(), "{result}");
    result
}

fn count(events: &[Value], name: &str) -> usize {
    events.iter().filter(|event| event["event"] == name).count()
}

#[test]
fn pairs_are_measured_from_send_to_outcome() {
    let arguments = ["--pairs", "2", "--window", "3", "--messages", "20", "--body", "10"];
    for durable in [&[][..], &["--durable-clients"]] {
        let events = measured(&[&arguments, durable].concat());
        let result = result(&events);
        assert_eq!((&result["scenario"], &result["messages"]), (&"online".into(), &20.into()));
    }
}

#[test]
fn pairs_are_measured_at_a_steady_rate() {
    let events = measured(&["--pairs", "4", "--rate", "100", "--messages", "50"]);
    let result = result(&events);
    assert_eq!((&result["scenario"], &result["rate"], &result["pairs"]), (&"online".into(), &100.into(), &4.into()));
    assert_eq!((&result["messages"], &result["messages_per_second"]), (&50.into(), &100.into()));
}

#[test]
fn a_rate_that_cannot_be_kept_up_is_no_result() {
    let temporary = tempfile::tempdir().unwrap();
    let output = bench(temporary.path(), &["--pairs", "4", "--rate", "40000", "--seconds", "1"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(stderr(&output).contains("ask for fewer with --rate"), "{}", stderr(&output));
    assert_nothing_left(temporary.path());
}

#[test]
fn a_mailbox_is_filled_looked_into_and_drained_as_often_as_asked_for() {
    let events = measured(&["--scenario", "offline", "--pairs", "3", "--messages", "200", "--rounds", "2"]);
    assert_eq!((count(&events, "fill"), count(&events, "drain")), (2, 2));
    assert_eq!((count(&events, "view"), count(&events, "growth")), (8, 3), "with few messages and with all, once");
    for view in events.iter().filter(|event| event["event"] == "view") {
        assert!(view["p50_us"].is_u64() && view["p99_us"].is_u64() && view["round_trip_us"].is_u64(), "{view}");
    }
    let result = result(&events);
    assert_eq!((&result["scenario"], &result["messages"]), (&"offline".into(), &200.into()));
    assert!(result["store_bytes"].as_u64().unwrap() > 0, "{result}");
    if cfg!(target_os = "linux") {
        for field in ["relay_peak_bytes", "relay_bytes", "relay_cpu_seconds", "client_cpu_seconds"] {
            assert!(result[field].is_number(), "{field}: {result}");
        }
    }
}

#[test]
fn delivery_is_measured_with_and_without_messages_that_all_expire() {
    let scenario = ["--scenario", "expiry", "--pairs", "2", "--rate", "200", "--rounds", "1"];
    let events = measured(&[&scenario[..], &["--messages", "2000"]].concat());
    assert_eq!(count(&events, "round"), 1);
    let result = result(&events);
    assert_eq!((&result["scenario"], &result["expired"]), (&"expiry".into(), &2000.into()));
    for field in ["quiet_p50_us", "quiet_p99_us", "sweep_us"] {
        assert!(result[field].as_u64().unwrap() > 0, "{field}: {result}");
    }
    assert!(result["p99_ratio"].is_number() && result["median_p99_ratio"].is_number(), "{result}");
}

#[test]
fn idle_sessions_cost_what_is_said_and_all_come_back() {
    let events = measured(&["--scenario", "idle", "--sessions", "20"]);
    let result = events.last().unwrap();
    assert_eq!((&result["scenario"], &result["sessions"]), (&"idle".into(), &20.into()));
    for figure in ["bytes_per_session", "bytes_per_bare_connection", "back_p50_us", "back_last_us"] {
        assert!(result[figure].as_u64() > Some(0), "{figure} in {result}");
    }
}

#[test]
fn delivery_is_measured_with_and_without_a_backup() {
    let scenario = ["--scenario", "backup", "--pairs", "2", "--rate", "200", "--rounds", "1"];
    let events = measured(&[&scenario[..], &["--messages", "2000"]].concat());
    assert_eq!(result(&events)["scenario"], "backup");
    assert_eq!(count(&events, "round"), 1);
}

#[cfg(target_os = "linux")]
#[test]
fn delivery_is_measured_with_and_without_an_attack() {
    let scenario = ["--scenario", "hostile", "--attack", "silent", "--rounds", "1"];
    let events = measured(&[&scenario[..], &["--window", "16", "--messages", "200"]].concat());
    assert_eq!(count(&events, "attack"), 1);
    let attack = &events[0];
    assert_eq!(attack["attack"], "silent");
    assert!(attack["turned_away"]["address_full"].as_u64().unwrap() > 0, "{attack}");
    for field in ["quiet_messages_per_second", "messages_per_second", "relay_peak_bytes", "quiet_relay_peak_bytes"] {
        assert!(attack[field].as_u64().unwrap() > 0, "{field}: {attack}");
    }
    let result = result(&events);
    assert_eq!((&result["scenario"], &result["messages"]), (&"hostile".into(), &200.into()));
    assert!(result["worst_median_ratio"].as_f64().unwrap() > 0.0, "{result}");
}

#[test]
fn what_two_relays_deliver_is_measured_beside_what_one_does() {
    let scenario = ["--scenario", "federated", "--pairs", "2", "--window", "3", "--rounds", "2"];
    let events = measured(&[&scenario[..], &["--messages", "20"]].concat());
    assert_eq!(count(&events, "round"), 4, "each way in each round");
    let result = result(&events);
    assert_eq!((&result["scenario"], &result["messages"]), (&"federated".into(), &40.into()));
    assert!(result["ratio"].as_f64().unwrap() > 0.0 && result["median_ratio"].is_number(), "{result}");
    for way in ["one_relay", "two_relays"] {
        for field in ["messages", "messages_per_second", "p50_us", "p99_us"] {
            assert!(result[way][field].as_u64().unwrap() > 0, "{way} {field}: {result}");
        }
    }
}

#[test]
fn a_relay_that_is_named_is_measured_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let relay = Relay::start(directory.path());
    let events = measured(&["--relay", &relay.address, "--pairs", "1", "--messages", "5"]);
    assert_eq!(result(&events)["messages"], 5);
    let again = measured(&["--relay", &relay.address, "--scenario", "offline", "--pairs", "2", "--messages", "100"]);
    assert!(result(&again)["store_bytes"].is_null(), "its file is not ours to look at");
}

#[test]
fn what_ends_it_from_outside_leaves_no_process_and_no_directory() {
    for signal in ["-INT", "-TERM"] {
        let temporary = tempfile::tempdir().unwrap();
        let mut child = bench(temporary.path(), &["--seconds", "600"]).stdout(Stdio::null()).spawn().unwrap();
        wait_until("its relay runs", || processes_of(temporary.path()).len() == 1);
        let kill = Command::new("kill").arg(signal).arg(child.id().to_string()).status().unwrap();
        assert!(kill.success());
        wait_until("it ends", || child.try_wait().unwrap().is_some());
        assert_eq!(exit_code(&mut child), Some(1), "{signal}");
        assert_nothing_left(temporary.path());
    }
}

fn exit_code(child: &mut Child) -> Option<i32> {
    child.wait().unwrap().code()
}

#[test]
fn a_wrong_flag_exits_with_2_and_says_what_is_right() {
    let temporary = tempfile::tempdir().unwrap();
    for (arguments, words) in [
        (&["--scenario", "idling"][..], "online, offline, expiry"),
        (&["--scenario", "offline", "--window", "3"], "--window is for --scenario online"),
        (&["--rounds", "3"], "--rounds is for --scenario offline and expiry"),
        (&["--scenario", "federated", "--rate", "3"], "--rate is for --scenario online"),
        (&["--rate", "3", "--window", "3"], "give --window or --rate"),
        (&["--pairs", "0"], "1..="),
        (&["--messages", "many"], "--messages"),
        (&["--body", "1048577"], "use 0 to 1048576"),
        (&["--relay", "localhost:4433"], "posthouse://"),
    ] {
        let output = bench(temporary.path(), arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(words), "{arguments:?}: {}", stderr(&output));
    }
    assert_nothing_left(temporary.path());
}
