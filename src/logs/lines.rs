//! Cuts a stream of bytes into lines.
//!
//! It does no I/O, and does not ask for UTF-8: a worker may write what it likes.

/// The longest line, in bytes, without its newline. A longer one is passed on in pieces of this length.
pub(super) const LONGEST: usize = 64 * 1024;

/// One worker's stream: what has come of the line that is not complete yet.
#[derive(Debug)]
pub(super) struct LineSplitter {
    prefix: String,
    partial: Vec<u8>,
}

impl LineSplitter {
    /// At the start of a stream; `prefix` goes before each line.
    pub(super) fn new(prefix: String) -> Self {
        Self { prefix, partial: Vec::new() }
    }

    /// Takes the next bytes of the stream, and appends to `out` the lines that they complete. Each ends with a
    /// newline, a piece of an overlong one too, so that another worker's line can follow.
    pub(super) fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        for part in bytes.split_inclusive(|&byte| byte == b'\n') {
            let (mut body, complete) = match part.strip_suffix(b"\n") {
                Some(body) => (body, true),
                None => (part, false),
            };
            while self.partial.len() + body.len() > LONGEST {
                let (piece, rest) = body.split_at(LONGEST - self.partial.len());
                self.emit(piece, out);
                body = rest;
            }
            if complete {
                self.emit(body, out);
            } else {
                self.partial.extend_from_slice(body);
            }
        }
    }

    /// The stream ended: a last line without a newline gets one.
    pub(super) fn end(&mut self, out: &mut Vec<u8>) {
        if !self.partial.is_empty() {
            self.emit(b"", out);
        }
    }

    fn emit(&mut self, body: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(self.prefix.as_bytes());
        out.append(&mut self.partial);
        out.extend_from_slice(body);
        out.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lines(prefix: &str, chunks: &[&[u8]]) -> Vec<u8> {
        let mut lines = LineSplitter::new(prefix.to_owned());
        let mut out = Vec::new();
        for chunk in chunks {
            lines.push(chunk, &mut out);
        }
        lines.end(&mut out);
        out
    }

    #[test]
    fn a_line_is_passed_on_when_it_is_complete() {
        let mut lines = LineSplitter::new(String::new());
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
