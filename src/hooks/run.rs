//! One event, and one run of the command for it: a shell that gets the event as JSON on its standard input.
//!
//! How many run, and when, is decided by its caller.

use std::env;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Rlimit, Signal};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::unix::pipe;
use tracing::{info, warn};

use crate::metrics::Hooked;
use crate::supervisor::environment::forget_own;
use crate::supervisor::events::{Event, EventKind};
use crate::sys::process::ChildSetup;
use crate::sys::watched::Watched;

/// How long a command may run.
const PATIENCE: Duration = Duration::from_secs(30);

/// How much of what it writes is read into the log, of each of its two streams, in bytes. The rest is dropped.
const SAID: usize = 4 * 1024;

/// How long its output is read after its end: a process that it has left behind may hold it open.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// An event, as a command gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hook {
    /// What happened: `worker-online`, for instance.
    pub event: String,
    /// To which app.
    pub app: String,
    /// To which of its workers, if it is about one.
    pub worker: Option<String>,
    /// All of it, a line of JSON.
    pub json: String,
}

impl Hook {
    /// `None` for what workers say to each other: that is traffic, and no event of their lives.
    pub(crate) fn of(event: &Event) -> Option<Self> {
        if let EventKind::WorkerSays { .. } = event.kind {
            return None;
        }
        let value = serde_json::to_value(event).ok()?;
        let json = serde_json::to_string(event).ok()?;
        Some(Self {
            event: value["event"].as_str()?.to_owned(),
            app: event.app.clone(),
            worker: value["worker"].as_u64().map(|slot| slot.to_string()),
            json: json + "\n",
        })
    }
}

/// What runs for each event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shell {
    /// A line for sh(1).
    pub command: String,
    /// Its limits of open descriptors: what clusterd was started with.
    pub nofile: Rlimit,
    /// Where it runs: the folder in which clusterd was started, if a name leads there.
    pub folder: Option<PathBuf>,
}

impl Shell {
    /// Runs the command once, to its end or for 30 seconds. When the future is dropped the command is killed.
    pub(crate) async fn run(self, hook: Hook) -> Hooked {
        let running = match self.start(&hook) {
            Ok(running) => running,
            Err(error) => {
                warn!(event = hook.event, "cannot run the command of --on-event: {error}");
                return Hooked::Failed;
            }
        };
        running.attend(&hook).await
    }

    /// The reaper waits for it, as for any child that is no worker; its pidfd tells when it has ended. What is
    /// started here runs on the reaper's thread, so that it is not waited for before the pidfd is there.
    fn start(&self, hook: &Hook) -> io::Result<Running> {
        let mut command = Command::new("sh");
        command.arg("-c").arg(&self.command);
        forget_own(&mut command);
        if let Some(folder) = &self.folder {
            // clusterd itself has left it.
            command.current_dir(if folder.is_dir() { folder } else { Path::new("/") });
        }
        command.envs(environment(hook, env::var_os("CLUSTERD_HOME")));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        ChildSetup::new(Signal::KILL, self.nofile).apply_to(&mut command);
        let child = command.spawn()?;
        Running::new(Group(Pid::from_child(&child)), child)
    }
}

/// `CLUSTERD_HOME` is for clusterd's own commands, which it may run.
fn environment(hook: &Hook, home: Option<OsString>) -> Vec<(&'static str, OsString)> {
    let worker = hook.worker.as_ref().map(|worker| ("CLUSTERD_WORKER", worker.into()));
    let mut variables = vec![("CLUSTERD_EVENT", (&hook.event).into()), ("CLUSTERD_APP", (&hook.app).into())];
    variables.extend(worker);
    variables.extend(home.map(|home| ("CLUSTERD_HOME", home)));
    variables
}

/// A command under way; dropping it kills its process group.
#[derive(Debug)]
struct Running {
    group: Group,
    pidfd: Watched,
    stdin: pipe::Sender,
    stdout: pipe::Receiver,
    stderr: pipe::Receiver,
}

