//! Log files, as whoever looks at them reads them: their last lines, and what comes then, also where a file is set aside
//! or truncated meanwhile.
//!
//! It writes nothing, and knows nobody who does.

use std::collections::VecDeque;
use std::fs::{File, Metadata};
use std::io::{self, BufRead, BufReader, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use flate2::read::MultiGzDecoder;

use super::rotation::{COMPRESSED, kept};

/// How much is read at once, in bytes.
const BLOCK: usize = 64 * 1024;

/// One file that is followed, and those that were set aside for it.
#[derive(Debug)]
pub(crate) struct Tail {
    path: PathBuf,
    open: Option<File>,
    /// The start of a line that is not complete yet.
    partial: Vec<u8>,
}

impl Tail {
    /// From its start: what is in it by now is new.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, open: None, partial: Vec::new() }
    }

    /// The last lines of it, without their ends, the oldest first. What comes then is new.
    pub(crate) fn last(&mut self, lines: usize) -> Vec<Vec<u8>> {
        let mut last = VecDeque::new();
        if let Ok(mut file) = File::open(&self.path) {
            match ending(&mut file, lines) {
                Ok((found, partial)) => (last, self.partial) = (found, partial),
                Err(_) => drop(file.seek(SeekFrom::End(0))),
            }
            self.open = Some(file);
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

    /// Each line that has come since, without its end.
    pub(crate) fn more(&mut self, mut line: impl FnMut(&[u8])) -> io::Result<()> {
        let Ok(now) = self.path.metadata() else { return self.read_on(&mut line) };
        let Some(file) = &mut self.open else {
            self.open = Some(File::open(&self.path)?);
            return self.read_on(&mut line);
        };
        let open = file.metadata()?;
        if is_same(&open, &now) {
            // Truncated: what is there now is new.
            if file.stream_position()? > now.len() {
                file.rewind()?;
                self.partial.clear();
            }
            return self.read_on(&mut line);
        }
        self.read_on(&mut line)?;
        for aside in set_aside_since(&self.path, &open) {
            self.open = File::open(aside).ok();
            self.read_on(&mut line)?;
        }
        self.open = File::open(&self.path).ok();
        self.read_on(&mut line)
    }

    fn read_on(&mut self, line: &mut impl FnMut(&[u8])) -> io::Result<()> {
        let Some(file) = &mut self.open else { return Ok(()) };
        let mut block = vec![0; BLOCK];
        loop {
            let count = file.read(&mut block)?;
            if count == 0 {
                return Ok(());
            }
            for part in block[..count].split_inclusive(|&byte| byte == b'\n') {
                self.partial.extend_from_slice(part);
                if self.partial.pop_if(|&mut last| last == b'\n').is_some() {
                    line(&self.partial);
                    self.partial.clear();
                }
            }
        }
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
    if !path.as_os_str().as_encoded_bytes().ends_with(COMPRESSED.as_bytes()) {
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

/// What was set aside after the file that was open.
fn set_aside_since(path: &Path, open: &Metadata) -> Vec<PathBuf> {
    let kept = kept(path);
    let is_open = |aside: &PathBuf| aside.metadata().is_ok_and(|aside| is_same(&aside, open));
    kept.iter().position(is_open).map_or_else(Vec::new, |at| kept[at + 1..].to_vec())
}

fn is_same(one: &Metadata, other: &Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;

    use super::super::rotation::{set_aside, with_suffix};
    use super::*;

    fn texts(lines: &[Vec<u8>]) -> Vec<String> {
        lines.iter().map(|line| String::from_utf8(line.clone()).unwrap()).collect()
    }

    fn more(tail: &mut Tail) -> Vec<String> {
        let mut lines = Vec::new();
        tail.more(|line| lines.push(line.to_vec())).unwrap();
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
}
