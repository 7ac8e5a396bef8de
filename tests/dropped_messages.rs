//! A reader of stderr that does not read: messages never wait for it, and it learns later how many it missed.
//!
//! Alone in its process, for a process has only one subscriber for messages.

use std::io::{BufRead, BufReader, pipe};

use clusterd::config::LogFormat;
use clusterd::logs::{Output, messages};
use tracing::level_filters::LevelFilter;

const MESSAGES: usize = 20_000;

#[test]
fn dropped_messages_are_counted_and_reported() {
    let ((_stdout, out), (stderr, err)) = (pipe().unwrap(), pipe().unwrap());
    let output = Output::start(out.into(), err.into()).unwrap();
    messages::install(&output, LogFormat::Json, LevelFilter::INFO).unwrap();
    let again = messages::install(&output, LogFormat::Json, LevelFilter::INFO);
    assert_eq!(again, Err(messages::AlreadyInstalled));

    for number in 0..MESSAGES {
        tracing::warn!(number, "nobody reads this");
    }
    let (mut seen, mut missed) = (0, 0);
    for line in BufReader::new(stderr).lines() {
        let line: serde_json::Value = serde_json::from_str(&line.unwrap()).unwrap();
        match line["dropped"].as_u64() {
            None => seen += 1,
            Some(dropped) => missed += usize::try_from(dropped).unwrap(),
        }
        assert!(seen + missed <= MESSAGES, "{seen} seen, {missed} missed");
        if missed > 0 && seen + missed == MESSAGES {
            return;
        }
    }
    panic!("{seen} seen, {missed} missed");
}
