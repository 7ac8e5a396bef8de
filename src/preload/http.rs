//! The head of a response, and what is sent instead of it so that its client leaves: `Connection: close`.
//!
//! Pure. It is not known here whether these bytes are a response or part of one, nor to whom they go: that is `closing`'s
//! to find out.
//!
//! Only a client can end a connection without a race: a server that closes one may do so while a request is on its way.
//! Our line stands directly below the status line, since clients that look at one Connection line only mostly look at the
//! first, and every other Connection line goes, since some look at the last (RFC 9112, 9.3 and 9.6).

use core::ops::Range;

/// What is said to the client.
pub(crate) const CLOSE: &[u8] = b"Connection: close\r\n";

/// How far into what is sent a head is looked for, in bytes: nothing beyond is read.
pub(crate) const FAR: usize = 64 * 1024;

/// How far into a head lines are taken out, in bytes: as much as the kernel takes at once of any socket that was left as it is.
const NEAR: usize = 8 * 1024;

/// How many responses are looked at that come in one call.
const MOST_RESPONSES: usize = 32;

/// How many pieces a changed head may have.
const MOST_PIECES: usize = 24;

/// What a call sends, as far as it can be told from its bytes.
#[allow(clippy::large_enum_variant)] // There is no allocation.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    /// An answer that another follows, such as 100 (Continue).
    Interim,
    /// 101 (Switching Protocols): what follows is not HTTP, whatever it looks like.
    Switched,
    /// An answer that may stay as it is.
    Unchanged,
    /// An answer whose client is to leave.
    Changed(Changed),
}

/// A part of what is sent in place of the beginning of a call's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// These of its bytes.
    Theirs(Range<usize>),
    /// Something else.
    Ours(&'static [u8]),
}

impl Piece {
    pub(crate) fn len(&self) -> usize {
        match self {
            Piece::Theirs(range) => range.len(),
            Piece::Ours(bytes) => bytes.len(),
        }
    }

    /// Without its first bytes.
    fn after(&self, skipped: usize) -> Piece {
        match self {
            Piece::Theirs(range) => Piece::Theirs((range.start + skipped).min(range.end)..range.end),
            Piece::Ours(bytes) => Piece::Ours(bytes.get(skipped..).unwrap_or_default()),
        }
    }
}

/// What is sent in place of the beginning of a call's bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Changed {
    pieces: [Piece; MOST_PIECES],
    count: usize,
    /// How many of the call's bytes the pieces stand for: what comes after is sent as it is.
    pub(crate) end: usize,
}

impl Changed {
    fn new() -> Self {
        Self { pieces: [const { Piece::Ours(b"") }; MOST_PIECES], count: 0, end: 0 }
    }

    fn push(&mut self, piece: Piece) -> Option<()> {
        if piece.len() > 0 {
            *self.pieces.get_mut(self.count)? = piece;
            self.count += 1;
        }
        Some(())
    }

    /// How many bytes the pieces have.
    pub(crate) fn len(&self) -> usize {
        self.pieces.iter().take(self.count).map(Piece::len).sum()
    }

    /// The pieces, without the first bytes of them.
    pub(crate) fn after(&self, mut skipped: usize) -> impl Iterator<Item = Piece> {
        self.pieces.iter().take(self.count).filter_map(move |piece| {
            let here = skipped.min(piece.len());
            skipped -= here;
            Some(piece.after(here)).filter(|rest| rest.len() > 0)
        })
    }
}

/// Looks at what a call sends, in the order of its buffers. `None` if it does not begin with a response.
///
/// Of several responses it is the last that says it, as far as one can tell where they end: what a client has asked for
/// before it hears that it is to leave, it gets.
pub(crate) fn look<P: AsRef<[u8]>>(buffers: &[P]) -> Option<Sent> {
    let mut text = Text { buffers, buffer: 0, before: 0 };
    let (mut at, mut last) = (0, None);
    let mut is_interim = false;
    for _ in 0..MOST_RESPONSES {
        match text.status(at) {
            Some(b"101") => return Some(Sent::Switched),
            None => break,
            Some([b'1', ..]) => {
                is_interim = true;
                match text.head_end(at) {
                    Some(end) => at = end,
                    None => break,
                }
            }
            Some(status) => {
                last = Some(at);
                match text.message_end(at, status) {
                    // What follows is too far away to be looked at.
                    Some(end) if end >= FAR && end < text.len() => return Some(Sent::Unchanged),
                    Some(end) => at = end,
                    None => break,
                }
            }
        }
    }
    match last {
        Some(start) => Some(text.close(start)),
        None => is_interim.then_some(Sent::Interim),
    }
}

