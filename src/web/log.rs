//! The log of one app for one page, as it comes: the last lines at first.
//!
//! It reads no more than the page takes, and asks no clusterd.

use axum::body::Bytes;
use chrono::SecondsFormat;
use futures_util::{Stream, stream};
use serde::Serialize;
use serde_json::json;
use tokio::time::timeout;

use super::feed;
use crate::home::app_log::{AppLog, Batch};
use crate::logs::source_file;

#[derive(Serialize)]
struct Line {
    text: String,
    error: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    worker: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<String>,
}

impl From<source_file::Line> for Line {
    fn from(line: source_file::Line) -> Self {
        let error = line.is_error();
        let time = line.time.map(|time| time.to_rfc3339_opts(SecondsFormat::Millis, false));
        Self { error, worker: line.worker.map(|slot| slot.0), time, text: line.text }
    }
}

/// Until the page is closed.
pub(super) fn follow(log: AppLog) -> impl Stream<Item = Bytes> + Send {
    stream::unfold(log, async |mut log| {
        let piece = timeout(feed::ALIVE, log.next()).await.map_or(feed::COMMENT, piece);
        Some((piece, log))
    })
}

fn piece(Batch { lines, missed }: Batch) -> Bytes {
    let mut piece = Vec::new();
    if missed {
        feed::write(&mut piece, &json!({ "missed": true }).to_string());
    }
    let lines: Vec<Line> = lines.into_iter().map(Line::from).collect();
    feed::write(&mut piece, &json!({ "lines": lines }).to_string());
    piece.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Slot;
    use crate::logs::plan::SourceKind;

    #[test]
    fn lines_are_objects_and_a_gap_is_told_before_them() {
        let line =
            |kind, worker| source_file::Line { text: "<b>\u{1b}[1m".to_owned(), kind, worker, time: None };
        let lines = vec![line(SourceKind::Out, None), line(SourceKind::Error, Some(Slot(2)))];
        assert_eq!(
            piece(Batch { lines, missed: true }),
            concat!(
                "data: {\"missed\":true}\n\n",
                r#"data: {"lines":[{"error":false,"text":"<b>\u001b[1m"},{"error":true,"text":"<b>\u001b[1m","worker":2}]}"#,
                "\n\n"
            )
        );
    }
}
