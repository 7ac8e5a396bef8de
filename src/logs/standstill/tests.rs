//! The output as a whole: one that stands still, and another one that goes on with what it has.

use std::fs;
use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use serde_json::{Value, json};
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use super::*;
use crate::carry::testing;
use crate::ids::Slot;
use crate::logs::console::{Console, ConsoleSnapshot, Label, TurnFile};
use crate::logs::plan::{LogPlan, Place};

const TIMEOUT: Duration = Duration::from_secs(20);

/// An image of clusterd, as far as it has to do with lines.
struct Image {
    main: Main,
    output: Output,
    plan: LogPlan,
    console: Option<ConsoleSnapshot>,
    out: PipeWriter,
    err: PipeWriter,
}

/// The thread on which everything runs that waits, until this is dropped.
struct Main {
    handle: Handle,
    ends: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl Main {
    fn start() -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let (handle, (end, ended)) = (runtime.handle().clone(), oneshot::channel::<()>());
        let thread = thread::spawn(move || drop(runtime.block_on(ended)));
        Self { handle, ends: Some((end, thread)) }
    }

    fn run<T>(&self, future: impl Future<Output = T>) -> T {
        self.handle.block_on(async { timeout(TIMEOUT, future).await.expect("in time") })
    }
}

impl Drop for Main {
    fn drop(&mut self) {
        if let Some((end, thread)) = self.ends.take() {
            drop(end);
            let _ = thread.join();
        }
    }
}

fn fd(pipe: &impl AsFd) -> OwnedFd {
    pipe.as_fd().try_clone_to_owned().unwrap()
}

fn worker(slot: u32) -> WorkerId {
    WorkerId { slot: Slot(slot), launch: 7 }
}

fn until(what: impl Fn() -> bool) {
    let deadline = Instant::now() + TIMEOUT;
    while !what() {
        assert!(Instant::now() < deadline, "not in time");
        thread::sleep(Duration::from_millis(1));
    }
}

impl Image {
    fn new(out: PipeWriter, err: PipeWriter, plan: LogPlan, console: Option<Console>) -> Self {
        let (pipes, written) = ((fd(&out), fd(&err)), console.as_ref().map(Console::snapshot));
        let output = Output::over(pipes, plan.clone(), console, crate::metrics::lines_dropped()).unwrap();
        Self { main: Main::start(), output, plan, console: written, out, err }
    }

    /// Over new pipes, with the ends to be read.
    fn on_pipes(plan: LogPlan) -> (Self, PipeReader, PipeReader) {
        let ((stdout, out), (stderr, err)) = (pipe().unwrap(), pipe().unwrap());
        (Self::new(out, err, plan, None), stdout, stderr)
    }

    fn capture(&self, slot: u32, stream: Stream) -> (PipeWriter, LastLines) {
        let (reader, writer) = pipe().unwrap();
        let _inside = self.main.handle.enter();
        (writer, self.output.capture(worker(slot), stream, reader.into()).unwrap())
    }

    fn stands_still(&self) -> Still<OutputSnapshot> {
        self.main.run(self.output.stand_still()).unwrap()
    }

    /// The next image, once this one is no more: what it stood still in is left as it is, as by execve(2).
    fn becomes_another(self, meanwhile: impl FnOnce(&Output)) -> (Self, HashMap<WorkerId, LastLines>) {
        let still = self.stands_still();
        meanwhile(&self.output);
        let ((snapshot, console), fds) = testing::carried(&(still.state.clone(), self.console.clone()));
        // What it is held by is never let go, so that no thread goes on.
        std::mem::forget(still);
        let Self { main, output, plan, out, err, .. } = self;
        drop(main);
        std::mem::forget(output);
        let console = console.map(|written| Console::restore(written, &fds).unwrap());
        let next = Self::new(out, err, plan, console);
        next.output.hold();
        let lines = {
            let _inside = next.main.handle.enter();
            next.output.restore(snapshot, &fds).unwrap()
        };
        assert_eq!(fds.untaken(), [0; 0]);
        next.output.go_on();
        (next, lines)
    }

    /// Ends the output once all is written.
    fn finish(self) {
        let Self { main, output, out, err, .. } = self;
        let deadline = tokio::time::Instant::now() + TIMEOUT;
        assert_eq!(main.run(output.finish(deadline)), Ok(()));
        drop((output, out, err));
    }
}