/// The bytes of several buffers, one after the other.
struct Text<'a, P> {
    buffers: &'a [P],
    /// The buffer that was read last, and how many bytes lie before it.
    buffer: usize,
    before: usize,
}

/// What a field of a head says of the connection.
enum Field {
    Connection,
    KeepAlive,
    ContentLength,
    Other,
}

impl<P: AsRef<[u8]>> Text<'_, P> {
    fn len(&self) -> usize {
        self.buffers.iter().fold(0, |sum, buffer| sum.saturating_add(buffer.as_ref().len()))
    }

    fn at(&mut self, offset: usize) -> Option<u8> {
        if offset >= FAR {
            return None;
        }
        if offset < self.before {
            (self.buffer, self.before) = (0, 0);
        }
        loop {
            let bytes = self.buffers.get(self.buffer)?.as_ref();
            let here = offset - self.before;
            if let Some(&byte) = bytes.get(here) {
                return Some(byte);
            }
            self.before += bytes.len();
            self.buffer += 1;
        }
    }

    /// The three digits of the status line that begins here.
    fn status(&mut self, start: usize) -> Option<&'static [u8; 3]> {
        for (at, expected) in (start..).zip(*b"HTTP/1.") {
            if self.at(at)? != expected {
                return None;
            }
        }
        if !matches!(self.at(start + 7)?, b'0' | b'1') || self.at(start + 8)? != b' ' {
            return None;
        }
        let digits = [self.at(start + 9)?, self.at(start + 10)?, self.at(start + 11)?];
        if !matches!(self.at(start + 12)?, b' ' | b'\r' | b'\n') || !digits.iter().all(u8::is_ascii_digit) {
            return None;
        }
        match &digits {
            b"101" => Some(b"101"),
            [b'1', ..] => Some(b"100"),
            b"204" | b"304" => Some(b"204"),
            [b'2'..=b'5', ..] => Some(b"200"),
            _ => None,
        }
    }

    /// Where the line ends that begins here, behind its line feed.
    fn line_end(&mut self, start: usize) -> Option<usize> {
        (start..FAR).find_map(|at| match self.at(at) {
            Some(b'\n') => Some(Some(at + 1)),
            Some(_) => None,
            None => Some(None),
        })?
    }

    /// Where the field ends that begins here, with the lines that continue it.
    fn field_end(&mut self, start: usize) -> Option<usize> {
        let mut end = self.line_end(start)?;
        while matches!(self.at(end), Some(b' ' | b'\t')) {
            end = self.line_end(end)?;
        }
        Some(end)
    }

    fn is_empty_line(&mut self, start: usize) -> bool {
        match self.at(start) {
            Some(b'\n') => true,
            Some(b'\r') => self.at(start + 1) == Some(b'\n'),
            _ => false,
        }
    }

    /// Where the head ends that begins here, behind its empty line.
    fn head_end(&mut self, start: usize) -> Option<usize> {
        let mut at = self.line_end(start)?;
        while !self.is_empty_line(at) {
            at = self.field_end(at)?;
        }
        self.line_end(at)
    }

    /// Where the response ends that begins here, if that is easily told.
    fn message_end(&mut self, start: usize, status: &[u8; 3]) -> Option<usize> {
        let end = self.head_end(start)?;
        if status == b"204" {
            return Some(end);
        }
        let mut at = self.line_end(start)?;
        while at < end && !self.is_empty_line(at) {
            let next = self.field_end(at)?;
            if let (Field::ContentLength, value) = self.field(at) {
                return end.checked_add(self.number(value..next)?);
            }
            at = next;
        }
        None
    }

    fn number(&mut self, value: Range<usize>) -> Option<usize> {
        let mut number: Option<usize> = None;
        for at in value {
            match self.at(at)? {
                digit @ b'0'..=b'9' => {
                    let digit = usize::from(digit - b'0');
                    number = Some(number.unwrap_or(0).checked_mul(10)?.checked_add(digit)?);
                }
                b' ' | b'\t' | b'\r' | b'\n' => {}
                _ => return None,
            }
        }
        number
    }

    /// Which field begins here, and where its value does.
    fn field(&mut self, start: usize) -> (Field, usize) {
        let names: [(&[u8], Field); 3] = [
            (b"connection", Field::Connection),
            (b"keep-alive", Field::KeepAlive),
            (b"content-length", Field::ContentLength),
        ];
        for (name, field) in names {
            let is_same = (start..)
                .zip(name)
                .all(|(at, letter)| self.at(at).is_some_and(|byte| byte.to_ascii_lowercase() == *letter));
            let mut colon = start + name.len();
            // Not allowed there, and yet some read over it.
            while is_same && matches!(self.at(colon), Some(b' ' | b'\t')) {
                colon += 1;
            }
            if is_same && self.at(colon) == Some(b':') {
                return (field, colon + 1);
            }
        }
        (Field::Other, start)
    }

    /// The first element of a list, without the space around it, and where the next one begins.
    fn element(&mut self, list: Range<usize>) -> (Range<usize>, usize) {
        let (mut first, mut last) = (None, list.start);
        for at in list.clone() {
            match self.at(at) {
                Some(b',') => return (first.unwrap_or(at)..last, at + 1),
                Some(b' ' | b'\t' | b'\r' | b'\n') | None => {}
                Some(_) => {
                    first = first.or(Some(at));
                    last = at + 1;
                }
            }
        }
        (first.unwrap_or(last)..last, list.end)
    }

    fn is(&mut self, range: &Range<usize>, word: &[u8]) -> bool {
        range.len() == word.len()
            && range
                .clone()
                .zip(word)
                .all(|(at, letter)| self.at(at).is_some_and(|byte| byte.to_ascii_lowercase() == *letter))
    }

    /// Has the response that begins here say that the connection is to be closed. Of a head that is not whole, as far as it
    /// is there; not if its status line is not.
    fn close(&mut self, start: usize) -> Sent {
        let mut changed = Changed::new();
        let Some(mut kept) = self.line_end(start) else { return Sent::Unchanged };
        let mut says = Says::default();
        let whole = self.change(&mut changed, &mut kept, &mut says);
        changed.end = kept;
        let is_said = says.close && !says.keep_alive;
        if whole.is_none() || is_said { Sent::Unchanged } else { Sent::Changed(changed) }
    }

    /// `None` if there are too many pieces.
    fn change(&mut self, changed: &mut Changed, kept: &mut usize, says: &mut Says) -> Option<()> {
        changed.push(Piece::Theirs(0..*kept))?;
        changed.push(Piece::Ours(CLOSE))?;
        let mut at = *kept;
        let near = at + NEAR;
        while !self.is_empty_line(at)
            && let Some(end) = self.field_end(at).filter(|&end| end <= near)
        {
            match self.field(at) {
                (Field::Connection, value) => {
                    changed.push(Piece::Theirs(*kept..at))?;
                    *kept = end;
                    self.keep_others(value..end, changed, says)?;
                }
                (Field::KeepAlive, _) => {
                    changed.push(Piece::Theirs(*kept..at))?;
                    *kept = end;
                }
                (Field::ContentLength | Field::Other, _) => {}
            }
            at = end;
        }
        Some(())
    }

    /// What a Connection line lists beside what it says of the connection's end: names of fields, and of protocols.
    fn keep_others(&mut self, value: Range<usize>, changed: &mut Changed, says: &mut Says) -> Option<()> {
        let (mut at, mut before): (usize, &[u8]) = (value.start, b"Connection: ");
        while at < value.end {
            let (element, next) = self.element(at..value.end);
            at = next;
            if self.is(&element, b"close") {
                says.close = true;
            } else if self.is(&element, b"keep-alive") {
                says.keep_alive = true;
            } else if !element.is_empty() {
                changed.push(Piece::Ours(before))?;
                changed.push(Piece::Theirs(element))?;
                before = b", ";
            }
        }
        if before == b", " {
            changed.push(Piece::Ours(b"\r\n"))?;
        }
        Some(())
    }
}

