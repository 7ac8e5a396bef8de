//! Cuts a stream of bytes into lines, and writes them as they are to be written.
//!
//! It does no I/O, and does not ask for UTF-8: a worker may write what it likes.

use chrono::{DateTime, Local, SecondsFormat, Utc};
use serde::Serialize;

use super::ids::WorkerIds;
use super::plan::LineFormat;
use super::write::Stream;
use crate::ids::Slot;
use crate::settings::date_format::DateFormat;

/// The longest line, in bytes, without its newline. A longer one is passed on in pieces of this length.
pub(super) const LONGEST: usize = 64 * 1024;

/// One worker's stream: what has come of the line that is not complete yet.
#[derive(Debug)]
pub(super) struct LineSplitter {
    look: LineLook,
    partial: Vec<u8>,
}

/// What the lines of one stream look like.
#[derive(Debug)]
pub(super) enum LineLook {
    /// As they come, behind this prefix and the time at which they ended.
    Text {
        /// The same for each line.
        prefix: String,
        /// How the time is written, if it is.
        stamp: Option<DateFormat>,
    },
    /// As objects.
    Json {
        /// How the time is written, if it is not as everywhere.
        stamp: Option<DateFormat>,
        /// What is the same for each line.
        origin: LineOrigin,
    },
}

/// Where a line comes from.
#[derive(Debug)]
pub(super) struct LineOrigin {
    app: String,
    stream: Stream,
    slot: Slot,
    ids: WorkerIds,
}

impl LineLook {
    /// Of this worker's stream; `prefix` goes before each line that is no object.
    pub(super) fn of(
        format: &LineFormat,
        prefix: String,
        (stream, slot): (Stream, Slot),
        ids: &WorkerIds,
    ) -> Self {
        let stamp = format.stamp.clone();
        match format.json.clone() {
            None => Self::Text { prefix, stamp },
            Some(app) => Self::Json { stamp, origin: LineOrigin { app, stream, slot, ids: ids.clone() } },
        }
    }

    /// What stands before the text of lines that end now.
    fn start(&self) -> LineStart<'_> {
        match self {
            Self::Text { prefix, stamp: None } => LineStart::Text(prefix.as_str().into()),
            Self::Text { prefix, stamp: Some(stamp) } => {
                LineStart::Text(format!("{prefix}{}: ", stamp.write(&Local::now())).into())
            }
            Self::Json { stamp, origin } => {
                let time = match stamp {
                    Some(stamp) => stamp.write(&Local::now()),
                    None => rfc3339(Utc::now()),
                };
                LineStart::Json { time, id: origin.ids.of(origin.slot), origin }
            }
        }
    }
}

fn rfc3339(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// A look at one time.
enum LineStart<'a> {
    Text(std::borrow::Cow<'a, str>),
    Json { time: String, id: u32, origin: &'a LineOrigin },
}

/// With PM2's keys, in its order, and the worker.
#[derive(Serialize)]
struct JsonLine<'a> {
    message: &'a str,
    timestamp: &'a str,
    r#type: &'static str,
    process_id: u32,
    app_name: &'a str,
    worker: u32,
}

impl LineStart<'_> {
    /// Appends the line whose text is that of both parts.
    fn line(&self, (first, second): (&mut Vec<u8>, &[u8]), out: &mut Vec<u8>) {
        match self {
            Self::Text(start) => {
                out.extend_from_slice(start.as_bytes());
                out.append(first);
                out.extend_from_slice(second);
            }
            Self::Json { time, id, origin } => {
                first.extend_from_slice(second);
                let line = JsonLine {
                    message: &String::from_utf8_lossy(first),
                    timestamp: time,
                    r#type: origin.stream.name(),
                    process_id: *id,
                    app_name: &origin.app,
                    worker: origin.slot.0,
                };
                serde_json::to_writer(&mut *out, &line).expect("texts and numbers can be written");
                first.clear();
            }
        }
        out.push(b'\n');
    }
}

impl LineSplitter {
    /// This has come of a line, and has not been passed on: nothing at the start of a stream.
    pub(super) fn within(look: LineLook, partial: Vec<u8>) -> Self {
        Self { look, partial }
    }

    /// What has come of the line that is not complete yet.
    pub(super) fn partial(&self) -> &[u8] {
        &self.partial
    }