/// Lines that are all different, of different lengths.
fn lines(range: std::ops::Range<usize>) -> Vec<u8> {
    range.flat_map(|number| format!("{number} {}\n", "x".repeat(number * 7 % 300)).into_bytes()).collect()
}

fn write_in_background(mut pipe: PipeWriter, bytes: Vec<u8>) -> JoinHandle<()> {
    thread::spawn(move || pipe.write_all(&bytes).unwrap())
}

/// So many bytes. An image that is no more has its end of the pipe still: there is no end to be read.
fn read(mut from: &PipeReader, length: usize) -> Vec<u8> {
    let mut all = vec![0; length];
    from.read_exact(&mut all).unwrap();
    all
}

/// How many bytes wait in a pipe.
fn waiting(pipe: &impl AsFd) -> u64 {
    rustix::io::ioctl_fionread(pipe).unwrap()
}

fn is_full(pipe: &impl AsFd) -> bool {
    waiting(pipe) >= 60_000
}

#[test]
fn a_reader_that_is_stuck_gets_each_line_once_from_this_image_and_the_next() {
    let (image, stdout, _stderr) = Image::on_pipes(LogPlan::default());
    let all = lines(0..20_000);
    let (pipe, _) = image.capture(1, Stream::Stdout);
    let writing = write_in_background(pipe, all.clone());
    // Now somebody is in the middle of a line.
    until(|| is_full(&stdout));
    let (image, _) = image.becomes_another(|_| ());
    let (image, _) = image.becomes_another(|_| ());
    assert!(read(&stdout, all.len()) == all);
    writing.join().unwrap();
    image.finish();
    assert_eq!(waiting(&stdout), 0);
}

#[test]
fn lines_that_come_all_the_time_are_there_once_however_often_the_image_changes() {
    let (mut image, stdout, _stderr) = Image::on_pipes(LogPlan::default());
    let texts: Vec<_> = (0..4).map(|slot| lines(slot * 10_000..slot * 10_000 + 3000)).collect();
    let writing: Vec<_> = (1..)
        .zip(&texts)
        .map(|(slot, text)| write_in_background(image.capture(slot, Stream::Stdout).0, text.clone()))
        .collect();
    let length = texts.iter().map(Vec::len).sum();
    let reading = thread::spawn(move || {
        let mut all = Vec::new();
        while all.len() < length {
            all.extend(read(&stdout, (length - all.len()).min(5000)));
            thread::sleep(Duration::from_micros(300));
        }
        (all, stdout)
    });
    for round in 0..12 {
        match round % 3 {
            0 => drop(image.stands_still()),
            _ => image = image.becomes_another(|_| ()).0,
        }
    }
    writing.into_iter().for_each(|writing| writing.join().unwrap());
    image.finish();
    let (all, stdout) = reading.join().unwrap();
    assert_eq!(waiting(&stdout), 0);
    let all = String::from_utf8(all).unwrap();
    let mut found: Vec<_> = all.lines().collect();
    found.sort_by_key(|line| line.split(' ').next().unwrap().parse::<usize>().unwrap());
    let expected = String::from_utf8(texts.concat()).unwrap();
    assert!(found == expected.lines().collect::<Vec<_>>());
}

#[test]
fn who_stands_still_reads_nothing_and_goes_on() {
    let (image, stdout, _stderr) = Image::on_pipes(LogPlan::default());
    let (mut pipe, _) = image.capture(1, Stream::Stdout);
    pipe.write_all(b"first\nhalf ").unwrap();
    assert_eq!(read(&stdout, 6), b"first\n");
    let still = image.stands_still();
    pipe.write_all(b"line\n").unwrap();
    thread::sleep(Duration::from_millis(50));
    assert_eq!((waiting(&pipe), waiting(&stdout)), (5, 0), "it waits in the pipe");
    drop(still);
    drop(pipe);
    image.finish();
    assert_eq!((read(&stdout, 10).as_slice(), waiting(&stdout)), (&b"half line\n"[..], 0));
}

