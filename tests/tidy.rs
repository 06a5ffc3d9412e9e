//! Holds the code's structure to docs/ARCHITECTURE.md: which module may import which, what the pure ones may
//! not name, and how every file begins.

#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

/// The modules from the bottom up. One may import those of lower floors alone.
const FLOORS: &[&[&str]] = &[
    &["id", "time", "random", "ranges", "measure", "mutant"],
    &["address"],
    &["protocol"],
    &["delivery", "identity"],
    &["store", "transport"],
    &["link"],
    &["client", "federation"],
    &["relay"],
    &["admin"],
    &["cli"],
];

/// What the sans-IO modules never name.
const IMPURE: &[&str] = &[
    "tokio::",
    "quinn::",
    "rustls::",
    "redb::",
    "std::fs",
    "std::thread",
    "std::process",
    "UdpSocket",
    "TcpStream",
    "SystemTime",
    "Instant",
    "getrandom",
    "Entropy",
];

/// What only one place may name: the library, and where.
const CONFINED: &[(&str, &[&str])] = &[
    ("quinn::", &["src/transport/"]),
    ("rustls::", &["src/transport/", "src/identity.rs"]),
    ("redb::", &["src/store/redb/"]),
    ("getrandom::", &["src/random.rs"]),
    ("SystemTime::now", &["src/time.rs"]),
    ("anyhow::", &["src/cli/"]),
    ("axum::", &["src/admin/"]),
    ("prometheus_client::", &["src/admin/"]),
    ("clap::", &["src/cli/"]),
    ("ureq::", &["src/cli/"]),
    ("governor::", &["src/relay/rate.rs"]),
];

/// Lines after which a file has more than one charge.
const MAX_LINES: usize = 600;

/// Names that say nothing.
const EMPTY_NAMES: &[&str] = &["util", "utils", "common", "helper", "helpers", "manager", "misc"];

fn sources(directory: &str) -> Vec<(String, String)> {
    fn walk(directory: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                // What cargo made is nobody's writing.
                if !path.ends_with("target") {
                    walk(&path, found);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    walk(&root.join(directory), &mut found);
    found.sort();
    assert!(!found.is_empty(), "{directory} has sources");
    let name = |path: &Path| path.strip_prefix(root).unwrap().display().to_string();
    found.iter().map(|path| (name(path), fs::read_to_string(path).unwrap())).collect()
}

/// The code of a file: without comments, and without its tests.
fn code(text: &str) -> String {
    let begins = |at: usize| text[at..].lines().nth(1).is_some_and(|line| line.contains("mod ") && line.ends_with('{'));
    let tests = text.match_indices("#[cfg(test)]\n").map(|(at, _)| at).find(|at| begins(*at)).unwrap_or(text.len());
    let lines = text[..tests].lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

fn is_test(name: &str) -> bool {
    name.ends_with("tests.rs") || name.contains("/tests/")
}

fn module(name: &str) -> &str {
    let rest = name.strip_prefix("src/").unwrap();
    rest.split('/').next().unwrap().trim_end_matches(".rs")
}

fn floor(module: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&module))
}

/// Fails with all findings at once.
fn report(findings: Vec<String>) {
    assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
}

#[test]
fn imports_point_downwards() {
    let mut findings = Vec::new();
    for (name, text) in sources("src") {
        let own = module(&name);
        if matches!(own, "lib" | "main") || is_test(&name) {
            continue;
        }
        let Some(height) = floor(own) else {
            findings.push(format!("{name}: give module {own} its floor in tests/tidy.rs"));
            continue;
        };
        for import in code(&text).split("crate::").skip(1) {
            let other: String = import.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            match floor(&other) {
                Some(theirs) if theirs < height || other == own => {}
                Some(_) => findings.push(format!("{name}: {own} may not import {other}")),
                None if import.starts_with('{') => findings.push(format!("{name}: one `use crate::` for each module")),
                None => {}
            }
        }
    }
    report(findings);
}

#[test]
fn the_pure_modules_name_nothing_impure() {
    let mut findings = Vec::new();
    for (name, text) in sources("src") {
        if !matches!(module(&name), "protocol" | "delivery" | "ranges" | "id" | "address") || is_test(&name) {
            continue;
        }
        let code = code(&text);
        findings.extend(IMPURE.iter().filter(|word| code.contains(*word)).map(|word| format!("{name}: names {word}")));
    }
    report(findings);
}

#[test]
fn libraries_stay_where_they_belong() {
    let mut findings = Vec::new();
    for (name, text) in sources("src") {
        if is_test(&name) {
            continue;
        }
        let code = code(&text);
        for (library, places) in CONFINED {
            // `store::redb::` is ours, `redb::` the library.
            let named = code.match_indices(library).any(|(at, _)| !code[..at].ends_with("::"));
            if named && !places.iter().any(|place| name.starts_with(place)) {
                findings.push(format!("{name}: only {} may name {library}", places.join(", ")));
            }
        }
    }
    report(findings);
}

#[test]
fn every_file_has_one_charge_and_says_it_first() {
    let mut findings = Vec::new();
    let all = ["src", "tests", "examples"]
        .into_iter()
        .filter(|directory| Path::new(env!("CARGO_MANIFEST_DIR")).join(directory).is_dir());
    for (name, text) in all.flat_map(sources) {
        if !text.starts_with("//! ") {
            findings.push(format!("{name}: begins with //! and its charge"));
        }
        let lines = text.lines().count();
        if lines > MAX_LINES {
            findings.push(format!("{name}: {lines} lines; a file with one charge has at most {MAX_LINES}"));
        }
        let stem = Path::new(&name).file_stem().unwrap().to_str().unwrap();
        if EMPTY_NAMES.contains(&stem) {
            findings.push(format!("{name}: {stem} says nothing"));
        }
        let unfinished = ["TO", "DO"].concat();
        if text.contains(&unfinished) || text.contains(&["unimple", "mented!"].concat()) {
            findings.push(format!("{name}: is unfinished"));
        }
    }
    report(findings);
}