    /// Takes the next bytes of the stream, and appends to `out` the lines that they complete. Each ends with a
    /// newline, a piece of an overlong one too, so that another worker's line can follow.
    pub(super) fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        if !matches!(&self.look, LineLook::Text { prefix, stamp: None } if prefix.is_empty()) {
            return self.lines(bytes, out);
        }
        // Whole lines that stay as they are need not be looked at one by one.
        let mut rest = bytes;
        while !rest.is_empty() {
            let first = &rest[..rest.len().min(LONGEST)];
            let end = match self.partial.is_empty() {
                true => memchr::memrchr(b'\n', first),
                false => memchr::memchr(b'\n', first),
            };
            let (part, behind) = rest.split_at(end.map_or(first.len(), |end| end + 1));
            if end.is_some() && self.partial.is_empty() {
                out.extend_from_slice(part);
            } else {
                self.lines(part, out);
            }
            rest = behind;
        }
    }

    fn lines(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let start = self.look.start();
        for part in bytes.split_inclusive(|&byte| byte == b'\n') {
            let (mut body, complete) = match part.strip_suffix(b"\n") {
                Some(body) => (body, true),
                None => (part, false),
            };
            while self.partial.len() + body.len() > LONGEST {
                let (piece, rest) = body.split_at(LONGEST - self.partial.len());
                start.line((&mut self.partial, piece), out);
                body = rest;
            }
            if complete {
                start.line((&mut self.partial, body), out);
            } else {
                self.partial.extend_from_slice(body);
            }
        }
    }

    /// The stream ended: a last line without a newline gets one.
    pub(super) fn end(&mut self, out: &mut Vec<u8>) {
        if !self.partial.is_empty() {
            self.look.start().line((&mut self.partial, b""), out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(prefix: &str) -> LineLook {
        LineLook::of(
            &LineFormat::default(),
            prefix.to_owned(),
            (Stream::Stdout, Slot(1)),
            &WorkerIds::default(),
        )
    }

    fn formatted(format: &LineFormat, chunks: &[&[u8]]) -> String {
        let ids = WorkerIds::default();
        let mut lines = LineSplitter::within(
            LineLook::of(format, String::new(), (Stream::Stderr, Slot(3)), &ids),
            Vec::new(),
        );
        ids.set(vec![4, 5, 17]);
        let mut out = Vec::new();
        chunks.iter().for_each(|chunk| lines.push(chunk, &mut out));
        lines.end(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn each_line_is_stamped_once_however_it_comes() {
        let format = LineFormat { stamp: Some(DateFormat::of("[at]").unwrap()), json: None };
        let out = formatted(&format, &[b"one\ntw", b"o", b"\n\nTHREE-unterminated"]);
        assert_eq!(out, "at: one\nat: two\nat: \nat: THREE-unterminated\n");
    }

    #[test]
    fn as_json_each_line_is_an_object() {
        let stamp = Some(DateFormat::of("[at]").unwrap());
        let format = LineFormat { stamp, json: Some("web".to_owned()) };
        let out = formatted(&format, &[b"say \"hi\"\n\xff", b"\tlast"]);
        let object = |message: &str| {
            let rest = r#""timestamp":"at","type":"err","process_id":17,"app_name":"web","worker":3"#;
            format!("{{\"message\":{message},{rest}}}\n")
        };
        assert_eq!(out, object(r#""say \"hi\"""#) + &object("\"\u{fffd}\\tlast\""));
        let format = LineFormat { stamp: None, ..format };
        let line: serde_json::Value = serde_json::from_str(&formatted(&format, &[b"x"])).unwrap();
        humantime::parse_rfc3339(line["timestamp"].as_str().unwrap()).unwrap();
    }

    fn lines(prefix: &str, chunks: &[&[u8]]) -> Vec<u8> {
        let mut lines = LineSplitter::within(text(prefix), Vec::new());
        let mut out = Vec::new();
        for chunk in chunks {
            lines.push(chunk, &mut out);
        }
        lines.end(&mut out);
        out
    }

    #[test]
    fn a_line_is_passed_on_when_it_is_complete() {
        let mut lines = LineSplitter::within(text(""), Vec::new());
        let mut out = Vec::new();
        lines.push(b"GET", &mut out);
        assert!(out.is_empty());
        lines.push(b" /\nGET", &mut out);
        assert_eq!(out, b"GET /\n");
    }

    #[test]
    fn streams_become_lines() {
        let table: [(&str, &[&[u8]], &str); 6] = [
            ("", &[], ""),
            ("", &[b"a\nb\n"], "a\nb\n"),
            ("", &[b"a\n", b"last"], "a\nlast\n"),
            ("", &[b"\n\n"], "\n\n"),
            ("", &[b"dos\r\n"], "dos\r\n"),
            ("1 | ", &[b"a", b"b\n", b"\nc"], "1 | ab\n1 | \n1 | c\n"),
        ];
        for (prefix, chunks, expected) in table {
            assert_eq!(lines(prefix, chunks), expected.as_bytes(), "{chunks:?}");
        }
        assert_eq!(lines("", &[b"\xff\xfe\0\n"]), b"\xff\xfe\0\n", "not UTF-8");
    }

    #[test]
    fn an_overlong_line_comes_in_pieces() {
        let line = vec![b'x'; 2 * LONGEST + 5];
        let out = lines("1 | ", &[&line, b"\nnext\n"]);
        let lengths: Vec<_> = out.split(|&byte| byte == b'\n').map(<[u8]>::len).collect();
        assert_eq!(lengths, [LONGEST + 4, LONGEST + 4, 5 + 4, 4 + 4, 0]);
    }

    #[test]
    fn a_line_of_the_longest_length_stays_whole() {
        let line = vec![b'x'; LONGEST];
        assert_eq!(lines("", &[&line, b"\n"]).len(), LONGEST + 1);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_or_added_however_the_stream_is_cut(
            stream in proptest::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..400),
            size in 1usize..50,
        ) {
            let chunks: Vec<&[u8]> = stream.chunks(size).collect();
            let mut expected = stream.clone();
            if expected.last().is_some_and(|&byte| byte != b'\n') {
                expected.push(b'\n');
            }
            prop_assert_eq!(lines("", &chunks), expected);
        }
    }
}
