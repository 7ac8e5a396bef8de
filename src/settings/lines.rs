//! On which line of a text a place is.
//!
//! It is asked for every value of a file, and looks at the text once.

/// Where the lines of a text end.
#[derive(Debug)]
pub(super) struct Lines(Vec<usize>);

impl Lines {
    /// Of this text.
    pub(super) fn of(text: &str) -> Self {
        Self(memchr::memchr_iter(b'\n', text.as_bytes()).collect())
    }

    /// The line of this byte, counted from 1.
    pub(super) fn at(&self, byte: usize) -> usize {
        1 + self.0.partition_point(|&end| end < byte)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_its_end_and_the_last_one_what_is_behind() {
        let lines = Lines::of("a\n\nb");
        let at: Vec<_> = [0, 1, 2, 3, 4, 9].map(|byte| lines.at(byte)).into();
        assert_eq!(at, [1, 1, 2, 3, 3, 3]);
        assert_eq!(Lines::of("").at(0), 1);
    }
}
