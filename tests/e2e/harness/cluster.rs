//! A cluster under test: the real program, running.
//!
//! However the test ends, nothing of it is left: every process is ended by its pidfd, and the folder removed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, ExitStatus};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use std::{io, process, thread};

use rustix::process::Signal;

use super::http::{self, Pending, Response};
use super::output::Output;
use super::process::{Process, with_environment};
use super::said::Said;
use super::samples::Samples;
use super::setup::{MARK, Setup};
use super::wait::until;

/// The cluster; dropping it ends it.
pub(crate) struct Cluster {
    setup: Setup,
    child: Child,
    mark: String,
    /// Where clusterd listens, in the order of its options; clients reach it on the loopback interface.
    addresses: Vec<SocketAddr>,
    admin: Option<SocketAddr>,
    pub(crate) stdout: Output,
    pub(crate) stderr: Output,
}

/// What a cluster that ended by itself has left.
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) stderr: String,
}

impl Cluster {
    /// A cluster of workers that run this command, whose words are separated by spaces.
    pub(crate) fn of(command: &str) -> Setup {
        Setup::new(command.split_whitespace().map(str::to_owned).collect())
    }

    /// A cluster of the built-in demo workers.
    pub(crate) fn demo() -> Setup {
        Setup::new(Vec::new())
    }

    /// A cluster of the server in `fixtures/server.py`, which does what its paths tell it.
    pub(crate) fn of_servers() -> Setup {
        Cluster::of("python3 {fixtures}/server.py")
    }

    pub(crate) fn spawn(setup: Setup) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let mark = format!("{}-{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let mut child = setup.command(&mark).spawn().expect("clusterd can be started");
        let stdout = match setup.reads_stdout {
            true => Output::read(child.stdout.take().expect("stdout is a pipe")),
            false => Output::default(),
        };
        let stderr = Output::read(child.stderr.take().expect("stderr is a pipe"));
        Self { setup, child, mark, addresses: Vec::new(), admin: None, stdout, stderr }
    }

    pub(crate) fn launch(setup: Setup, addresses: usize) -> Self {
        let mut cluster = Self::spawn(setup);
        cluster.admin = Some(cluster.announced("metrics", 1)[0]);
        cluster.addresses = cluster.announced("listening", addresses);
        cluster
    }

    /// The addresses in the first messages of this text.
    fn announced(&mut self, message: &str, count: usize) -> Vec<SocketAddr> {
        let output = self.stderr.clone();
        until(&format!("clusterd says {message:?} {count} times"), || {
            let found = output.messages(message);
            if found.len() < count {
                self.must_live();
                return None;
            }
            Some(
                found
                    .iter()
                    .map(|message| loopback(message["address"].as_str().expect("an address")))
                    .collect(),
            )
        })
    }

    fn must_live(&mut self) {
        if let Some(status) = self.child.try_wait().expect("the child is ours") {
            panic!("clusterd ended too soon: {status}");
        }
    }

    /// Reads the standard output from now on, if nobody did.
    pub(crate) fn read_stdout(&mut self) {
        if let Some(stdout) = self.child.stdout.take() {
            self.stdout = Output::read(stdout);
        }
    }

    /// Waits until every worker is online.
    #[track_caller]
    pub(crate) fn wait_online(&self) {
        self.wait_for(u64::from(self.setup.workers), "online");
    }

    /// Waits until a worker listens, ready or not: from then on clients are not refused.
    #[track_caller]
    pub(crate) fn wait_listening(&self) {
        until("a worker listens", || self.stderr.messages("worker listens").pop());
    }

    pub(crate) fn folder(&self) -> &Path {
        self.setup.folder.path()
    }

    /// Runs `clusterd` with these words, separated by spaces, beside the cluster.
    #[track_caller]
    pub(crate) fn say(&self, words: &str) -> Said {
        Said::of(&self.setup.folder.home(), &[], words)
    }

    /// Where its control socket is.
    pub(crate) fn home(&self) -> std::path::PathBuf {
        self.setup.folder.home()
    }

    /// Writes a file in the cluster's folder, which a server may read.
    pub(crate) fn write(&self, name: &str, content: &str) {
        self.setup.folder.write(name, content);
    }

