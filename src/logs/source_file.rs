//! One log file of an app as lines: which worker wrote each, to which stream, and when.
//!
//! It does not know which files an app has: that is [`plan`](super::plan).

use std::collections::VecDeque;
use std::path::PathBuf;

use chrono::{DateTime, Local};

use super::plan::{LogPlan, Source, SourceKind};
use super::read::Tail;
use crate::ids::Slot;

/// One line of a log.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Line {
    /// Without its end. What is not UTF-8 is replaced.
    pub text: String,
    /// What is in the file that it is in.
    pub kind: SourceKind,
    /// Whose it is, where each worker has files of its own.
    pub worker: Option<Slot>,
    /// When it was written, if that is known.
    pub time: Option<DateTime<Local>>,
}

impl Line {
    /// Whether a worker wrote it to stderr.
    pub(crate) fn is_error(&self) -> bool {
        self.kind == SourceKind::Error
    }
}

/// A file that is read.
#[derive(Debug)]
pub(crate) struct SourceFile {
    source: Source,
    plan: LogPlan,
    tail: Tail,
}

/// Lines of a file, and when it was last written.
pub(crate) type Ending<L> = (Vec<L>, Option<DateTime<Local>>);

impl SourceFile {
    /// From its start: what is in it by now is new.
    pub(crate) fn new(source: Source, plan: &LogPlan) -> Self {
        let tail = Tail::new(PathBuf::clone(&source.path));
        Self { source, plan: plan.clone(), tail }
    }

    /// Which it is.
    pub(crate) fn source(&self) -> &Source {
        &self.source
    }

    /// The folders in which files of its app are, or will be.
    pub(crate) fn folders(&self) -> Vec<PathBuf> {
        self.plan.folders()
    }

    /// Whether there is something else in its place, of which nothing is read: a named pipe, a device, a folder.
    pub(crate) fn is_no_file(&self) -> bool {
        self.tail.is_no_file()
    }

    /// Its last lines, but no more than are in so many bytes. What comes then is new.
    pub(crate) fn last(&mut self, lines: usize, bytes: u64) -> Ending<Line> {
        let last = self.tail.last(lines, bytes);
        let written = self.tail.written().map(DateTime::from);
        (last.iter().map(|line| self.line(line, None)).collect(), written)
    }

    /// What stands behind its last line end.
    pub(crate) fn rest(&mut self) -> Option<Line> {
        let rest = self.tail.rest()?;
        Some(self.line(&rest, None))
    }

    /// Lines that have come, but no more than the last of them and of one turn, and whether there may be more by now. They
    /// come now, unless they say otherwise.
    pub(crate) fn more(&mut self, most: usize) -> (Vec<Line>, bool) {
        let (mut lines, now) = (VecDeque::new(), Local::now());
        let is_more = self.tail.more(|line| {
            if lines.len() == most {
                lines.pop_front();
            }
            lines.push_back(line.to_vec());
        });
        // A file that cannot be read now may be later.
        (lines.iter().map(|line| self.line(line, Some(now))).collect(), is_more.unwrap_or(false))
    }

    /// Passes over what has come but for its last lines, and no more than are in so many bytes.
    pub(crate) fn skip_to_last(&mut self, lines: usize, bytes: u64) -> Vec<Line> {
        self.tail = Tail::new(PathBuf::clone(&self.source.path));
        let (last, now) = (self.tail.last(lines, bytes), Local::now());
        last.iter().map(|line| self.line(line, Some(now))).collect()
    }

    /// Whether files were removed before they were read. It is told once.
    pub(crate) fn has_missed(&mut self) -> bool {
        self.tail.has_missed()
    }

    fn line(&self, bytes: &[u8], came: Option<DateTime<Local>>) -> Line {
        let (text, kind) = (String::from_utf8_lossy(bytes).into_owned(), self.source.kind);
        let time = self.plan.time_of(kind, &text).or(came);
        Line { text, kind, worker: self.source.worker, time }
    }
}

