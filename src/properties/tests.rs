//! Every property without a fuzzer: with the seeds of `fuzz/`, and with what they become when they are cut, joined and changed.

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestError, TestRunner};

type Check = fn(&[u8]);

/// The seeds of a target, in the order of their names.
pub(super) fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let entries = fs::read_dir(folder).expect("a folder of seeds");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    files.iter().map(|file| fs::read(file).expect("a seed")).collect()
}

/// The beginning of one seed and the end of another, with a few bytes in other places.
fn changed(seeds: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let seed = prop::sample::select(seeds);
    let byte = prop_oneof![prop::sample::select(b"\"'\\{}[]:=,.#<&*-+019 \t\r\n\0".to_vec()), any::<u8>()];
    let changes = prop::collection::vec((any::<prop::sample::Index>(), byte), 0..4);
    let at = || any::<prop::sample::Index>();
    (seed.clone(), at(), seed, at(), changes).prop_map(|(head, to, tail, from, changes)| {
        let mut data = [&head[..to.index(head.len() + 1)], &tail[from.index(tail.len() + 1)..]].concat();
        for (at, byte) in changes {
            data.insert(at.index(data.len() + 1), byte);
        }
        data
    })
}

fn holds(target: &str, check: Check) {
    let seeds = seeds(target);
    assert!(seeds.len() >= 3, "{target}");
    seeds.iter().for_each(|seed| check(seed));
    holds_of(check, changed(seeds));
    holds_of(check, prop::collection::vec(any::<u8>(), 0..64));
}

fn holds_of(check: Check, data: impl Strategy<Value = Vec<u8>>) {
    let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::default() });
    match runner.run(&data, |data| {
        check(&data);
        Ok(())
    }) {
        Ok(()) => {}
        Err(TestError::Fail(reason, data)) => panic!("{reason}: b\"{}\"", data.escape_ascii()),
        Err(TestError::Abort(reason)) => panic!("{reason}"),
    }
}

#[test]
fn attach_wire_holds() {
    holds("attach_wire", super::attach_wire::check);
}

#[test]
fn api_body_holds() {
    holds("api_body", super::api_body::check);
}

#[test]
fn settings_file_holds() {
    holds("settings_file", super::settings_file::check);
}

#[test]
fn import_holds() {
    holds("import", super::import::check);
}

#[test]
fn env_file_holds() {
    holds("env_file", super::env_file::check);
}

#[test]
fn listen_fds_holds() {
    holds("listen_fds", super::listen_fds::check);
}

#[test]
fn home_state_holds() {
    holds("home_state", super::home_state::check);
}

#[test]
fn snapshot_holds() {
    holds("snapshot", super::snapshot::check);
}
