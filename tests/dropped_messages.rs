//! A reader of stderr that does not read: messages never wait for it, and it learns later how many it missed.
//!
//! Alone in its process, for a process has only one subscriber for messages.

use std::io::{BufRead, BufReader, PipeReader, pipe};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use clusterd::internal::logs::{Output, messages};
use clusterd::internal::settings::LogFormat;
use tracing::level_filters::LevelFilter;

const MESSAGES: usize = 20_000;
const PATIENCE: Duration = Duration::from_secs(30);

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
    let lines = read_in_background(stderr);
    let (mut seen, mut missed) = (0, 0);
    while missed == 0 || seen + missed < MESSAGES {
        let line = lines.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("{seen} seen, {missed} missed"));
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        match line["dropped"].as_u64() {
            None => seen += 1,
            Some(dropped) => missed += usize::try_from(dropped).unwrap(),
        }
    }
    assert_eq!(seen + missed, MESSAGES, "{seen} seen, {missed} missed");
}

fn read_in_background(stderr: PipeReader) -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stderr).lines() {
            if sender.send(line.unwrap()).is_err() {
                return;
            }
        }
    });
    lines
}
