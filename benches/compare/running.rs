//! A contender that runs: its processes, told apart into front and workers, until it is ended.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};

use crate::answer::{Answer, Answered};
use crate::contender::{Commands, Contender, Reload};
use crate::load::{self, Load, Pace};
use crate::place::{self, Place};
use crate::process;

/// How long all its workers may take to answer; some that serve well never have them all do so.
const ALL: Duration = Duration::from_secs(5);
/// How long a contender may take to end.
const END: Duration = Duration::from_secs(4);
/// How long a command may take that has a contender reload.
const RELOAD: Duration = Duration::from_secs(20);
/// Between two looks at a contender that starts.
const GLANCE: Duration = Duration::from_millis(1);

pub(crate) struct Running<'a> {
    pub(crate) contender: &'a Contender,
    pub(crate) place: &'a Place,
    pub(crate) address: SocketAddr,
    /// From its start to the first answer.
    pub(crate) started_within: Duration,
    /// The processes that have answered at the start.
    pub(crate) answering: BTreeSet<i32>,
    front: Option<Child>,
    is_proxy: bool,
    servers: Vec<Child>,
}

/// CPU time, in seconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cpu {
    pub(crate) front: f64,
    pub(crate) workers: f64,
}

impl<'a> Running<'a> {
    /// Starts a contender with so many workers, and waits until all of them answer; the first one has to within this time.
    pub(crate) fn start(
        contender: &'a Contender,
        place: &'a Place,
        workers: usize,
        patience: Duration,
    ) -> anyhow::Result<Self> {
        let port = place::free_port()?;
        let Commands { front, is_proxy, servers, listen_first } = contender.commands(place, port, workers)?;
        let said = place.said()?;
        let begin = Instant::now();
        let spawn = |mut command: Command| {
            let said = said.try_clone()?;
            let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(said).spawn();
            child.with_context(|| format!("cannot start {}", command.get_program().display()))
        };
        let mut running = Self {
            contender,
            place,
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            started_within: Duration::ZERO,
            answering: BTreeSet::new(),
            front: None,
            is_proxy,
            servers: Vec::new(),
        };
        for server in servers {
            running.servers.push(spawn(server)?);
        }
        for port in listen_first {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            while TcpStream::connect(address).is_err() {
                anyhow::ensure!(
                    begin.elapsed() < patience,
                    "no server listens on {port} within {patience:?}"
                );
                thread::sleep(GLANCE);
            }
        }
        running.front = front.map(spawn).transpose()?;
        running.await_service(begin, patience)?;
        running.await_workers(contender.workers(workers))?;
        Ok(running)
    }

    fn await_service(&mut self, begin: Instant, patience: Duration) -> anyhow::Result<()> {
        while self.ask("/").is_none() {
            for child in self.front.iter_mut().chain(&mut self.servers) {
                if let Some(status) = child.try_wait()? {
                    anyhow::bail!(
                        "it ended before it served anything ({status}): {}",
                        self.place.last_words()
                    );
                }
            }
            anyhow::ensure!(
                begin.elapsed() < patience,
                "it serves nothing within {patience:?}: {}",
                self.place.last_words()
            );
            thread::sleep(GLANCE);
        }
        self.started_within = begin.elapsed();
        Ok(())
    }

    fn await_workers(&mut self, workers: usize) -> anyhow::Result<()> {
        let deadline = Instant::now() + ALL;
        while self.answering.len() < workers && Instant::now() < deadline {
            let load = Load {
                address: self.address,
                pace: Pace::Closed,
                clients: (workers * 4).max(16),
                is_kept: false,
                lasts: Duration::from_millis(50),
            };
            self.answering.extend(load::run(load)?.by_worker.keys());
        }
        anyhow::ensure!(!self.answering.is_empty(), "no worker answers");
        Ok(())
    }

    /// The process that answers a connection of its own, if there is an answer in good time.
    pub(crate) fn ask(&self, path: &str) -> Option<i32> {
        let patience = Duration::from_secs(2);
        let mut stream = TcpStream::connect_timeout(&self.address, patience).ok()?;
        stream.set_read_timeout(Some(patience)).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n").ok()?;
        let (mut answer, mut part) = (Answer::default(), [0; 4096]);
        loop {
            let read = stream.read(&mut part).ok().filter(|read| *read > 0)?;
            match answer.add(&part[..read]) {
                Answered::NotYet => {}
                Answered::Badly => return None,
                Answered::By { worker, .. } => return Some(worker),
            }
        }
    }

    /// One of the workers, another in each round.
    pub(crate) fn worker(&self, round: usize) -> anyhow::Result<Pid> {
        let workers = self.answering.iter().copied().filter_map(Pid::from_raw);
        workers.cycle().nth(round % self.answering.len()).context("no worker")
    }

    pub(crate) fn front(&self) -> anyhow::Result<Vec<Pid>> {
        match &self.front {
            None => Ok(Vec::new()),
            Some(front) if self.is_proxy => process::with_descendants(Pid::from_child(front)),
            Some(front) => Ok(vec![Pid::from_child(front)]),
        }
    }

    /// Every process that is no front.
    pub(crate) fn workers(&self) -> anyhow::Result<Vec<Pid>> {
        let front = self.front()?;
        Ok(self.all()?.into_iter().filter(|pid| !front.contains(pid)).collect())
    }

    fn all(&self) -> anyhow::Result<Vec<Pid>> {
        let roots = self.front.iter().chain(&self.servers).map(Pid::from_child);
        Ok(roots.map(process::with_descendants).collect::<anyhow::Result<Vec<_>>>()?.concat())
    }

    pub(crate) fn cpu(&self) -> anyhow::Result<Cpu> {
        // A process can end at any moment.
        let of = |pids: Vec<Pid>| {
            pids.into_iter().map(|pid| process::cpu_time(pid).unwrap_or_default().as_secs_f64()).sum()
        };
        Ok(Cpu { front: of(self.front()?), workers: of(self.workers()?) })
    }

    /// Tells it to replace its workers; `false` if it cannot.
    pub(crate) fn reload(&self) -> anyhow::Result<bool> {
        match (self.contender.reload(), &self.front) {
            (Reload::Signal(signal), Some(front)) => kill_process(Pid::from_child(front), signal)?,
            (Reload::Command(words), _) => {
                let mut command = Command::new(words[0]);
                command.args(&words[1..]).env("PATH", self.place.path());
                command.env("PM2_HOME", self.place.pm2_home(self.address.port()));
                command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
                let ended = process::ended_by(&mut command.spawn()?, Instant::now() + RELOAD)?;
                let is_done = ended.is_some_and(|status| status.success());
                anyhow::ensure!(is_done, "{} takes longer than {RELOAD:?}, or fails", words[0]);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

impl Drop for Running<'_> {
    /// Ends those that were started; what they have started and leave behind is killed.
    fn drop(&mut self) {
        let all = self.all().unwrap_or_default();
        let born = |pid: Pid| {
            let process = procfs::process::Process::new(pid.as_raw_nonzero().get()).ok()?;
            process.stat().ok().map(|stat| stat.starttime)
        };
        let known: Vec<_> = all.into_iter().map(|pid| (pid, born(pid))).collect();
        for (pid, _) in &known {
            // A stopped one hears nothing.
            let _ = kill_process(*pid, Signal::CONT);
        }
        for child in self.front.iter_mut().chain(&mut self.servers) {
            process::end(child, END);
        }
        for (pid, when) in known {
            // Its number can be somebody else's by now.
            if when.is_some() && born(pid) == when {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }
}
