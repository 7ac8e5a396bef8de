//! Log files, as whoever looks at them reads them: their last lines, and what comes then, also where a file is set aside
//! or truncated meanwhile.
//!
//! It writes nothing, and knows nobody who does.

use std::collections::VecDeque;
use std::fs::{File, Metadata};
use std::io::{self, Read as _, Seek as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::cut::LineCutter;
use super::ending::{self, Budget, Ending, Sizes};
use super::rotation::COMPRESSED;
use super::text::{Text, asides, is_compressed, is_no_file, open, open_aside};

/// How much is read at once, and how long a line is at most. A line of a worker has 64 KiB; as an object, it may be six times
/// as long, and has some words more.
const SIZES: Sizes = Sizes { block: 64 * 1024, longest: 512 * 1024 };

/// How much is read of a file before others have their turn, in bytes.
const TURN: usize = 1024 * 1024;

/// One file that is followed, and those that were set aside for it.
#[derive(Debug)]
pub(crate) struct Tail {
    path: PathBuf,
    /// What had been set aside before anything was read.
    before: Option<PathBuf>,
    open: Option<Open>,
    cutter: LineCutter,
    has_missed: bool,
}

/// A file that is read.
#[derive(Debug)]
struct Open {
    text: Text,
    place: Place,
}

/// Where a file stands among those that were set aside.
#[derive(Debug)]
enum Place {
    /// It is the one that is written. What was set aside before it, if anything.
    Written(Option<PathBuf>),
    /// Nothing is added to it any more. Next is what was set aside after this one: itself, or, where it is gone, one before it.
    Aside(Option<PathBuf>),
}

impl Tail {
    /// From its start: what is in it by now is new.
    pub(crate) fn new(path: PathBuf) -> Self {
        let before = asides(&path).pop();
        Self { path, before, open: None, cutter: LineCutter::new(SIZES.longest), has_missed: false }
    }

    /// The last lines of it, without their ends, the oldest first; but no more than are in so many bytes. What comes then is new.
    pub(crate) fn last(&mut self, lines: usize, bytes: u64) -> Vec<Vec<u8>> {
        let (mut last, mut budget) = (VecDeque::new(), Budget::new(bytes));
        if let Ok(mut open) = Open::at(&self.path)
            && let Text::Plain(file) = &mut open.text
        {
            if let Ok(ending) = ending::of_plain(file, lines, SIZES, &mut budget) {
                (last, self.cutter) = (ending.lines, ending.cutter);
            }
            self.open = Some(open);
        }
        for aside in asides(&self.path).iter().rev() {
            if last.len() >= lines || budget.is_spent() {
                break;
            }
            let before = of_aside(aside, lines - last.len(), &mut budget).unwrap_or_default();
            before.into_iter().rev().for_each(|line| last.push_front(line));
        }
        last.into()
    }

    /// When it was last written.
    pub(crate) fn written(&self) -> Option<SystemTime> {
        self.path.metadata().ok()?.modified().ok()
    }

    /// What stands behind its last line end.
    pub(crate) fn rest(&mut self) -> Option<Vec<u8>> {
        self.cutter.rest()
    }

    /// Whether there is something else in its place, of which nothing is read: a named pipe, a device, a folder.
    pub(crate) fn is_no_file(&self) -> bool {
        is_no_file(&self.path)
    }

    /// Whether files were removed before they were read. It is told once.
    pub(crate) fn has_missed(&mut self) -> bool {
        std::mem::take(&mut self.has_missed)
    }

    /// Each line that has come since, without its end, but no more of them than of one turn. Whether there may be more by now.
    ///
    /// # Errors
    /// Those of open(2) and read(2).
    pub(crate) fn more(&mut self, mut line: impl FnMut(&[u8])) -> io::Result<bool> {
        let mut left = TURN;
        loop {
            if self.read_on(&mut left, &mut line)? {
                return Ok(true);
            }
            if !self.go_on()? {
                return Ok(false);
            }
        }
    }

    /// Goes to the next file, or to the start of one that was truncated, if there is more in it.
    fn go_on(&mut self) -> io::Result<bool> {
        let Some(open) = &mut self.open else { return self.go_on_after(self.before.clone()) };
        match (&open.place, &mut open.text) {
            (Place::Written(before), Text::Plain(file)) => {
                let Ok(now) = self.path.metadata() else { return Ok(false) };
                if is_same(&file.metadata()?, &now) {
                    let is_truncated = file.stream_position()? > now.len();
                    if is_truncated {
                        // What is there now is new.
                        file.rewind()?;
                        self.cutter.clear();
                    }
                    return Ok(is_truncated);
                }
                let since = set_aside_since(&self.path, before.as_deref());
                let own = place_among(file, &since)?;
                self.has_missed |= own.is_none() && !since.is_empty();
                // What was added before it was set aside has yet to be read.
                open.place = Place::Aside(own.or_else(|| before.clone()));
                Ok(true)
            }
            (Place::Written(after) | Place::Aside(after), _) => {
                let after = after.clone();
                self.go_on_after(after)
            }
        }
    }

    /// Goes to what was set aside next, or to what is written now.
    fn go_on_after(&mut self, after: Option<PathBuf>) -> io::Result<bool> {
        let after = after.as_deref();
        let since = set_aside_since(&self.path, after);
        if let Some(next) = since.first() {
            // The oldest is removed first: with this one, others behind it may be.
            let is_there =
                |after: &Path| asides(&self.path).iter().any(|aside| name_of(aside) == name_of(after));
            self.has_missed |= after.is_some_and(|after| !is_there(after));
            let place = Place::Aside(Some(next.clone()));
            self.cutter.go_to_another_file();
            match (open_aside(next), &mut self.open) {
                (Ok(text), open) => *open = Some(Open { text, place }),
                (Err(_), Some(open)) => (open.place, self.has_missed) = (place, true),
                (Err(error), None) => return Err(error),
            }
            return Ok(true);
        }
        let written = match Open::at(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            opened => opened?,
        };
        // Another may have been set aside meanwhile, and comes before it.
        if set_aside_since(&self.path, after).is_empty() {
            self.cutter.go_to_another_file();
            self.open = Some(written);
        }
        Ok(true)
    }

    /// Whether there may be more in the file that is open.
    fn read_on(&mut self, left: &mut usize, line: &mut impl FnMut(&[u8])) -> io::Result<bool> {
        let Some(open) = &mut self.open else { return Ok(false) };
        let mut block = vec![0; SIZES.block];
        while *left > 0 {
            let count = match open.text.read(&mut block) {
                // Others come after it.
                Err(_) if matches!(open.text, Text::Compressed(_)) => {
                    (open.text, self.has_missed) = (Text::Damaged, true);
                    0
                }
                read => read?,
            };
            if count == 0 {
                return Ok(false);
            }
            *left = left.saturating_sub(count);
            self.cutter.push(&block[..count], &mut *line);
        }
        Ok(true)
    }
}

impl Open {
    /// The file that is written.
    fn at(path: &Path) -> io::Result<Self> {
        loop {
            let before = asides(path).pop();
            let text = Text::Plain(open(path)?);
            // It may just have been set aside.
            if set_aside_since(path, before.as_deref()).is_empty() {
                return Ok(Self { text, place: Place::Written(before) });
            }
        }
    }
}

/// What was set aside after this one, the oldest first.
fn set_aside_since(path: &Path, after: Option<&Path>) -> Vec<PathBuf> {
    let mut since = asides(path);
    since.retain(|aside| after.is_none_or(|after| name_of(aside) > name_of(after)));
    since
}

/// Which of these that were set aside the open file is; one that was compressed is another file that begins in the same way.
fn place_among(file: &File, since: &[PathBuf]) -> io::Result<Option<PathBuf>> {
    let own = file.metadata()?;
    let mut start = [0; 4096];
    let count = file.read_at(&mut start, 0)?;
    let begins_so = |aside: &Path| {
        let mut other = vec![0; count];
        let read = open_aside(aside).and_then(|mut text| text.read_exact(&mut other));
        read.is_ok() && other == start[..count]
    };
    let is_own = |aside: &&PathBuf| {
        let is_file = aside.metadata().is_ok_and(|aside| is_same(&aside, &own));
        is_file || (!aside.exists() || is_compressed(aside)) && begins_so(aside)
    };
    Ok(since.iter().find(is_own).cloned())
}

/// By which it is known whether it is compressed or not.
fn name_of(aside: &Path) -> &[u8] {
    let name = aside.as_os_str().as_encoded_bytes();
    name.strip_suffix(COMPRESSED.as_bytes()).unwrap_or(name)
}

/// The last lines of one to which nothing is added any more: what stands behind its last line end is one, too.
fn of_aside(path: &Path, lines: usize, budget: &mut Budget) -> io::Result<VecDeque<Vec<u8>>> {
    let ending = match open_aside(path)? {
        Text::Plain(mut file) => ending::of_plain(&mut file, lines, SIZES, budget)?,
        text => ending::of_compressed(text, lines, SIZES, budget)?,
    };
    let Ending { lines: mut last, mut cutter } = ending;
    last.extend(cutter.rest());
    let surplus = last.len().saturating_sub(lines);
    last.drain(..surplus);
    Ok(last)
}

fn is_same(one: &Metadata, other: &Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::super::rotation::{kept, set_aside, with_suffix};
    use super::*;

    const PLENTY: u64 = 1 << 30;

    fn texts(lines: &[Vec<u8>]) -> Vec<String> {
        lines.iter().map(|line| String::from_utf8(line.clone()).unwrap()).collect()
    }

    fn more(tail: &mut Tail) -> Vec<String> {
        let mut lines = Vec::new();
        while tail.more(|line| lines.push(line.to_vec())).unwrap() {}
        texts(&lines)
    }

    fn add(path: &Path, text: &str) {
        File::options().append(true).create(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
    }

    #[test]
    fn the_last_lines_come_from_what_was_set_aside_too() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.log");
        assert_eq!(Tail::new(path.clone()).last(5, PLENTY), [] as [Vec<u8>; 0]);
        for text in ["1\n2\n", "3\n4\n", "5\n6\n"] {
            add(&path, text);
            set_aside(&path, chrono::Utc::now()).unwrap();
        }
        add(&path, "7\n\nno end");
        let first = &kept(&path)[0];
        let gz = File::create(with_suffix(first, COMPRESSED)).unwrap();
        let mut gz = flate2::write::GzEncoder::new(gz, flate2::Compression::fast());
        gz.write_all(&fs::read(first).unwrap()).unwrap();
        gz.finish().unwrap();
        fs::remove_file(first).unwrap();
        let last = |lines| texts(&Tail::new(path.clone()).last(lines, PLENTY));
        assert_eq!(last(0), [""; 0]);
        assert_eq!(last(1), [""]);
        assert_eq!(last(3), ["6", "7", ""]);
        assert_eq!(last(7), ["2", "3", "4", "5", "6", "7", ""]);
        assert_eq!(last(100).len(), 8);
        let mut tail = Tail::new(path.clone());
        tail.last(1, PLENTY);
        add(&path, " yet\n");
        assert_eq!(more(&mut tail), ["no end yet"]);
    }

    #[test]
    fn long_files_are_read_from_their_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.log");
        let text: String = (0..50_000).map(|number| format!("line {number}\n")).collect();
        fs::write(&path, text).unwrap();
        let last = Tail::new(path).last(20_000, PLENTY);
        assert_eq!(
            (last.len(), last[0].as_slice(), last[19_999].as_slice()),
            (20_000, &b"line 30000"[..], &b"line 49999"[..])
        );
    }

    #[test]
    fn nothing_is_missed_or_told_twice_where_a_file_is_set_aside_or_truncated() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.log");
        let mut tail = Tail::new(path.clone());
        assert_eq!(more(&mut tail), [""; 0]);
        add(&path, "1\n2\n");
        assert_eq!(more(&mut tail), ["1", "2"]);
        add(&path, "3\n");
        for text in ["4\n", "5\n"] {
            set_aside(&path, chrono::Utc::now()).unwrap();
            add(&path, text);
        }
        assert_eq!(more(&mut tail), ["3", "4", "5"]);
        File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
        assert_eq!(more(&mut tail), [""; 0]);
        add(&path, "6\n");
        fs::remove_file(&path).unwrap();
        assert_eq!(more(&mut tail), ["6"]);
        add(&path, "7\n");
        assert_eq!(more(&mut tail), ["7"]);
    }

    fn compress(aside: &Path) {
        let gz = File::create(with_suffix(aside, COMPRESSED)).unwrap();
        let mut gz = flate2::write::GzEncoder::new(gz, flate2::Compression::fast());
        gz.write_all(&fs::read(aside).unwrap()).unwrap();
        gz.finish().unwrap();
        fs::remove_file(aside).unwrap();
    }

    #[test]
    fn who_reads_slowly_finds_what_was_set_aside_and_compressed_meanwhile() {
        for already in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("out.log");
            if already {
                add(&path, "0\n");
                set_aside(&path, chrono::Utc::now()).unwrap();
            }
            add(&path, "1\n");
            let mut tail = Tail::new(path.clone());
            assert_eq!(tail.last(1, PLENTY), [b"1"]);
            for text in ["2\n", "3\n", "4\n"] {
                set_aside(&path, chrono::Utc::now()).unwrap();
                add(&path, text);
            }
            kept(&path).iter().for_each(|aside| compress(aside));
            assert_eq!(more(&mut tail), ["2", "3", "4"]);
            assert!(!tail.has_missed());
        }
    }

    #[test]
    fn what_was_removed_before_it_was_read_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.log");
        add(&path, "1\n");
        let mut tail = Tail::new(path.clone());
        tail.last(1, PLENTY);
        for text in ["2\n", "3\n", "4\n"] {
            set_aside(&path, chrono::Utc::now()).unwrap();
            add(&path, text);
        }
        super::super::rotation::prune(&path, 1).unwrap();
        assert_eq!(more(&mut tail), ["3", "4"]);
        assert!(tail.has_missed() && !tail.has_missed());
    }

    #[test]
    fn what_is_set_aside_while_others_are_read_is_not_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.log");
        let (mut tail, mut lines) = (Tail::new(path.clone()), Vec::new());
        let text = |number: usize| format!("{number:0999}\n").repeat(TURN / 1000);
        // With each turn, two more are set aside and compressed.
        for number in 0..12 {
            add(&path, &text(number));
            set_aside(&path, chrono::Utc::now()).unwrap();
            kept(&path).iter().filter(|aside| !is_compressed(aside)).for_each(|aside| compress(aside));
            if number % 2 == 0 {
                tail.more(|line| lines.push(line.to_vec())).unwrap();
            }
        }
        while tail.more(|line| lines.push(line.to_vec())).unwrap() {}
        add(&path, "last\n");
        while tail.more(|line| lines.push(line.to_vec())).unwrap() {}
        assert_eq!((lines.len(), lines.pop()), (12 * (TURN / 1000) + 1, Some(b"last".to_vec())));
        assert!(lines.is_sorted_by_key(|line| texts(std::slice::from_ref(line))[0].parse::<u32>().unwrap()));
        assert!(!tail.has_missed());
    }

    #[test]
    fn a_turn_is_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.log");
        fs::write(&path, "0123456789\n".repeat(TURN / 4)).unwrap();
        let (mut tail, mut count, mut turns) = (Tail::new(path), 0, 1);
        while tail.more(|_| count += 1).unwrap() {
            turns += 1;
        }
        assert_eq!((count, turns), (TURN / 4, 3));
    }

    #[test]
    fn a_named_pipe_is_not_touched_and_a_file_in_its_place_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.log");
        let pipe = |path: &Path| mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        pipe(&path);
        let mut tail = Tail::new(path.clone());
        assert!(tail.is_no_file() && tail.last(5, PLENTY).is_empty() && more(&mut tail).is_empty());
        fs::remove_file(&path).unwrap();
        add(&path, "1\n");
        assert!(!tail.is_no_file() && more(&mut tail) == ["1"]);
        set_aside(&path, chrono::Utc::now()).unwrap();
        pipe(&path);
        assert_eq!(more(&mut tail), [""; 0]);
        fs::remove_file(&path).unwrap();
        add(&path, "2\n");
        assert!(more(&mut tail) == ["2"] && !tail.has_missed());
    }

    #[test]
    fn a_file_without_line_ends_fills_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.log");
        let file = File::create(&path).unwrap();
        file.set_len(4 * TURN as u64).unwrap();
        let (mut tail, mut lines) = (Tail::new(path.clone()), Vec::new());
        while tail.more(|line| lines.push(line.len())).unwrap() {}
        add(&path, "\nnext\n");
        while tail.more(|line| lines.push(line.len())).unwrap() {}
        assert_eq!(lines, [SIZES.longest, 4]);
        // From its end, with no more than its last bytes.
        file.set_len(1 << 30).unwrap();
        let mut tail = Tail::new(path.clone());
        assert!(tail.last(500, TURN as u64).is_empty() && tail.rest().is_none());
        add(&path, "the rest of it\nnext\n");
        assert_eq!(more(&mut tail), ["next"]);
        assert_eq!(texts(&Tail::new(path.clone()).last(500, TURN as u64)), ["next"]);
        // What is in another file is no rest of it.
        file.set_len(1 << 30).unwrap();
        let mut tail = Tail::new(path.clone());
        tail.last(500, TURN as u64);
        set_aside(&path, chrono::Utc::now()).unwrap();
        add(&path, "of another file\n");
        assert_eq!(more(&mut tail), ["of another file"]);
    }

    #[test]
    fn all_files_together_have_one_budget() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.log");
        for text in ["1\n2\n", "3\n4\n"] {
            add(&path, text);
            set_aside(&path, chrono::Utc::now()).unwrap();
        }
        add(&path, "5\n");
        compress(&kept(&path)[0]);
        let last = |bytes| texts(&Tail::new(path.clone()).last(100, bytes));
        assert_eq!(last(2), ["5"]);
        assert_eq!(last(5), ["4", "5"]);
        assert_eq!(last(6), ["3", "4", "5"]);
        assert_eq!(last(8), ["2", "3", "4", "5"]);
        assert_eq!(last(10), ["1", "2", "3", "4", "5"]);
    }

    #[test]
    fn what_was_set_aside_without_a_line_end_is_a_line_too() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.log");
        for text in ["1\n2", "3\n4"] {
            add(&path, text);
            set_aside(&path, chrono::Utc::now()).unwrap();
        }
        compress(&kept(&path)[0]);
        let last = |lines| texts(&Tail::new(path.clone()).last(lines, PLENTY));
        assert_eq!(last(4), ["1", "2", "3", "4"]);
        assert_eq!(last(3), ["2", "3", "4"]);
        assert_eq!(last(1), ["4"]);
    }

    #[test]
    fn one_that_is_damaged_does_not_keep_others_from_being_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.log");
        add(&path, "1\n");
        let mut tail = Tail::new(path.clone());
        tail.last(1, PLENTY);
        for text in ["2\n", "3\n"] {
            set_aside(&path, chrono::Utc::now()).unwrap();
            add(&path, text);
        }
        let aside = kept(&path).remove(1);
        fs::rename(&aside, with_suffix(&aside, COMPRESSED)).unwrap();
        assert_eq!(more(&mut tail), ["3"]);
        assert!(tail.has_missed() && more(&mut tail).is_empty() && !tail.has_missed());
    }
}
