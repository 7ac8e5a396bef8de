//! Cuts text that is read in pieces into lines of bounded length.
//!
//! It reads no file, and does not ask for UTF-8.

/// What has come of the line that is not complete yet.
#[derive(Debug)]
pub(super) struct LineCutter {
    partial: Vec<u8>,
    longest: usize,
    /// What comes up to the next line end is not told.
    is_passing_over: bool,
}

impl LineCutter {
    /// At the start of a line. None is told that is longer, in bytes: its rest is passed over.
    pub(super) fn new(longest: usize) -> Self {
        Self { partial: Vec::new(), longest, is_passing_over: false }
    }

    /// Within a line of which nothing is told.
    pub(super) fn within_a_line(longest: usize) -> Self {
        Self { is_passing_over: true, ..Self::new(longest) }
    }

    /// Tells each line that ends in this text, without its end, and one that has become too long.
    pub(super) fn push(&mut self, mut text: &[u8], mut line: impl FnMut(&[u8])) {
        while !text.is_empty() {
            let end = memchr::memchr(b'\n', text);
            let (part, rest) = text.split_at(end.unwrap_or(text.len()));
            self.add(part, end.is_some(), &mut line);
            text = rest.get(1..).unwrap_or_default();
        }
    }

    fn add(&mut self, part: &[u8], is_end: bool, line: &mut impl FnMut(&[u8])) {
        if self.is_passing_over {
            self.is_passing_over = !is_end;
            return;
        }
        let fitting = part.len().min(self.longest - self.partial.len());
        let is_cut = fitting < part.len();
        self.partial.extend_from_slice(&part[..fitting]);
        if is_end || is_cut {
            line(&self.partial);
            self.partial.clear();
        }
        self.is_passing_over = is_cut && !is_end;
    }

    /// What stands behind the last line end, if it is told at all.
    pub(super) fn rest(&mut self) -> Option<Vec<u8>> {
        Some(std::mem::take(&mut self.partial)).filter(|rest| !rest.is_empty())
    }

    /// What comes next is of another file: no rest of a line that was cut.
    pub(super) fn go_to_another_file(&mut self) {
        self.is_passing_over = false;
    }

    /// What has come does not count any more.
    pub(super) fn clear(&mut self) {
        self.partial.clear();
        self.is_passing_over = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is told of text that comes in these pieces, where four bytes are the most, and the rest.
    fn told(mut cutter: LineCutter, pieces: &[&str]) -> (Vec<String>, Option<String>) {
        let mut lines = Vec::new();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        for piece in pieces {
            cutter.push(piece.as_bytes(), |line| lines.push(text(line)));
            assert!(cutter.partial.capacity() <= 8, "no more is kept than a line");
        }
        (lines, cutter.rest().as_deref().map(text))
    }

    #[test]
    fn a_line_that_is_too_long_is_told_once_and_cut() {
        let table: [(&[&str], &[&str], Option<&str>); 8] = [
            (&["ab\n\nc"], &["ab", ""], Some("c")),
            (&["a", "b", "\n"], &["ab"], None),
            (&["abcd\n"], &["abcd"], None),
            (&["abcd"], &[], Some("abcd")),
            (&["abcd", "\n", "e\n"], &["abcd", "e"], None),
            (&["abcde\nf\n"], &["abcd", "f"], None),
            (&["abcd", "e"], &["abcd"], None),
            (&["abc", "defgh", "ijkl", "m\nn\no"], &["abcd", "n"], Some("o")),
        ];
        for (pieces, lines, rest) in table {
            let expected = (lines.iter().map(|&line| line.to_owned()).collect(), rest.map(str::to_owned));
            assert_eq!(told(LineCutter::new(4), pieces), expected, "{pieces:?}");
        }
    }

    #[test]
    fn nothing_is_told_of_a_line_whose_start_is_unknown() {
        assert_eq!(
            told(LineCutter::within_a_line(4), &["a", "bcdefg", "h\nij\nk"]),
            (vec!["ij".to_owned()], Some("k".to_owned()))
        );
        assert_eq!(told(LineCutter::within_a_line(4), &["abc"]), (Vec::new(), None));
        let mut cutter = LineCutter::within_a_line(4);
        cutter.go_to_another_file();
        assert_eq!(told(cutter, &["a\n"]), (vec!["a".to_owned()], None));
    }
}