impl Running {
    fn new(group: Group, child: Child) -> io::Result<Self> {
        let (Some(stdin), Some(stdout), Some(stderr)) = (child.stdin, child.stdout, child.stderr) else {
            unreachable!("all three were asked to be pipes");
        };
        let pidfd = rustix::process::pidfd_open(group.0, PidfdFlags::empty())?;
        Ok(Self {
            group,
            pidfd: Watched::new(pidfd, Interest::READABLE)?,
            stdin: pipe::Sender::from_owned_fd(stdin.into())?,
            stdout: pipe::Receiver::from_owned_fd(stdout.into())?,
            stderr: pipe::Receiver::from_owned_fd(stderr.into())?,
        })
    }

    /// Until the shell has ended, or had its time. What is left of its group goes with it, as with a worker.
    async fn attend(self, hook: &Hook) -> Hooked {
        let Self { group, pidfd, stdin, stdout, stderr } = self;
        let (mut out, mut err) = (Excerpt::default(), Excerpt::default());
        let session = async { tokio::join!(tell(stdin, &hook.json), out.listen(stdout), err.listen(stderr)) };
        let ended = async { pidfd.readable().await.map(drop) };
        let ran = {
            let mut session = pin!(session);
            let (mut ended, mut time_is_up) = (pin!(ended), pin!(tokio::time::sleep(PATIENCE)));
            let mut sessions = true;
            let ran = loop {
                tokio::select! {
                    _ = &mut ended => break Hooked::Done,
                    () = &mut time_is_up => break Hooked::Killed,
                    _ = &mut session, if sessions => sessions = false,
                }
            };
            drop(group);
            if sessions {
                let _ = tokio::time::timeout(LAST_WORDS, session).await;
            }
            ran
        };
        let (event, worker) = (&hook.event, hook.worker.as_deref());
        out.lines().iter().for_each(|line| info!(event, worker, "hook: {line}"));
        err.lines().iter().for_each(|line| warn!(event, worker, "hook: {line}"));
        if ran == Hooked::Killed {
            warn!(event, worker, "killed the command of --on-event: it ran for {PATIENCE:?}");
        }
        ran
    }
}

/// A process group, killed when dropped. Its number is not another's yet: its leader has not been waited for, or was
/// a moment ago.
#[derive(Debug)]
struct Group(Pid);

impl Drop for Group {
    fn drop(&mut self) {
        // ESRCH: nobody is left.
        let _ = rustix::process::kill_process_group(self.0, Signal::KILL);
    }
}

/// A command need not read what it is told.
async fn tell(mut stdin: pipe::Sender, json: &str) {
    let _ = stdin.write_all(json.as_bytes()).await;
}

/// The beginning of what a command has written to one stream.
#[derive(Debug, Default)]
struct Excerpt {
    start: Vec<u8>,
    /// How many bytes followed.
    dropped: usize,
}

impl Excerpt {
    /// Reads to the end, so that the command never waits.
    async fn listen(&mut self, mut pipe: pipe::Receiver) {
        let mut buffer = [0; 1024];
        while let Ok(len @ 1..) = pipe.read(&mut buffer).await {
            self.push(&buffer[..len]);
        }
    }

    fn push(&mut self, bytes: &[u8]) {
        let (kept, dropped) = bytes.split_at(bytes.len().min(SAID - self.start.len()));
        self.start.extend_from_slice(kept);
        self.dropped += dropped.len();
    }

