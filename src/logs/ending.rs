//! The last lines of one file.
//!
//! It reads no more than it may: the last lines of a file without line ends are the whole file.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom};
use std::os::unix::fs::FileExt as _;

use super::cut::LineCutter;

/// How many times as much may be read of what is compressed, for it has to be read from its start.
const INFLATED: u64 = 32;

/// How much is read at once, and how long a line is at most, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    pub(super) block: usize,
    pub(super) longest: usize,
}

/// How much may be read yet, in bytes.
#[derive(Debug)]
pub(super) struct Budget {
    text: u64,
    inflated: u64,
}

impl Budget {
    /// So much, and some times as much of what is compressed.
    pub(super) fn new(text: u64) -> Self {
        Self { text, inflated: text.saturating_mul(INFLATED) }
    }

    /// Whether there is nothing left.
    pub(super) fn is_spent(&self) -> bool {
        self.text == 0
    }
}

/// The last lines, and what stands behind them.
#[derive(Debug)]
pub(super) struct Ending {
    /// Without their ends, the oldest first.
    pub(super) lines: VecDeque<Vec<u8>>,
    /// With what stands behind the last line end.
    pub(super) cutter: LineCutter,
}

/// The last lines of a file, which is at its end then. Of a line whose start is not reached nothing is told.
///
/// # Errors
/// Those of lseek(2) and pread(2).
pub(super) fn of_plain(
    file: &mut File,
    lines: usize,
    sizes: Sizes,
    budget: &mut Budget,
) -> io::Result<Ending> {
    let mut start = file.seek(SeekFrom::End(0))?;
    let (mut blocks, mut ends) = (VecDeque::new(), 0);
    // One line end more than lines: what is before it does not count.
    while start > 0 && ends <= lines && budget.text > 0 {
        let size = start.min(budget.text).min(sizes.block as u64);
        start -= size;
        budget.text -= size;
        let mut block = vec![0; usize::try_from(size).unwrap_or(sizes.block)];
        file.read_exact_at(&mut block, start)?;
        ends += memchr::memchr_iter(b'\n', &block).count();
        blocks.push_front(block);
    }
    let mut cutter = match start {
        0 => LineCutter::new(sizes.longest),
        _ => LineCutter::within_a_line(sizes.longest),
    };
    let mut last = Last::new(lines, u64::MAX);
    for block in blocks {
        cutter.push(&block, |line| last.push(line));
    }
    Ok(Ending { lines: last.lines, cutter })
}

/// The last lines of what can be read from its start only; none where it is so long that its end is not reached.
///
/// # Errors
/// Those of reading it.
pub(super) fn of_compressed(
    mut text: impl Read,
    lines: usize,
    sizes: Sizes,
    budget: &mut Budget,
) -> io::Result<Ending> {
    let mut cutter = LineCutter::new(sizes.longest);
    let mut last = Last::new(lines, budget.text);
    let mut block = vec![0; sizes.block];
    loop {
        let count = text.read(&mut block)?;
        let Some(left) = budget.inflated.checked_sub(count as u64) else {
            // What is before it is not among the last lines either.
            *budget = Budget::new(0);
            return Ok(Ending { lines: VecDeque::new(), cutter: LineCutter::new(sizes.longest) });
        };
        budget.inflated = left;
        if count == 0 {
            budget.text -= last.size;
            return Ok(Ending { lines: last.lines, cutter });
        }
        cutter.push(&block[..count], |line| last.push(line));
    }
}

/// No more lines than so many, and than so many bytes.
struct Last {
    lines: VecDeque<Vec<u8>>,
    size: u64,
    most: usize,
    room: u64,
}

impl Last {
    fn new(most: usize, room: u64) -> Self {
        Self { lines: VecDeque::new(), size: 0, most, room }
    }

    fn push(&mut self, line: &[u8]) {
        self.lines.push_back(line.to_vec());
        self.size += size(line);
        while self.lines.len() > self.most || self.size > self.room {
            let Some(first) = self.lines.pop_front() else { return };
            self.size -= size(&first);
        }
    }
}