/// What a head says already.
#[derive(Default)]
struct Says {
    close: bool,
    keep_alive: bool,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What goes out in place of these buffers; `None` if they go out as they are.
    fn sent(buffers: &[&str]) -> Option<String> {
        let whole = buffers.concat();
        match look(buffers)? {
            Sent::Interim | Sent::Switched | Sent::Unchanged => None,
            Sent::Changed(changed) => Some(applied(&changed, whole.as_bytes())),
        }
    }

    fn applied(changed: &Changed, whole: &[u8]) -> String {
        let mut out = Vec::new();
        for piece in changed.after(0) {
            match piece {
                Piece::Theirs(range) => out.extend_from_slice(&whole[range]),
                Piece::Ours(bytes) => out.extend_from_slice(bytes),
            }
        }
        assert_eq!(out.len(), changed.len());
        out.extend_from_slice(&whole[changed.end..]);
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn a_response_says_close_below_its_status_line() {
        for (head, expected) in [
            (
                "HTTP/1.1 200 OK\r\nA: b\r\n\r\nbody",
                "HTTP/1.1 200 OK\r\nConnection: close\r\nA: b\r\n\r\nbody",
            ),
            ("HTTP/1.0 404 \r\n\r\n", "HTTP/1.0 404 \r\nConnection: close\r\n\r\n"),
            ("HTTP/1.1 500\r\n\r\n", "HTTP/1.1 500\r\nConnection: close\r\n\r\n"),
            ("HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"),
            ("HTTP/1.1 200 OK\nA: b\n\n", "HTTP/1.1 200 OK\nConnection: close\r\nA: b\n\n"),
            // Only a part of a head.
            ("HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nConnection: close\r\n"),
            ("HTTP/1.1 200 OK\r\nA: b\r\nConn", "HTTP/1.1 200 OK\r\nConnection: close\r\nA: b\r\nConn"),
            (
                "HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nA: b\r\n",
                "HTTP/1.1 200 OK\r\nConnection: close\r\nA: b\r\n",
            ),
        ] {
            assert_eq!(sent(&[head]).as_deref(), Some(expected), "{head:?}");
        }
    }

    #[test]
    fn other_connection_lines_go_and_what_else_they_list_stays() {
        const HEAD: &str = "HTTP/1.1 200 OK\r\n";
        for (fields, expected) in [
            ("Connection: keep-alive\r\n", ""),
            ("connection:Keep-Alive\r\nKEEP-ALIVE: timeout=5\r\n", ""),
            ("CONNECTION \t:\t keep-alive \t\r\n", ""),
            ("Connection: keep-alive\r\nA: b\r\nConnection: Keep-Alive\r\n", "A: b\r\n"),
            ("Connection: close\r\nConnection: keep-alive\r\n", ""),
            ("Connection: keep-alive, close\r\n", ""),
            ("Connection: keep-alive, X-Foo\r\n", "Connection: X-Foo\r\n"),
            ("Connection: X-Foo ,keep-alive,, Upgrade\r\n", "Connection: X-Foo, Upgrade\r\n"),
            ("Connection: Upgrade\r\nUpgrade: h2c\r\n", "Connection: Upgrade\r\nUpgrade: h2c\r\n"),
            ("Connection:\r\n keep-alive,\r\n\tX-Foo\r\nA: b\r\n", "Connection: X-Foo\r\nA: b\r\n"),
            ("Connection:\r\n", ""),
            (
                "X-Connection: keep-alive\r\nConnections: a\r\n",
                "X-Connection: keep-alive\r\nConnections: a\r\n",
            ),
            ("A: b\r\n Connection: keep-alive\r\n", "A: b\r\n Connection: keep-alive\r\n"),
        ] {
            let expected = format!("{HEAD}Connection: close\r\n{expected}\r\nConnection: keep-alive\r\n\r\n");
            let whole = format!("{HEAD}{fields}\r\nConnection: keep-alive\r\n\r\n");
            assert_eq!(sent(&[&whole]), Some(expected), "{fields:?}");
        }
    }

    #[test]
    fn what_says_close_already_stays_and_so_does_what_would_take_too_many_pieces() {
        let many = "Connection: keep-alive\r\nA: b\r\n".repeat(MOST_PIECES);
        for head in [
            "HTTP/1.1 200 OK\r\nConnection: Close\r\n\r\n",
            &format!("HTTP/1.1 200 OK\r\n{many}\r\n"),
            // Half a status line, of which the body that follows is none.
            "HTTP/1.1 200 O",
        ] {
            assert_eq!(look(&[head]), Some(Sent::Unchanged), "{head:?}");
        }
    }

    #[test]
    fn what_is_no_response_of_http_1_is_nothing() {
        for bytes in [
            "",
            "HTTP",
            "HTTP/1.1",
            "HTTP/1.1 200",
            "HTTP/1.1 2000 OK\r\n\r\n",
            "HTTP/1.1 2x0 OK\r\n\r\n",
            "HTTP/1.1 600 OK\r\n\r\n",
            "HTTP/1.2 200 OK\r\n\r\n",
            "HTTP/2.0 200 OK\r\n\r\n",
            "http/1.1 200 OK\r\n\r\n",
            " HTTP/1.1 200 OK\r\n\r\n",
            "GET / HTTP/1.1\r\n\r\n",
        ] {
            assert_eq!(look(&[bytes]), None, "{bytes:?}");
        }
        assert_eq!(look::<&[u8]>(&[]), None);
    }

    #[test]
    fn nothing_is_changed_once_the_protocol_is_another() {
        for before in ["", "HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 304 Not Modified\r\n\r\n"] {
            let bytes = format!("{before}HTTP/1.1 101 Switching Protocols\r\n\r\nHTTP/1.1 200 OK\r\n\r\n");
            assert_eq!(look(&[&bytes]), Some(Sent::Switched), "{bytes:?}");
        }
    }

    #[test]
    fn interim_answers_stay_and_the_final_one_says_it() {
        assert_eq!(look(&["HTTP/1.1 100 Continue\r\n\r\n"]), Some(Sent::Interim));
        assert_eq!(look(&["HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n"]), Some(Sent::Interim));
        assert_eq!(
            sent(&["HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"]).as_deref(),
            Some("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        );
    }

    #[test]
    fn of_several_responses_the_last_says_it() {
        let first = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nok";
        let empty = "HTTP/1.1 304 Not Modified\r\n\r\n";
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
        let closing = chunked.replacen("OK\r\n", "OK\r\nConnection: close\r\n", 1);
        assert_eq!(sent(&[&[first, empty, chunked].concat()]), Some([first, empty, &closing].concat()));
        // Where a chunked one ends is not looked for.
        assert_eq!(sent(&[&[first, chunked, first].concat()]), Some([first, &closing, first].concat()));
        // The rest of a body is not the next response, whatever it looks like.
        let raw = "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nHTTP/1.1 200 OK\r\n\r\n";
        let changed = raw.replacen("OK\r\n", "OK\r\nConnection: close\r\n", 1);
        assert_eq!(sent(&[raw]), Some(changed));
    }

    #[test]
    fn of_responses_that_go_on_where_nobody_looks_none_says_it() {
        let first = format!("HTTP/1.1 200 OK\r\nContent-Length: {FAR}\r\n\r\n{}", "b".repeat(FAR));
        assert_eq!(look(&[&first, "HTTP/1.1 200 OK\r\n\r\n"]), Some(Sent::Unchanged));
        let alone = first.replacen("OK\r\n", "OK\r\nConnection: close\r\n", 1);
        assert_eq!(sent(&[&first]), Some(alone));
    }

    #[test]
    fn lines_far_into_a_head_stay() {
        for length in [NEAR, FAR] {
            let long =
                format!("HTTP/1.1 200 OK\r\nA: {}\r\nConnection: keep-alive\r\n\r\n", "b".repeat(length));
            let expected = long.replacen("OK\r\n", "OK\r\nConnection: close\r\n", 1);
            assert_eq!(sent(&[&long]), Some(expected));
        }
    }

    /// Lines as servers write them, and as they do not.
    fn line() -> impl Strategy<Value = String> {
        prop_oneof![
            Just("Connection: keep-alive\r\n".to_owned()),
            Just("Keep-Alive: timeout=5\r\n".to_owned()),
            Just("connection : Upgrade , keep-alive\r\n".to_owned()),
            Just("Content-Length: 3\r\n".to_owned()),
            Just(" folded\r\n".to_owned()),
            "[A-Za-z-]{1,12}: [ -~]{0,20}\r?\n",
            "[ -~\r\n]{0,20}",
        ]
    }

    proptest! {
        /// Wherever the buffers end, the same goes out; what follows the head goes out as it was; and after any number
        /// of bytes the rest is the rest.
        #[test]
        fn buffers_make_no_difference(
            lines in proptest::collection::vec(line(), 0..8),
            body in "[ -~\r\n]{0,30}",
            cuts in proptest::collection::vec(0usize..300, 0..6),
            taken in 0usize..400,
        ) {
            let whole = format!("HTTP/1.1 200 OK\r\n{}\r\n{body}", lines.concat());
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(whole.len())).collect();
            cuts.sort_unstable();
            let edges: Vec<_> = [vec![0], cuts, vec![whole.len()]].concat();
            let buffers: Vec<_> = edges.windows(2).map(|edge| &whole[edge[0]..edge[1]]).collect();
            prop_assert_eq!(sent(&buffers), sent(&[&whole]));
            if let Some(Sent::Changed(changed)) = look(&buffers) {
                let all = applied(&changed, whole.as_bytes());
                prop_assert!(all.starts_with("HTTP/1.1 200 OK\r\n"));
                prop_assert!(all.contains("\r\nConnection: close\r\n"));
                let rest: usize = changed.after(taken).map(|piece| piece.len()).sum();
                prop_assert_eq!(rest, changed.len().saturating_sub(taken));
            }
        }

        #[test]
        fn no_bytes_make_it_panic(buffers in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..5)) {
            let mut buffers = buffers;
            let _ = look(&buffers);
            buffers.insert(0, b"HTTP/1.1 200 OK\r\n".to_vec());
            prop_assert!(look(&buffers).is_some());
        }
    }
}