#[test]
fn half_lines_and_last_lines_go_along() {
    let (image, stdout, stderr) = Image::on_pipes(LogPlan::default());
    let (mut out, _) = image.capture(1, Stream::Stdout);
    let (mut err, last) = image.capture(1, Stream::Stderr);
    let (mut closed, ended) = image.capture(2, Stream::Stderr);
    let (mut lost, _) = image.capture(3, Stream::Stderr);
    out.write_all(b"half ").unwrap();
    err.write_all(b"starting\nError: no ").unwrap();
    closed.write_all(b"bye").unwrap();
    lost.write_all(b"nobody asks\n").unwrap();
    drop(closed);
    until(|| last.lines().len() == 2 && ended.lines() == ["bye"]);
    image.main.run(ended.ended());
    let (image, lines) = image.becomes_another(|_| ());
    drop((last, ended));
    let [first, second] = [1, 2].map(|slot| lines[&worker(slot)].clone());
    assert_eq!((lines.len(), second.lines()), (2, vec!["bye".to_owned()]));
    image.main.run(second.ended());
    // Once more, with what nobody has asked for since.
    let (image, lines) = {
        drop(lines);
        image.becomes_another(|_| ())
    };
    drop((first, second));
    out.write_all(b"line\n").unwrap();
    err.write_all(b"such table\n").unwrap();
    drop((out, err, lost));
    let (first, second) = (&lines[&worker(1)], &lines[&worker(2)]);
    image.main.run(first.ended());
    assert_eq!(first.lines(), ["starting", "Error: no such table"]);
    assert_eq!(second.lines(), ["bye"]);
    image.finish();
    assert_eq!((read(&stdout, 10).as_slice(), waiting(&stdout)), (&b"half line\n"[..], 0));
    let err = String::from_utf8(read(&stderr, usize::try_from(waiting(&stderr)).unwrap())).unwrap();
    let mut err: Vec<_> = err.lines().collect();
    err.sort_unstable();
    assert_eq!(err, ["Error: no such table", "bye", "nobody asks", "starting"]);
}

#[test]
fn what_clusterd_says_while_all_stands_still_comes_behind_what_was_left() {
    let (image, _stdout, stderr) = Image::on_pipes(LogPlan::default());
    let say = |output: &Output, what: &str| output.own().queue.push_message(what.as_bytes());
    (0..6).for_each(|_| say(&image.output, &".".repeat(10_000)));
    say(&image.output, "before\n");
    let (mut pipe, _) = image.capture(1, Stream::Stderr);
    let line = format!("{}\n", "-".repeat(8000));
    pipe.write_all(line.as_bytes()).unwrap();
    // Somebody is in the middle of that line.
    until(|| waiting(&stderr) > 60_100);
    let (image, _) = image.becomes_another(|output| {
        say(output, "meanwhile\n");
        output.own().queue.push_report(b"a report\n");
    });
    say(&image.output, "after\n");
    drop(pipe);
    read(&stderr, 60_000);
    let expected = format!("before\n{line}meanwhile\na report\nafter\n");
    let found = read(&stderr, expected.len());
    image.finish();
    assert!(found == expected.as_bytes() && waiting(&stderr) == 0);
}

#[test]
fn files_are_gone_on_with_whatever_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| Place::File(folder.path().join(name));
    let combined = Some(folder.path().join("all.log"));
    let plan = LogPlan {
        out: file("out.log"),
        error: file("error.log"),
        own: file("clusterd.log"),
        combined,
        ..LogPlan::default()
    };
    let fifo = folder.path().join("pipe.log");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .unwrap();
    // Its own file would become the standard streams of the tests.
    let plan = LogPlan { own: Place::Standard, error: Place::File(fifo.clone()), ..plan };
    let mut reader = fs::File::options().read(true).write(true).open(&fifo).unwrap();
    let (image, _stdout, _stderr) = Image::on_pipes(plan);
    image.output.worker_ids().set(vec![3, 4]);
    let (mut out, _) = image.capture(1, Stream::Stdout);
    let (err, _) = image.capture(1, Stream::Stderr);
    out.write_all(b"one\ntw").unwrap();
    let text = lines(0..800);
    let writing = write_in_background(err, text.clone());
    let text_of = |path: &Path| fs::read_to_string(path).unwrap_or_default();
    until(|| text_of(&folder.path().join("out.log")) == "one\n");
    until(|| is_full(&reader));
    let (image, _) = image.becomes_another(|_| ());
    assert_eq!(image.output.worker_ids().all(), [3, 4]);
    out.write_all(b"o\n").unwrap();
    drop(out);
    let mut found = vec![0; text.len()];
    reader.read_exact(&mut found).unwrap();
    writing.join().unwrap();
    image.finish();
    assert!(found == text);
    assert_eq!(waiting(&reader), 0);
    assert_eq!(text_of(&folder.path().join("out.log")), "one\ntwo\n");
    let all = text_of(&folder.path().join("all.log"));
    assert_eq!(all.lines().count(), 2 + 800);
    assert!(all.contains("two\n"), "{all}");
}