    fn lines(&self) -> Vec<String> {
        let text = String::from_utf8_lossy(&self.start);
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        if self.dropped > 0 {
            lines.push(format!("({} bytes more)", self.dropped));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::supervisor::events::Time;
    use rustix::process::Resource;

    fn event(kind: EventKind) -> Event {
        Event { time: Time(SystemTime::UNIX_EPOCH), app: "web".to_owned(), kind }
    }

    #[test]
    fn a_command_is_told_what_happened_to_whom() {
        let hook = Hook::of(&event(EventKind::WorkerOnline { worker: 2, pid: 7 })).unwrap();
        let json = "{\"time\":\"1970-01-01T00:00:00.000Z\",\"app\":\"web\",\"event\":\"worker-online\",\
                    \"worker\":2,\"pid\":7}\n";
        let expected = Hook {
            event: "worker-online".to_owned(),
            app: "web".to_owned(),
            worker: Some("2".to_owned()),
            json: json.to_owned(),
        };
        assert_eq!(hook, expected);
        let hook = Hook::of(&event(EventKind::ReloadDone { workers: 4 })).unwrap();
        assert_eq!((hook.event.as_str(), hook.worker), ("reload-done", None));
    }

    #[test]
    fn messages_of_workers_are_no_events() {
        let message = serde_json::Value::from(1);
        assert_eq!(Hook::of(&event(EventKind::WorkerSays { worker: 1, message })), None);
    }

    #[test]
    fn of_a_long_output_the_beginning_is_kept() {
        let mut said = Excerpt::default();
        said.push(b"one\ntwo\xff\n");
        assert_eq!(said.lines(), ["one", "two\u{fffd}"]);
        for _ in 0..3 {
            said.push(&[b'x'; SAID]);
        }
        assert_eq!(said.start.len(), SAID);
        assert_eq!(said.lines().last().unwrap(), &format!("({} bytes more)", 2 * SAID + 9));
    }

    fn shell(command: &str) -> Shell {
        let nofile = rustix::process::getrlimit(Resource::Nofile);
        Shell { command: command.to_owned(), nofile, folder: None }
    }

    async fn run(command: &str, json: &str) -> Hooked {
        let (event, app) = ("e".to_owned(), "a".to_owned());
        let hook = Hook { event, app, worker: None, json: json.to_owned() };
        tokio::time::timeout(Duration::from_secs(20), shell(command).run(hook)).await.expect("in time")
    }

    #[tokio::test]
    async fn a_command_gets_the_event_and_may_ignore_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("told");
        let command = format!("cat >{}; echo \"$CLUSTERD_EVENT $CLUSTERD_APP\" >>{0}", file.display());
        assert_eq!(run(&command, "{}\n").await, Hooked::Done);
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "{}\ne a\n");
        assert_eq!(run("exit 3", &"x".repeat(1 << 20)).await, Hooked::Done);
        assert_eq!(run("no-such-program-anywhere", "{}").await, Hooked::Done, "the shell says so itself");
    }

    #[tokio::test]
    async fn what_a_command_leaves_in_its_group_goes_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        assert_eq!(run(&format!("sleep 1000 & echo $! >{}", file.display()), "{}").await, Hooked::Done);
        let pid = std::fs::read_to_string(&file).unwrap().trim().parse().unwrap();
        let left = Pid::from_raw(pid).unwrap();
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while rustix::process::test_kill_process(left).is_ok() && !is_zombie(left) {
            assert!(std::time::Instant::now() < deadline, "it is still there");
            std::thread::yield_now();
        }
    }

    fn is_zombie(pid: Pid) -> bool {
        let stat = procfs::process::Process::new(pid.as_raw_pid()).and_then(|process| process.stat());
        stat.is_ok_and(|stat| stat.state == 'Z')
    }

    #[tokio::test]
    async fn a_run_that_is_dropped_is_killed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        let command = format!("echo $$ >{}; sleep 1000", file.display());
        let running = tokio::spawn(async move { run(&command, "{}").await });
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        let read = || std::fs::read_to_string(&file).ok()?.trim().parse().ok().and_then(Pid::from_raw);
        let pid = loop {
            tokio::task::yield_now().await;
            if let Some(pid) = read() {
                break pid;
            }
            assert!(std::time::Instant::now() < deadline, "it does not start");
        };
        running.abort();
        assert!(running.await.is_err());
        while rustix::process::test_kill_process(pid).is_ok() && !is_zombie(pid) {
            assert!(std::time::Instant::now() < deadline, "it is still there");
            std::thread::yield_now();
        }
    }
}
