//! Log files, as whoever looks at them reads them: their last lines, and what comes then, also where a file is set aside
//! or truncated meanwhile.
//!
//! It writes nothing, and knows nobody who does.

use std::collections::VecDeque;
use std::fs::{File, Metadata};
use std::io::{self, BufRead, BufReader, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use flate2::read::MultiGzDecoder;

use super::rotation::{COMPRESSED, kept, with_suffix};

/// How much is read at once, in bytes.
const BLOCK: usize = 64 * 1024;

/// How much is read of a file before others have their turn, in bytes.
const TURN: usize = 1024 * 1024;

/// One file that is followed, and those that were set aside for it.
#[derive(Debug)]
pub(crate) struct Tail {
    path: PathBuf,
    /// What had been set aside before anything was read.
    before: Option<PathBuf>,
    open: Option<Open>,
    /// The start of a line that is not complete yet.
    partial: Vec<u8>,
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

#[derive(Debug)]
enum Text {
    Plain(File),
    Compressed(Box<MultiGzDecoder<BufReader<File>>>),
}

impl Tail {
    /// From its start: what is in it by now is new.
    pub(crate) fn new(path: PathBuf) -> Self {
        let before = kept(&path).pop();
        Self { path, before, open: None, partial: Vec::new(), has_missed: false }
    }

    /// The last lines of it, without their ends, the oldest first. What comes then is new.
    pub(crate) fn last(&mut self, lines: usize) -> Vec<Vec<u8>> {
        let mut last = VecDeque::new();
        if let Ok(mut open) = Open::at(&self.path)
            && let Text::Plain(file) = &mut open.text
        {
            match ending(file, lines) {
                Ok((found, partial)) => (last, self.partial) = (found, partial),
                Err(_) => drop(file.seek(SeekFrom::End(0))),
            }
            self.open = Some(open);
        }
        for aside in kept(&self.path).iter().rev() {
            if last.len() >= lines {
                break;
            }
            let before = of_aside(aside, lines - last.len()).unwrap_or_default();
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
        Some(std::mem::take(&mut self.partial)).filter(|rest| !rest.is_empty())
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
                        self.partial.clear();
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
                |after: &Path| kept(&self.path).iter().any(|aside| name_of(aside) == name_of(after));
            self.has_missed |= after.is_some_and(|after| !is_there(after));
            let place = Place::Aside(Some(next.clone()));
            match (open_aside(next), &mut self.open) {
                (Ok(text), open) => *open = Some(Open { text, place }),
                (Err(_), Some(open)) => (open.place, self.has_missed) = (place, true),
                (Err(error), None) => return Err(error),
            }
            return Ok(true);
        }
        if !self.path.exists() {
            return Ok(false);
        }
        let written = Open::at(&self.path)?;
        // Another may have been set aside meanwhile, and comes before it.
        if set_aside_since(&self.path, after).is_empty() {
            self.open = Some(written);
        }
        Ok(true)
    }

    /// Whether there may be more in the file that is open.
    fn read_on(&mut self, left: &mut usize, line: &mut impl FnMut(&[u8])) -> io::Result<bool> {
        let Some(open) = &mut self.open else { return Ok(false) };
        let mut block = vec![0; BLOCK];
        while *left > 0 {
            let count = open.text.read(&mut block)?;
            if count == 0 {
                return Ok(false);
            }
            *left = left.saturating_sub(count);
            for part in block[..count].split_inclusive(|&byte| byte == b'\n') {
                self.partial.extend_from_slice(part);
                if self.partial.pop_if(|&mut last| last == b'\n').is_some() {
                    line(&self.partial);
                    self.partial.clear();
                }
            }
        }
        Ok(true)
    }
}

impl io::Read for Text {
    fn read(&mut self, block: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(file) => file.read(block),
            Self::Compressed(file) => file.read(block),
        }
    }
}

impl Open {
    /// The file that is written.
    fn at(path: &Path) -> io::Result<Self> {
        loop {
            let before = kept(path).pop();
            let text = Text::Plain(File::open(path)?);
            // It may just have been set aside.
            if set_aside_since(path, before.as_deref()).is_empty() {
                return Ok(Self { text, place: Place::Written(before) });
            }
        }
    }
}

/// What was set aside after this one, the oldest first.
fn set_aside_since(path: &Path, after: Option<&Path>) -> Vec<PathBuf> {
    let mut since = kept(path);
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

fn is_compressed(aside: &Path) -> bool {
    aside.as_os_str().as_encoded_bytes().ends_with(COMPRESSED.as_bytes())
}

/// Opens one that was set aside, and may have been compressed meanwhile.
fn open_aside(path: &Path) -> io::Result<Text> {
    let compressed = with_suffix(path, COMPRESSED);
    let open = |path: &Path| {
        let file = File::open(path)?;
        let decoder = |file| Box::new(MultiGzDecoder::new(BufReader::new(file)));
        io::Result::Ok(if is_compressed(path) { Text::Compressed(decoder(file)) } else { Text::Plain(file) })
    };
    match open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => open(&compressed),
        opened => opened,
    }
}

/// The last lines, and what stands behind the last line end. The file is at its end then.
fn ending(file: &mut File, lines: usize) -> io::Result<(VecDeque<Vec<u8>>, Vec<u8>)> {
    let end = file.seek(SeekFrom::End(0))?;
    let (mut start, mut text) = (end, Vec::new());
    // One line end more than lines: what is before it does not count.
    while start > 0 && memchr::memchr_iter(b'\n', &text).count() <= lines {
        let size = start.min(BLOCK as u64);
        start -= size;
        file.seek(SeekFrom::Start(start))?;
        let mut block = vec![0; usize::try_from(size).unwrap_or(BLOCK)];
        file.read_exact(&mut block)?;
        block.append(&mut text);
        text = block;
    }
    file.seek(SeekFrom::Start(end))?;
    let partial = text.split_off(memchr::memrchr(b'\n', &text).map_or(0, |at| at + 1));
    let all = text.split_inclusive(|&byte| byte == b'\n').map(|line| line[..line.len() - 1].to_vec());
    let all: Vec<_> = all.collect();
    Ok((all[all.len().saturating_sub(lines)..].iter().cloned().collect(), partial))
}

fn of_aside(path: &Path, lines: usize) -> io::Result<VecDeque<Vec<u8>>> {
    let mut file = File::open(path)?;
    if !is_compressed(path) {
        return Ok(ending(&mut file, lines)?.0);
    }
    let mut last = VecDeque::new();
    for line in BufReader::new(MultiGzDecoder::new(file)).split(b'\n') {
        last.push_back(line?);
        if last.len() > lines {
            last.pop_front();
        }
    }
    Ok(last)
}

fn is_same(one: &Metadata, other: &Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;

    use super::super::rotation::set_aside;
    use super::*;

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
        assert_eq!(Tail::new(path.clone()).last(5), [] as [Vec<u8>; 0]);
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
        let last = |lines| texts(&Tail::new(path.clone()).last(lines));
        assert_eq!(last(0), [""; 0]);
        assert_eq!(last(1), [""]);
        assert_eq!(last(3), ["6", "7", ""]);
        assert_eq!(last(7), ["2", "3", "4", "5", "6", "7", ""]);
        assert_eq!(last(100).len(), 8);
        let mut tail = Tail::new(path.clone());
        tail.last(1);
        add(&path, " yet\n");
        assert_eq!(more(&mut tail), ["no end yet"]);
    }

    #[test]
    fn long_files_are_read_from_their_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.log");
        let text: String = (0..50_000).map(|number| format!("line {number}\n")).collect();
        fs::write(&path, text).unwrap();
        let last = Tail::new(path).last(20_000);
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
            assert_eq!(tail.last(1), [b"1"]);
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
        tail.last(1);
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
}
