//! The heads of responses, read from several buffers: lines, fields, the elements of lists.
//!
//! It decides nothing.

use core::ops::Range;

/// How far into what is sent a head is looked for, in bytes: nothing beyond is read.
pub(crate) const FAR: usize = 64 * 1024;

/// The bytes of several buffers, one after the other.
pub(super) struct Text<'a, P> {
    buffers: &'a [P],
    /// The buffer that was read last, and how many bytes lie before it.
    buffer: usize,
    before: usize,
}

/// What a field of a head says of the connection.
pub(super) enum Field {
    Connection,
    KeepAlive,
    ContentLength,
    Other,
}

impl<'a, P: AsRef<[u8]>> Text<'a, P> {
    pub(super) fn of(buffers: &'a [P]) -> Self {
        Self { buffers, buffer: 0, before: 0 }
    }

    pub(super) fn len(&self) -> usize {
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
    pub(super) fn status(&mut self, start: usize) -> Option<&'static [u8; 3]> {
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
    pub(super) fn line_end(&mut self, start: usize) -> Option<usize> {
        (start..FAR).find_map(|at| match self.at(at) {
            Some(b'\n') => Some(Some(at + 1)),
            Some(_) => None,
            None => Some(None),
        })?
    }

    /// Where the field ends that begins here, with the lines that continue it.
    pub(super) fn field_end(&mut self, start: usize) -> Option<usize> {
        let mut end = self.line_end(start)?;
        while matches!(self.at(end), Some(b' ' | b'\t')) {
            end = self.line_end(end)?;
        }
        Some(end)
    }

    pub(super) fn is_empty_line(&mut self, start: usize) -> bool {
        match self.at(start) {
            Some(b'\n') => true,
            Some(b'\r') => self.at(start + 1) == Some(b'\n'),
            _ => false,
        }
    }

    /// Where the head ends that begins here, behind its empty line.
    pub(super) fn head_end(&mut self, start: usize) -> Option<usize> {
        let mut at = self.line_end(start)?;
        while !self.is_empty_line(at) {
            at = self.field_end(at)?;
        }
        self.line_end(at)
    }

    /// Where the response ends that begins here, if that is easily told.
    pub(super) fn message_end(&mut self, start: usize, status: &[u8; 3]) -> Option<usize> {
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
    pub(super) fn field(&mut self, start: usize) -> (Field, usize) {
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
    pub(super) fn element(&mut self, list: Range<usize>) -> (Range<usize>, usize) {
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

    pub(super) fn is(&mut self, range: &Range<usize>, word: &[u8]) -> bool {
        range.len() == word.len()
            && range
                .clone()
                .zip(word)
                .all(|(at, letter)| self.at(at).is_some_and(|byte| byte.to_ascii_lowercase() == *letter))
    }
}