#[test]
fn who_is_in_the_middle_of_a_line_has_the_turn_in_the_next_image_still() {
    let turns = TurnFile::new().unwrap();
    let ((stdout, out), (_stderr, err)) = (pipe().unwrap(), pipe().unwrap());
    let label = Label { app: Some("web".to_owned()), width: 3, number: 0 };
    let console = Console { label, turns: [Some(turns.turn().unwrap()), None] };
    let image = Image::new(out, err, LogPlan::default(), Some(console));
    let (mut pipe, _) = image.capture(1, Stream::Stdout);
    pipe.write_all(&[b'x'; 60_000]).unwrap();
    pipe.write_all(b"\n").unwrap();
    pipe.write_all(&[b'y'; 60_000]).unwrap();
    pipe.write_all(b"\n").unwrap();
    until(|| is_full(&stdout));
    let other = turns.turn().unwrap().into_descriptor();
    let is_free = || {
        let taken = rustix::fs::flock(&other, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_ok();
        let _ = rustix::fs::flock(&other, rustix::fs::FlockOperation::Unlock);
        taken
    };
    until(|| !is_free());
    let (image, _) = image.becomes_another(|_| assert!(!is_free()));
    assert!(!is_free());
    let all = read(&stdout, 2 * ("web 1 | ".len() + 60_001));
    until(is_free);
    let lines = String::from_utf8(all).unwrap();
    assert!(lines.lines().all(|line| line.starts_with("web 1 | ") && line.len() == 60_008));
    drop(pipe);
    image.finish();
}

#[test]
fn what_is_given_back_was_neither_written_nor_read_by_the_image_between() {
    let (image, stdout, stderr) = Image::on_pipes(LogPlan::default());
    let all = lines(0..2000);
    let writing = write_in_background(image.capture(1, Stream::Stdout).0, all.clone());
    until(|| is_full(&stdout));
    let still = image.stands_still();
    let (snapshot, fds) = testing::carried(&still.state);
    let between =
        Image::new(image.out.try_clone().unwrap(), image.err.try_clone().unwrap(), LogPlan::default(), None);
    between.output.hold();
    between.output.own().queue.push_message(b"it cannot go on\n");
    // On a thread of its own, which does nothing else before that is known.
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let _lines = runtime.block_on(async { between.output.restore(snapshot, &fds).unwrap() });
    let before = read(&stdout, 60_000);
    thread::sleep(Duration::from_millis(50));
    assert!(waiting(&stdout) < 6000 && waiting(&stderr) == 0, "nobody writes");
    drop(runtime);
    drop(still);
    let found = [before, read(&stdout, all.len() - 60_000)].concat();
    writing.join().unwrap();
    image.finish();
    assert!(found == all && waiting(&stdout) == 0);
}

#[test]
fn what_was_not_written_down_by_an_output_is_refused() {
    let (image, _stdout, _stderr) = Image::on_pipes(LogPlan::default());
    let (_pipe, _last) = image.capture(1, Stream::Stderr);
    let still = image.stands_still();
    let written = serde_json::to_value(&still.state).unwrap();
    let with = |place: &str, value: Value| {
        let mut written = written.clone();
        *written.pointer_mut(place).unwrap_or_else(|| panic!("there is no {place}")) = value;
        written
    };
    let long = "x".repeat(LONGEST + 1);
    let last = json!({ "complete": vec!["x"; 21], "partial": "", "is_open": false });
    let last_long = json!({ "complete": [], "partial": "x".repeat(501), "is_open": true });
    for wrong in [
        with("/pipes/0/partial", long.into()),
        with("/pipes/0/last", last),
        with("/pipes/0/last", last_long),
        with("/pipes/0/pipe/descriptor", i32::MAX.into()),
        with("/last_words/descriptor", (-1).into()),
    ] {
        let snapshot: OutputSnapshot = serde_json::from_value(wrong.clone()).unwrap();
        let fds = CarriedFds::copies(&crate::carry::descriptors(written.to_string().as_bytes()).unwrap());
        let (next, _stdout, _stderr) = Image::on_pipes(LogPlan::default());
        let _inside = next.main.handle.enter();
        assert!(next.output.restore(snapshot, &fds).is_err(), "{wrong}");
    }
    for wrong in
        [with("/pipes/0/stream", "Stdin".into()), with("/destinations/0/place", json!({ "Socket": 1 }))]
    {
        assert!(serde_json::from_value::<OutputSnapshot>(wrong).is_err());
    }
}
