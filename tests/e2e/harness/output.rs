//! What a process wrote, read by a thread so that it never waits for the test.

use std::io::{BufRead as _, BufReader, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

/// The lines that came so far.
#[derive(Clone, Default)]
pub(crate) struct Output {
    lines: Arc<Mutex<Vec<String>>>,
    ended: Arc<AtomicBool>,
}

impl Output {
    /// Reads `stream` to its end in a thread of its own.
    pub(crate) fn read(stream: impl Read + Send + 'static) -> Self {
        let output = Self::default();
        let reader = output.clone();
        thread::spawn(move || {
            let mut stream = BufReader::new(stream);
            let mut line = Vec::new();
            while stream.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
                let text = String::from_utf8_lossy(&line);
                reader.lock().push(text.trim_end_matches(['\r', '\n']).to_owned());
                line.clear();
            }
            reader.ended.store(true, Ordering::Release);
        });
        output
    }

    /// Every line so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.lock().clone()
    }

    /// Whether nobody can write to it any more, and all is read.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Every line so far, as one text.
    pub(crate) fn text(&self) -> String {
        self.lock().join("\n")
    }

    /// The first line that has all of these in it.
    pub(crate) fn line_with(&self, words: &[&str]) -> Option<String> {
        self.lines().into_iter().find(|line| words.iter().all(|word| line.contains(word)))
    }

    /// Where that line stands.
    #[track_caller]
    pub(crate) fn place_of(&self, words: &[&str]) -> usize {
        let place = self.lines().iter().position(|line| words.iter().all(|word| line.contains(word)));
        place.unwrap_or_else(|| panic!("no {words:?} in {}", self.text()))
    }

    /// clusterd's own messages in JSON whose text is `message`, oldest first.
    pub(crate) fn messages(&self, message: &str) -> Vec<serde_json::Value> {
        let lines = self.lines();
        let objects = lines.iter().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        objects.filter(|object| object["message"] == message).collect()
    }

    /// The texts of clusterd's own messages in JSON that begin with one of these, oldest first.
    pub(crate) fn said(&self, beginnings: &[&str]) -> Vec<String> {
        let lines = self.lines();
        let objects = lines.iter().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let texts = objects.filter_map(|object| object["message"].as_str().map(str::to_owned));
        texts.filter(|text| beginnings.iter().any(|beginning| text.starts_with(beginning))).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<String>> {
        self.lines.lock().expect("no thread panics while it holds the lines")
    }
}