/// The lines of several files, each in its order, in that of their times. A line without one belongs to the one before it;
/// where a file has none at all, it is placed by when the file was last written.
pub(crate) fn in_order<L>(files: Vec<Ending<L>>, time_of: impl Fn(&L) -> Option<DateTime<Local>>) -> Vec<L> {
    let mut all = Vec::new();
    for (lines, written) in files {
        let mut time = lines.iter().find_map(&time_of).or(written);
        for line in lines {
            time = time_of(&line).or(time);
            all.push((time, line));
        }
    }
    all.sort_by_key(|(time, _)| *time);
    all.into_iter().map(|(_, line)| line).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use chrono::TimeZone as _;

    use super::*;

    fn at(second: u32) -> DateTime<Local> {
        Local.with_ymd_and_hms(2026, 11, 28, 12, 0, second).unwrap()
    }

    /// The lines of a file, with their times, and when it was last written.
    type Written<'a> = (&'a [(&'a str, Option<u32>)], u32);

    fn order(files: &[Written<'_>]) -> Vec<String> {
        let file = |(lines, written): &Written<'_>| {
            let lines = lines.iter().map(|(text, time)| ((*text).to_owned(), time.map(at)));
            (lines.collect(), Some(at(*written)))
        };
        let lines = in_order(files.iter().map(file).collect(), |(_, time)| *time);
        lines.into_iter().map(|(text, _)| text).collect()
    }

    #[test]
    fn lines_are_merged_by_their_times_where_they_have_any() {
        let out: Written<'_> = (&[("a1", Some(1)), ("a1 more", None), ("a5", Some(5))], 9);
        let err: Written<'_> = (&[("before b2", None), ("b2", Some(2)), ("b5", Some(5))], 9);
        assert_eq!(order(&[out, err]), ["a1", "a1 more", "before b2", "b2", "a5", "b5"]);
        let raw: Written<'_> = (&[("r", None), ("r", None)], 3);
        assert_eq!(order(&[raw, out]), ["a1", "a1 more", "r", "r", "a5"]);
    }

    fn own_file(folder: &Path) -> SourceFile {
        let plan = LogPlan::in_folder(folder);
        let source = plan.sources().into_iter().find(|source| source.kind == SourceKind::Own);
        SourceFile::new(source.expect("a background app has one"), &plan)
    }

    #[test]
    fn a_line_has_its_own_time_or_that_at_which_it_came() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("clusterd.log");
        let own = "2026-11-28T23:59:59.123Z  INFO worker started worker=1\n";
        fs::write(&path, format!("{own}no time\n")).unwrap();
        let mut file = own_file(folder.path());
        let (last, written) = file.last(5, 1000);
        assert!(written.is_some() && last.iter().all(|line| !line.is_error()));
        assert_eq!(last.iter().map(|line| line.time.is_some()).collect::<Vec<_>>(), [true, false]);
        let before = Local::now();
        fs::write(&path, format!("{own}no time\n{own}none\nrest")).unwrap();
        let (more, is_more) = file.more(5);
        assert!(!is_more && more[0].time == last[0].time && more[1].time >= Some(before));
        assert_eq!(file.rest().map(|line| line.text).as_deref(), Some("rest"));
    }

    #[test]
    fn what_has_come_can_be_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("clusterd.log");
        let mut file = own_file(folder.path());
        fs::write(&path, "1\n2\n3\n").unwrap();
        let texts = |lines: Vec<Line>| lines.into_iter().map(|line| line.text).collect::<Vec<_>>();
        assert_eq!(texts(file.skip_to_last(2, 1000)), ["2", "3"]);
        assert_eq!(texts(file.more(2).0), [""; 0]);
        fs::write(&path, "1\n2\n3\n4\n5\n6\n").unwrap();
        assert_eq!(texts(file.more(2).0), ["5", "6"]);
    }
}