    /// Makes an empty file in the cluster's folder, which a server may wait for.
    pub(crate) fn open_gate(&self, name: &str) {
        self.write(name, "");
    }

    /// The folder that clusterd has made for this run: there its workers find it.
    pub(crate) fn runtime_folder(&self) -> std::path::PathBuf {
        let sockets = self.primary().unix_sockets();
        let mut folders = sockets.iter().filter_map(|socket| socket.parent());
        let folder = folders.find(|folder| {
            folder.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"clusterd-"))
                && *folder != self.home()
        });
        folder.expect("clusterd has a runtime folder").to_owned()
    }

    /// Where clients connect to.
    pub(crate) fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// Where clients connect to for the port that was named `index`th, from 0.
    pub(crate) fn address_of(&self, index: usize) -> SocketAddr {
        self.addresses[index]
    }

    /// Where metrics and probes are.
    pub(crate) fn admin(&self) -> SocketAddr {
        self.admin.expect("clusterd said where its metrics are")
    }

    pub(crate) fn connect(&self) -> io::Result<TcpStream> {
        http::connect(self.address())
    }

    pub(crate) fn try_get(&self, path: &str) -> io::Result<Response> {
        http::request(self.address(), "GET", path)
    }

    /// The body that the cluster answers with; anything but a 200 fails the test.
    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> String {
        let response = self.try_get(path).unwrap_or_else(|error| panic!("GET {path}: {error}"));
        assert_eq!(response.status, 200, "GET {path}: {}", response.text());
        response.text()
    }

    /// Waits until so many workers have answered; `who` tells by the answer which it was.
    pub(crate) fn all_answer(&self, workers: usize, who: fn(&str) -> String) {
        let mut seen = BTreeSet::new();
        until("every worker has answered", || {
            seen.insert(who(&self.get("/")));
            (seen.len() == workers).then_some(())
        });
    }

    /// Sends a request whose answer may take long.
    #[track_caller]
    pub(crate) fn send(&self, path: &str) -> Pending {
        http::send(self.address(), "GET", path).unwrap_or_else(|error| panic!("GET {path}: {error}"))
    }

    /// The answer of a probe.
    #[track_caller]
    pub(crate) fn probe(&self, path: &str) -> Response {
        http::request(self.admin(), "GET", path).unwrap_or_else(|error| panic!("GET {path}: {error}"))
    }

    #[track_caller]
    pub(crate) fn metrics(&self) -> Samples {
        Samples::parse(&self.probe("/metrics").text())
    }

    /// Waits until workers have taken this many connections, and says how many each of them took.
    #[track_caller]
    pub(crate) fn handed(&self, total: u64) -> BTreeMap<String, u64> {
        until(&format!("workers have taken {total} connections"), || {
            let handed = self.metrics().handed();
            (handed.values().sum::<u64>() >= total).then_some(handed)
        })
    }

    /// clusterd itself.
    #[track_caller]
    pub(crate) fn primary(&self) -> Process {
        let child = Process::find(self.child.id() as i32).expect("clusterd lives");
        if self.is_primary(&child) {
            return child;
        }
        let mut below = child.descendants().into_iter();
        below
            .find(|process| self.is_primary(process))
            .expect("clusterd runs below the command that started it")
    }

    fn is_primary(&self, process: &Process) -> bool {
        let is_clusterd = process.program().is_some_and(|program| program.ends_with("clusterd"));
        is_clusterd && process.environment("CLUSTERD_WORKER_ID").is_none()
    }

    /// The process that fills this slot, once there is one.
    #[track_caller]
    pub(crate) fn worker(&self, slot: u32) -> Process {
        let primary = self.primary();
        until(&format!("worker {slot} runs"), || {
            let mut children = primary.children().into_iter();
            children.find(|child| {
                child.leads_its_group()
                    && child.environment("CLUSTERD_WORKER_ID").is_some_and(|id| id == slot.to_string())
            })
        })
    }

    /// The main processes of all workers that there are now, of those too that leave.
    #[track_caller]
    pub(crate) fn workers(&self) -> Vec<Process> {
        let children = self.primary().children().into_iter();
        let is_worker =
            |child: &Process| child.leads_its_group() && child.environment("CLUSTERD_WORKER_ID").is_some();
        children.filter(is_worker).collect()
    }

    /// The numbers of those processes.
    #[track_caller]
    pub(crate) fn pids(&self) -> BTreeSet<i32> {
        self.workers().iter().map(Process::pid).collect()
    }

    /// Has every worker replaced (HUP), and waits for the end of that: `Err` with the reason if it has failed.
    #[track_caller]
    pub(crate) fn reload(&self) -> Result<(), String> {
        let ends = ["reload done", "reload failed", "SIGHUP: invalid configuration"];
        let ends = || self.stderr.said(&ends);
        let before = ends().len();
        self.primary().signal(Signal::HUP);
        let end = until("the reload has ended", || ends().get(before).cloned());
        if end.starts_with("reload done") { Ok(()) } else { Err(end) }
    }

    /// Waits until this many workers are in this state.
    #[track_caller]
    pub(crate) fn wait_for(&self, count: u64, state: &str) {
        until(&format!("{count} workers are {state}"), || {
            let now = self.metrics().count("clusterd_workers", &[("state", state)]);
            (now == count).then_some(())
        });
    }

    /// Every process of the cluster: what descends from clusterd, and what has left its family but bears its mark.
    pub(crate) fn processes(&self) -> Vec<Process> {
        let mut all = with_environment(MARK, &self.mark);
        if let Some(child) = Process::find(self.child.id() as i32) {
            all.extend(child.descendants());
            all.push(child);
        }
        all
    }

    /// Waits until clusterd has ended, and says how.
    #[track_caller]
    pub(crate) fn wait_exit(&mut self) -> ExitStatus {
        let child = &mut self.child;
        until("clusterd has ended", || child.try_wait().expect("the child is ours"))
    }

    /// Waits until clusterd has ended with success.
    #[track_caller]
    pub(crate) fn wait_success(&mut self) {
        self.wait_exit_code(0);
    }

    /// Waits until clusterd has ended with this code.
    #[track_caller]
    pub(crate) fn wait_exit_code(&mut self, code: i32) {
        let status = self.wait_exit();
        assert_eq!(status.code(), Some(code), "{status} (signal {:?})", status.signal());
    }

    pub(crate) fn ended(mut self) -> Ended {
        let status = self.wait_exit();
        let stderr = self.stderr.clone();
        until("its messages are read to the end", || stderr.has_ended().then_some(()));
        Ended { status, stderr: stderr.text() }
    }

    /// Closes the terminal that the cluster was started on, from outside, as a window is closed.
    pub(crate) fn close_terminal(&mut self) {
        self.child.kill().expect("script(1) is our child, and holds the terminal's other end");
        self.child.wait().expect("it was killed");
    }

    /// Ends what is left: politely where clusterd still listens to signals, then by force.
    fn end(&mut self) {
        let processes = self.processes();
        if let Ok(None) = self.child.try_wait() {
            for _ in 0..2 {
                processes.iter().filter(|process| self.is_primary(process)).for_each(|clusterd| {
                    clusterd.signal(Signal::TERM);
                });
                thread::sleep(Duration::from_millis(20));
            }
            let deadline = Instant::now() + Duration::from_secs(10);
            while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(5));
            }
        }
        processes.iter().chain(&self.processes()).for_each(|process| process.signal(Signal::KILL));
        let _ = self.child.wait();
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.end();
        if thread::panicking() {
            eprintln!("--- standard error of clusterd\n{}", self.stderr.text());
            eprintln!("--- standard output of clusterd\n{}\n---", self.stdout.text());
        }
    }
}

/// How a client on this machine reaches an address that clusterd listens on.
fn loopback(address: &str) -> SocketAddr {
    let mut address: SocketAddr = address.parse().unwrap_or_else(|_| panic!("not an address: {address}"));
    if address.ip() == Ipv6Addr::UNSPECIFIED || address.ip() == Ipv4Addr::UNSPECIFIED {
        address.set_ip(Ipv4Addr::LOCALHOST.into());
    }
    address
}
