//! The head of a response, and what is sent instead of it so that its client leaves: `Connection: close`.
//!
//! Pure. It is not known here whether these bytes are a response or part of one, nor to whom they go: that is `closing`'s
//! to find out.
//!
//! Only a client can end a connection without a race: a server that closes one may do so while a request is on its way.
//! Our line stands directly below the status line, since clients that look at one Connection line only mostly look at the
//! first, and every other Connection line goes, since some look at the last (RFC 9112, 9.3 and 9.6).

mod pieces;
mod text;

use core::ops::Range;

pub(crate) use self::pieces::{Changed, Piece};
pub(crate) use self::text::FAR;
use self::text::{Field, Text};

/// What is said to the client.
pub(crate) const CLOSE: &[u8] = b"Connection: close\r\n";

/// How far into a head lines are taken out, in bytes: as much as the kernel takes at once of any socket that was left as it is.
const NEAR: usize = 8 * 1024;

/// How many responses are looked at that come in one call.
const MOST_RESPONSES: usize = 32;

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

/// Looks at what a call sends, in the order of its buffers. `None` if it does not begin with a response.
///
/// Of several responses it is the last that says it, as far as one can tell where they end: what a client has asked for
/// before it hears that it is to leave, it gets.
pub(crate) fn look<P: AsRef<[u8]>>(buffers: &[P]) -> Option<Sent> {
    let mut text = Text::of(buffers);
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
        Some(start) => Some(close(&mut text, start)),
        None => is_interim.then_some(Sent::Interim),
    }
}

/// Has the response that begins here say that the connection is to be closed. Of a head that is not whole, as far as it
/// is there; not if its status line is not.
fn close<P: AsRef<[u8]>>(text: &mut Text<'_, P>, start: usize) -> Sent {
    let mut changed = Changed::new();
    let Some(mut kept) = text.line_end(start) else { return Sent::Unchanged };
    let mut says = Says::default();
    let whole = change(text, &mut changed, &mut kept, &mut says);
    changed.end = kept;
    let is_said = says.close && !says.keep_alive;
    if whole.is_none() || is_said { Sent::Unchanged } else { Sent::Changed(changed) }
}

/// `None` if there are too many pieces.
fn change<P: AsRef<[u8]>>(
    text: &mut Text<'_, P>,
    changed: &mut Changed,
    kept: &mut usize,
    says: &mut Says,
) -> Option<()> {
    changed.push(Piece::Theirs(0..*kept))?;
    changed.push(Piece::Ours(CLOSE))?;
    let mut at = *kept;
    let near = at + NEAR;
    while !text.is_empty_line(at)
        && let Some(end) = text.field_end(at).filter(|&end| end <= near)
    {
        match text.field(at) {
            (Field::Connection, value) => {
                changed.push(Piece::Theirs(*kept..at))?;
                *kept = end;
                keep_others(text, value..end, changed, says)?;
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
fn keep_others<P: AsRef<[u8]>>(
    text: &mut Text<'_, P>,
    value: Range<usize>,
    changed: &mut Changed,
    says: &mut Says,
) -> Option<()> {
    let (mut at, mut before): (usize, &[u8]) = (value.start, b"Connection: ");
    while at < value.end {
        let (element, next) = text.element(at..value.end);
        at = next;
        if text.is(&element, b"close") {
            says.close = true;
        } else if text.is(&element, b"keep-alive") {
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

/// What a head says already.
#[derive(Default)]
struct Says {
    close: bool,
    keep_alive: bool,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::pieces::MOST_PIECES;
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