/// With its end.
fn size(line: &[u8]) -> u64 {
    line.len() as u64 + 1
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;

    use super::*;

    const PLENTY: u64 = 1 << 40;

    fn file(text: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text).unwrap();
        file
    }

    /// All that is told of a text that is read from its start, and its rest.
    fn forwards(text: &[u8], longest: usize) -> (Vec<Vec<u8>>, Option<Vec<u8>>) {
        let (mut cutter, mut lines) = (LineCutter::new(longest), Vec::new());
        cutter.push(text, |line| lines.push(line.to_vec()));
        (lines, cutter.rest())
    }

    fn last(text: &[u8], lines: usize, sizes: Sizes, budget: u64) -> (Vec<Vec<u8>>, Option<Vec<u8>>) {
        let mut ending = of_plain(&mut file(text), lines, sizes, &mut Budget::new(budget)).unwrap();
        (ending.lines.into(), ending.cutter.rest())
    }

    #[test]
    fn line_ends_may_be_at_the_borders_of_blocks() {
        let sizes = Sizes { block: 4, longest: 4 };
        let lines = |lines: &[&str]| lines.iter().map(|line| line.as_bytes().to_vec()).collect::<Vec<_>>();
        for (text, expected, rest) in [
            ("abc\ndef\n", &["abc", "def"][..], None),
            ("abcd\nef\n", &["abcd", "ef"], None),
            ("abcde\nf\n", &["abcd", "f"], None),
            ("abcdefgh\n", &["abcd"], None),
            ("a\nbcdefghi", &["a", "bcde"], None),
            ("a\nbcde", &["a"], Some("bcde")),
            ("\n\n\n\n", &["", ""], None),
            ("", &[], None),
        ] {
            let expected = (lines(expected), rest.map(|rest| rest.as_bytes().to_vec()));
            assert_eq!(last(text.as_bytes(), 2, sizes, PLENTY), expected, "{text:?}");
        }
    }

    #[test]
    fn a_line_whose_start_is_out_of_reach_is_left_out() {
        let sizes = Sizes { block: 4, longest: 100 };
        let last = |budget| last(b"1\n234567\n8\n9", 5, sizes, budget);
        let line = |text: &str| text.as_bytes().to_vec();
        assert_eq!(last(12), (vec![line("1"), line("234567"), line("8")], Some(line("9"))));
        assert_eq!(last(11), (vec![line("234567"), line("8")], Some(line("9"))));
        assert_eq!(last(6), (vec![line("8")], Some(line("9"))));
        assert_eq!(last(2), (vec![], Some(line("9"))));
        assert_eq!(last(1), (vec![], None));
        assert_eq!(last(0), (vec![], None));
    }

    #[test]
    fn of_a_file_without_line_ends_no_more_is_read_than_may_be() {
        let (mut file, sizes) = (tempfile::tempfile().unwrap(), Sizes { block: 1 << 16, longest: 1 << 14 });
        file.set_len(1 << 30).unwrap();
        let mut budget = Budget::new(1 << 20);
        let mut ending = of_plain(&mut file, 500, sizes, &mut budget).unwrap();
        assert_eq!((ending.lines.len(), ending.cutter.rest(), budget.text), (0, None, 0));
        assert_eq!(file.stream_position().unwrap(), 1 << 30);
        // And no more than that is needed where lines are short.
        file.write_all(&b"1\n".repeat(1000)).unwrap();
        let mut budget = Budget::new(1 << 20);
        assert_eq!(of_plain(&mut file, 500, sizes, &mut budget).unwrap().lines.len(), 500);
        assert_eq!(budget.text, (1 << 20) - (1 << 16));
    }

    #[test]
    fn what_is_compressed_is_bounded_when_it_is_read_and_when_it_is_kept() {
        let sizes = Sizes { block: 16, longest: 100 };
        let text = b"0123456\n".repeat(4);
        let of = |budget: &mut Budget| of_compressed(text.as_slice(), 3, sizes, budget).unwrap().lines.len();
        for (bytes, lines, left) in [(100, 3, 76), (24, 3, 0), (23, 2, 7), (8, 1, 0), (1, 0, 1)] {
            let mut budget = Budget::new(bytes);
            assert_eq!((of(&mut budget), budget.text), (lines, left), "{bytes}");
            assert_eq!(budget.inflated, bytes * INFLATED - 32);
        }
        let mut budget = Budget { text: 100, inflated: 31 };
        assert_eq!((of(&mut budget), budget.is_spent()), (0, true));
    }

    #[test]
    fn a_compressed_text_without_an_end_is_given_up() {
        let (sizes, mut budget) = (Sizes { block: 1 << 16, longest: 1 << 14 }, Budget::new(1 << 16));
        let mut read = 0;
        let endless = io::repeat(0).take(1 << 40);
        let counted = Counted(endless, &mut read);
        assert_eq!(of_compressed(counted, 5, sizes, &mut budget).unwrap().lines.len(), 0);
        assert_eq!((read, budget.is_spent()), ((INFLATED + 1) << 16, true));
    }

    struct Counted<'a, R>(R, &'a mut u64);

    impl<R: Read> Read for Counted<'_, R> {
        fn read(&mut self, block: &mut [u8]) -> io::Result<usize> {
            let count = self.0.read(block)?;
            *self.1 += count as u64;
            Ok(count)
        }
    }

    proptest! {
        #[test]
        fn the_last_lines_are_the_last_of_all_lines(
            text in "[abc\n]{0,64}",
            lines in 0_usize..12,
            block in 1_usize..9,
            longest in 1_usize..9,
        ) {
            let sizes = Sizes { block, longest };
            let (all, rest) = forwards(text.as_bytes(), longest);
            let expected = all[all.len().saturating_sub(lines)..].to_vec();
            let found = last(text.as_bytes(), lines, sizes, PLENTY);
            prop_assert_eq!(&found, &(expected.clone(), rest));
            let whole = || of_compressed(text.as_bytes(), lines, sizes, &mut Budget::new(PLENTY)).unwrap();
            prop_assert_eq!(Vec::from(whole().lines), expected);
        }

        #[test]
        fn a_small_budget_leaves_out_the_first_lines_only(text in "[ab\n]{0,64}", budget in 0_u64..64) {
            let sizes = Sizes { block: 3, longest: 5 };
            let (all, _) = forwards(text.as_bytes(), 5);
            let (found, _) = last(text.as_bytes(), 100, sizes, budget);
            prop_assert!(all.ends_with(&found));
        }
    }
}
