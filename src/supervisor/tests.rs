//! The supervisor with real processes. It waits only for the processes that it started: the tests of this
//! program share one process.

use std::collections::HashMap;
use std::io::{BufRead, Read};
use std::num::NonZeroU32;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use rustix::net::SocketAddrUnix;
use rustix::process::{Pid, Signal};
use serde_json::value::RawValue;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::events::{Asker, EventKind, ReplaceReason};
use super::lifecycle::{Phase, Rules, StopAt, StopRules};
use super::*;
use crate::carry::testing::carried;
use crate::carry::{NotCarried, Still};
use crate::ids::{Slot, WorkerId, WorkerPort};
use crate::logs::LastLines;
use crate::metrics::Metrics;
use crate::protocol::wire::{self, Token};
use crate::settings::WorkerCommand;
use crate::settings::carried::CarriedSettings;
use crate::settings::resolve::{Sources, resolve};
use crate::sys::blocking;
use crate::sys::mark::Family;

const DEADLINE: Duration = Duration::from_secs(20);
const KILL_TIMEOUT: Duration = Duration::from_millis(300);

/// A running supervisor, and what its workers were started with.
struct Running {
    handle: Handle,
    metrics: Metrics,
    ended: JoinHandle<Result<u8, StartError>>,
    launches: mpsc::UnboundedReceiver<Launched>,
}

/// WorkerHooks in which nothing is to be taken back.
struct Watcher(mpsc::UnboundedSender<Launched>);

impl WorkerHooks for Watcher {
    fn launching(&mut self) {}

    fn launched(&mut self, launched: Launched) -> Option<LastLines> {
        // A test that has seen enough looks no more.
        let _ = self.0.send(launched);
        None
    }

    fn app_stopped(&mut self, _: bool) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }

    fn accept_by_workers(&mut self) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }

    fn stand_still(&mut self) -> BoxFuture<'static, Result<Still<Box<RawValue>>, NotCarried>> {
        Box::pin(std::future::ready(Ok(Still::new(RawValue::NULL.to_owned(), ()))))
    }

    fn release(&mut self, _: WorkerId) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }

    fn probe(&mut self, _: WorkerId) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }

    fn leaving(&mut self, _: WorkerId) {}

    fn retire(&mut self, _: WorkerId) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }

    fn drained(&mut self, _: WorkerId) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }

    fn send_shutdown(&mut self, _: WorkerId) {}

    fn disconnect_when_idle(&mut self, _: WorkerId) {}

    fn disconnect(&mut self, _: WorkerId) {}

    fn gone(&mut self, _: WorkerId) -> BoxFuture<'static, u64> {
        Box::pin(std::future::ready(0))
    }
}

fn spec(program: &str, arguments: &[&str], workers: u32) -> (CommandSpec, u32) {
    let spec = CommandSpec {
        command: WorkerCommand::Program {
            program: program.into(),
            arguments: arguments.iter().map(Into::into).collect(),
        },
        ports: vec![WorkerPort(3000), WorkerPort(3001)],
        inherited: Environment::of_this_process(),
        ..CommandSpec::of_demo()
    };
    (spec, workers)
}

fn settings() -> CarriedSettings {
    resolve(Sources::default(), NonZeroU32::MIN).expect("the defaults are valid").carried
}

fn start(spec: (CommandSpec, u32)) -> Running {
    start_under(spec, |_| {})
}

fn start_under(spec: (CommandSpec, u32), change: impl FnOnce(&mut Plan)) -> Running {
    begin(spec, change, None)
}

fn begin(
    (spec, workers): (CommandSpec, u32),
    change: impl FnOnce(&mut Plan),
    carried: Option<Carried>,
) -> Running {
    let metrics = Metrics::new();
    let (give, launches) = mpsc::unbounded_channel();
    let rules = Rules {
        ports: spec.ports.clone(),
        wait_ready: false,
        probes: false,
        ready_timeout: Duration::from_secs(30),
        stop: StopRules { signal: Signal::TERM, at: StopAt::Drained, message: false },
        kill_timeout: KILL_TIMEOUT,
        restart: restart::Policy::default(),
    };
    let drain_timeout = Duration::from_secs(5);
    let mut plan = Plan { spec, rules, drain_timeout };
    change(&mut plan);
    let wanted = DesiredState {
        plan: Arc::new(plan),
        workers: NonZeroU32::new(workers).expect("not zero"),
        reload_parallel: Parallel::AtMost(NonZeroU32::MIN),
        settings: Arc::new(settings()),
    };
    let spec = Spec {
        wanted: wanted.clone(),
        // So that each is waited for before the next is started.
        cpus: NonZeroU32::MIN,
        scope: Scope::Groups,
        app: "test".to_owned(),
        starts: true,
        holds: false,
        guardian: None,
        waiting_guardian: None,
        family: Family::random(),
        treekill: false,
        carried,
    };
    let (handle, supervisor, _) =
        new(spec, Arc::new(move |_| Ok(wanted.clone())), Watcher(give), metrics.clone()).expect("it begins");
    Running { handle, metrics, ended: tokio::spawn(supervisor.run()), launches }
}

impl Running {
    async fn try_stand_still(&self) -> Result<Still<snapshot::SupervisorSnapshot>, NotCarried> {
        let (since, _hooks) = self.handle.hooks_stand_still().await?;
        self.handle.stand_still(since).await
    }

    /// What there is once nothing is under way.
    async fn stand_still(&self) -> Still<snapshot::SupervisorSnapshot> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            match self.try_stand_still().await {
                Ok(standing) => return standing,
                Err(why) => assert!(Instant::now() < deadline, "{why}"),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn until(&self, what: impl Fn(&[Status]) -> bool) -> Vec<Status> {
        let mut status = self.handle.status();
        let seen = tokio::time::timeout(DEADLINE, status.wait_for(|app| what(&app.workers))).await;
        seen.expect("in time").expect("it runs").workers.clone()
    }

    async fn launched(&mut self) -> Launched {
        let next = tokio::time::timeout(DEADLINE, self.launches.recv()).await;
        next.expect("in time").expect("a launch")
    }

    /// Stops it at once.
    async fn end(self) {
        self.handle.stop(Stop::Fast).await;
        self.gone().await.expect("it ran");
    }

    async fn gone(self) -> Result<u8, StartError> {
        let ended = tokio::time::timeout(DEADLINE, self.ended).await;
        ended.expect("in time").expect("no panic")
    }

    fn workers_metric(&self, phase: Phase) -> i64 {
        self.metrics.workers.with_label_values(&[phase.label()]).get()
    }
}

fn pid(status: &Status) -> Pid {
    status.running.expect("it runs").1
}

fn exists(group: Pid) -> bool {
    rustix::process::test_kill_process_group(group).is_ok()
}

async fn read(pipe: OwnedFd) -> String {
    blocking::run(move || {
        let mut text = String::new();
        std::fs::File::from(pipe).read_to_string(&mut text).expect("text");
        text
    })
    .await
}

/// What is written up to and with the line `last`.
async fn read_until(pipe: OwnedFd, last: &'static str) -> String {
    blocking::run(move || {
        let lines =
            std::io::BufReader::new(std::fs::File::from(pipe)).lines().map(|line| line.expect("text"));
        let mut text = String::new();
        for line in lines {
            text += &line;
            text += "\n";
            if line == last {
                break;
            }
        }
        text
    })
    .await
}

fn all_run(workers: &[Status]) -> bool {
    !workers.is_empty() && workers.iter().all(|worker| worker.running.is_some())
}

#[tokio::test]
async fn workers_start_go_online_and_stop() {
    let running = start(spec("sleep", &["60"], 2));
    let workers = running.until(all_run).await;
    assert_eq!(running.workers_metric(Phase::Launching), 2);
    for worker in &workers {
        for port in [3000, 3001] {
            let (id, _) = worker.running.expect("it runs");
            running.handle.listening(id, WorkerPort(port)).await;
        }
    }
    let online = |workers: &[Status]| workers.iter().all(|worker| worker.phase == Phase::Online);
    running.until(online).await;
    assert_eq!(running.workers_metric(Phase::Online), 2);
    assert_eq!(running.workers_metric(Phase::Launching), 0);
    running.handle.stop(Stop::Fast).await;
    let metrics = running.metrics.clone();
    running.gone().await.expect("it ran");
    assert_eq!(metrics.workers.with_label_values(&["stopped"]).get(), 2);
    for worker in workers {
        assert!(!exists(pid(&worker)));
    }
}

#[tokio::test]
async fn a_worker_that_is_killed_is_started_again_and_its_group_is_gone() {
    let running = start(spec("sh", &["-c", "sleep 60 & sleep 60"], 1));
    let before = running.until(all_run).await;
    rustix::process::kill_process(pid(&before[0]), Signal::KILL).expect("it runs");
    let other = pid(&before[0]);
    running.until(|workers| all_run(workers) && pid(&workers[0]) != other).await;
    assert_eq!(running.metrics.restarts.with_label_values(&["1", "signal"]).get(), 1);
    wait_for_no_group(other).await;
    running.end().await;
}

/// Orphans are adopted and waited for by another process than this one, so nothing here tells their ends.
async fn wait_for_no_group(group: Pid) {
    let gone = async {
        while exists(group) && !only_zombies(group) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(DEADLINE, gone).await.expect("in time");
}

fn only_zombies(group: Pid) -> bool {
    let processes = procfs::process::all_processes().expect("/proc");
    let stats = processes.filter_map(|process| process.ok()?.stat().ok());
    let mut members = stats.filter(|stat| stat.pgrp == group.as_raw_pid());
    members.all(|stat| stat.state == 'Z')
}

#[tokio::test]
async fn a_worker_that_ignores_the_request_is_killed_at_the_deadline() {
    let mut running = start(spec("sh", &["-c", "trap '' TERM; echo up; while :; do sleep 1; done"], 1));
    let workers = running.until(all_run).await;
    let mut stdout = std::fs::File::from(running.launched().await.pipes.stdout);
    let mut first = [0; 3];
    let up = blocking::run(move || stdout.read_exact(&mut first));
    up.await.expect("the trap is set");
    let kill_at = Instant::now() + KILL_TIMEOUT;
    running.handle.stop(Stop::Graceful { until: Instant::now() }).await;
    running.gone().await.expect("it ran");
    assert!(Instant::now() >= kill_at);
    wait_for_no_group(pid(&workers[0])).await;
}

#[tokio::test]
async fn others_of_the_group_may_take_until_the_deadline_when_the_leader_is_gone() {
    let script = "(trap '' TERM; echo up; while :; do sleep 1; done) & wait";
    let mut running = start(spec("sh", &["-c", script], 1));
    let workers = running.until(all_run).await;
    let mut stdout = std::fs::File::from(running.launched().await.pipes.stdout);
    let mut first = [0; 3];
    let up = blocking::run(move || stdout.read_exact(&mut first));
    up.await.expect("the trap is set");
    let kill_at = Instant::now() + KILL_TIMEOUT;
    running.handle.stop(Stop::Graceful { until: Instant::now() }).await;
    running.until(|workers| workers[0].running.is_none()).await;
    assert!(exists(pid(&workers[0])), "the leader is gone, another lives");
    running.gone().await.expect("it ran");
    assert!(Instant::now() >= kill_at);
    wait_for_no_group(pid(&workers[0])).await;
}

#[tokio::test]
async fn crashes_are_counted_and_waited_out() {
    let running = start(spec("sh", &["-c", "exit 3"], 1));
    let crashes = running.metrics.restarts.with_label_values(&["1", "crash"]);
    let mut events = running.handle.events();
    let began = Instant::now();
    running.until(|workers| crashes.get() >= 2 && workers[0].phase == Phase::WaitingRestart).await;
    assert!(began.elapsed() >= Duration::from_millis(240), "two delays, at their shortest");
    let told = std::iter::from_fn(|| events.try_recv().ok()).map(|event| event.kind);
    let delays = told.filter(|kind| matches!(kind, EventKind::WorkerRestarts { .. })).count() as u64;
    assert_eq!(delays, crashes.get() + 1, "each is told once, and one is under way");
    running.end().await;
}

#[tokio::test]
async fn a_worker_inherits_what_is_meant_for_it_and_nothing_else() {
    let script = "grep -E 'Sig(Blk|Ign)' /proc/self/status; ls -l /proc/self/fd; env; ulimit -n; \
                  cut -d' ' -f1,5 /proc/self/stat; exec >&-; sleep 60";
    crate::sys::process::close_on_exec_above(3).expect("as at the start of the program");
    let mut spec = spec("sh", &["-c", script], 1);
    spec.0.context.nofile.current = Some(100);
    spec.0.attach.shim = Some("/run/shim.so".into());
    let mut running = start(spec);
    let launched = running.launched().await;
    assert_eq!(launched.worker, WorkerId { slot: Slot(1), launch: 1 });
    assert!(launched.channel.is_none());
    let text = read(launched.pipes.stdout).await;
    for line in [
        "PORT=3000",
        "CLUSTERD_WORKER_ID=1",
        "NODE_APP_INSTANCE=0",
        "CLUSTERD_WORKERS=1",
        "CLUSTERD_ATTACH_SOCKET=@test",
        "CLUSTERD_ATTACH_PORTS=3000,3001",
        "LD_PRELOAD=/run/shim.so",
        "SigBlk:\t0000000000000000",
        "100",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
    }
    let ignored = text.lines().find_map(|line| line.strip_prefix("SigIgn:\t")).expect("a line");
    let ignored = u64::from_str_radix(ignored, 16).expect("hexadecimal");
    assert_eq!(ignored & (1 << (libc::SIGPIPE - 1)), 0, "SIGPIPE has its default again");
    assert!(text.contains("0 -> /dev/null"), "{text}");
    let fds = text.lines().filter(|line| line.contains(" -> ")).count();
    assert_eq!(fds, 4, "0 to 2, and the folder that ls reads:\n{text}");
    running.end().await;
}

#[tokio::test]
async fn a_worker_with_a_node_channel_inherits_it_as_3_and_nothing_else() {
    let script = "ls -l /proc/self/fd >&2; env | sort >&2; echo said >&3; read heard <&3; echo $heard >&2; exec sleep 60";
    crate::sys::process::close_on_exec_above(3).expect("as at the start of the program");
    let mut spec = spec("sh", &["-c", script], 1);
    spec.0.attach.node_channel = true;
    let mut running = start(spec);
    for launch in 1..=2 {
        let Launched { worker, pipes, channel, .. } = running.launched().await;
        assert_eq!(worker, WorkerId { slot: Slot(1), launch });
        let channel = channel.expect("the spec has one");
        drop(channel.worker_end);
        assert!(
            rustix::net::sockopt::socket_passcred(&channel.primary_end).expect("an option of every socket")
        );
        let peer = rustix::net::getpeername(&channel.primary_end).expect("connected").expect("it has a name");
        let peer = SocketAddrUnix::try_from(peer).expect("a Unix socket");
        assert!(peer.abstract_name().expect("abstract").starts_with(wire::NODE_CHANNEL));
        let mut channel = UnixStream::from_std(channel.primary_end.into()).expect("a non-blocking socket");
        let mut said = [0; 5];
        channel.read_exact(&mut said).await.expect("said");
        assert_eq!(&said, b"said\n");
        channel.write_all(b"heard\n").await.expect("heard");
        let status = running.until(all_run).await;
        let group = pid(&status[0]);
        let id = format!("NODE_UNIQUE_ID={launch}");
        let text = read_until(pipes.stderr, "heard").await;
        let fds: Vec<&str> = text.lines().filter(|line| line.contains(" -> ")).collect();
        assert_eq!(fds.len(), 5, "0 to 3, and the folder that ls reads:\n{text}");
        assert!(fds.iter().any(|fd| fd.contains(" 3 -> socket:")), "{text}");
        for line in ["NODE_CHANNEL_FD=3", "NODE_CHANNEL_SERIALIZATION_MODE=json", &id] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
        rustix::process::kill_process(group, Signal::KILL).expect("it runs");
        let end = tokio::time::timeout(DEADLINE, channel.read(&mut said)).await.expect("in time");
        assert_eq!(end.ok(), Some(0), "nobody else holds the worker's end");
    }
    running.end().await;
}

#[tokio::test]
async fn only_the_holder_of_a_living_workers_token_is_admitted() {
    let mut running = start(spec("sh", &["-c", "echo $CLUSTERD_ATTACH_TOKEN; exec >&-; sleep 60"], 2));
    let workers = running.until(all_run).await;
    let Launched { worker: id, token, pipes, .. } = running.launched().await;
    let told = Token::from_hex(read(pipes.stdout).await.trim().as_bytes());
    assert_eq!(told, Some(token));
    assert_eq!(workers[id.slot.0 as usize - 1].running.expect("it runs").0, id);
    assert_eq!(running.handle.admit(token).await, Some(id));
    assert_eq!(running.handle.admit(Token([0; 16])).await, None);
    running.handle.stop(Stop::Fast).await;
    let handle = running.handle.clone();
    running.gone().await.expect("it ran");
    assert_eq!(handle.admit(token).await, None);
}

#[tokio::test]
async fn a_program_that_cannot_be_started_is_an_error_with_its_exit_code() {
    let folder = tempfile::tempdir().expect("a folder");
    let plain = folder.path().join("plain");
    std::fs::write(&plain, "data").expect("written");
    let script = folder.path().join("script");
    std::fs::write(&script, "#!/no/such/interpreter -x\n").expect("written");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&script, mode).expect("a mode");
    let cases = [
        ("no-such-program", 127, "not found in PATH"),
        ("/no/such/program", 127, "No such file"),
        (script.to_str().expect("text"), 127, "/no/such/interpreter"),
        (plain.to_str().expect("text"), 126, "chmod +x"),
        (folder.path().to_str().expect("text"), 126, "not a regular file"),
    ];
    for ((program, code, part), node_channel) in cases.iter().flat_map(|case| [(case, false), (case, true)]) {
        let mut spec = spec(program, &[], 2);
        spec.0.attach.node_channel = node_channel;
        let error = start(spec).gone().await.expect_err("no start");
        assert_eq!(error.exit_code(), *code, "{error}");
        assert!(error.to_string().contains(part), "{error}");
        assert!(error.to_string().contains(program), "{error}");
    }
}

/// Workers that listen as soon as they run.
fn start_listening(spec: (CommandSpec, u32)) -> Running {
    let running = start(spec);
    tokio::spawn(listen_all(running.handle.clone()));
    running
}

/// Says of every worker that it listens, as the front would.
async fn listen_all(handle: Handle) {
    let mut status = handle.status();
    loop {
        let launching: Vec<WorkerId> = {
            let app = status.borrow_and_update();
            let launching = app.workers.iter().filter(|worker| worker.phase == Phase::Launching);
            launching.filter_map(|worker| Some(worker.running?.0)).collect()
        };
        for worker in launching {
            for port in [3000, 3001] {
                handle.listening(worker, WorkerPort(port)).await;
            }
        }
        if status.changed().await.is_err() {
            return;
        }
    }
}

fn all_online(workers: &[Status]) -> bool {
    !workers.is_empty() && workers.iter().all(|worker| worker.phase == Phase::Online)
}

fn ids(workers: &[Status]) -> Vec<WorkerId> {
    workers.iter().filter_map(|worker| Some(worker.running?.0)).collect()
}

const ASKER: Asker = Asker::Signal("SIGTEST");

async fn done(handle: &Handle, command: Command) -> Result<String, Failed> {
    let underway = handle.begin(command, ASKER).await.expect("not refused");
    tokio::time::timeout(DEADLINE, underway.done()).await.expect("in time")
}

fn prove_at_once(plan: &mut Plan) {
    plan.rules.restart.min_uptime = Duration::from_millis(1);
}

#[tokio::test]
async fn a_reload_replaces_every_worker_and_a_second_one_is_refused_meanwhile() {
    let running = start_under(spec("sleep", &["60"], 3), prove_at_once);
    let listening = tokio::spawn(listen_all(running.handle.clone()));
    let before = ids(&running.until(all_online).await);
    // The first cannot end before the second is refused.
    listening.abort();
    let first = running.handle.begin(Command::Reload, ASKER).await.expect("not refused");
    let second = running.handle.begin(Command::Reload, Asker::Cron).await;
    assert_eq!(second.expect_err("refused"), Refused::Busy { by: ASKER });
    tokio::spawn(listen_all(running.handle.clone()));
    assert_eq!(first.done().await.as_deref(), Ok("3 workers replaced"));
    let after = running.until(|workers| workers.len() == 3 && all_online(workers)).await;
    assert!(ids(&after).iter().all(|id| !before.contains(id)));
    assert_eq!(after.iter().map(|worker| worker.slot.0).collect::<Vec<_>>(), [1, 2, 3]);
    running.handle.stop(Stop::Fast).await;
    assert_eq!(running.gone().await.ok(), Some(0));
}

#[tokio::test]
async fn a_reload_whose_first_worker_fails_touches_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let program = folder.path().join("program");
    std::fs::write(&program, "exec sleep 60").expect("written");
    let running = start_listening(spec("sh", &[program.to_str().expect("text")], 2));
    let before = running.until(all_online).await;
    let sleeps = |worker| {
        std::fs::read_to_string(format!("/proc/{}/comm", pid(worker).as_raw_pid())).expect("it runs")
            == "sleep\n"
    };
    tokio::time::timeout(DEADLINE, async {
        while !before.iter().all(sleeps) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("the program was read");
    std::fs::write(&program, "exit 7").expect("written");
    let failed = done(&running.handle, Command::Reload).await.expect_err("it fails");
    assert!(failed.reason.contains("the new worker 1 exited with code 7"), "{failed}");
    let after = running.until(|workers| workers.len() == 2 && all_online(workers)).await;
    assert_eq!(ids(&after), ids(&before));
    running.end().await;
}

#[tokio::test]
async fn it_grows_and_shrinks_within_bounds() {
    let running = start_listening(spec("sleep", &["60"], 2));
    running.until(all_online).await;
    done(&running.handle, Command::Scale(Scale::By(2))).await.expect("it grows");
    running.until(|workers| workers.len() == 4 && all_online(workers)).await;
    done(&running.handle, Command::Scale(Scale::To(1))).await.expect("it shrinks");
    running.until(|workers| workers.len() == 1 && all_online(workers)).await;
    for (scale, asked) in [(Scale::To(0), 0), (Scale::By(-1), 0), (Scale::To(1025), 1025)] {
        let refused = running.handle.begin(Command::Scale(scale), ASKER).await.expect_err("refused");
        assert_eq!(refused, Refused::OutOfRange { asked });
    }
    running.end().await;
}

#[tokio::test]
async fn what_was_stopped_stays_so_until_it_is_started() {
    let running = start_listening(spec("sleep", &["60"], 2));
    let before = running.until(all_online).await;
    done(&running.handle, Command::Stop(None)).await.expect("it stops");
    let stopped = running.until(|workers| workers.iter().all(|worker| worker.running.is_none())).await;
    assert!(stopped.iter().all(|worker| worker.phase == Phase::Stopped) && stopped.len() == 2);
    assert!(before.iter().all(|worker| !exists(pid(worker))));
    assert_eq!(running.handle.begin(Command::Reload, ASKER).await.expect_err("refused"), Refused::Stopped);
    done(&running.handle, Command::Start(None)).await.expect("it starts");
    running.until(|workers| workers.len() == 2 && all_online(workers)).await;
    running.end().await;
}

#[tokio::test]
async fn one_worker_is_restarted_and_the_other_is_not() {
    let running = start_listening(spec("sleep", &["60"], 2));
    let before = ids(&running.until(all_online).await);
    done(&running.handle, Command::Restart(Some(Slot(2)))).await.expect("it starts again");
    let after = running.until(|workers| workers.len() == 2 && all_online(workers)).await;
    assert_eq!(ids(&after)[0], before[0]);
    assert_ne!(ids(&after)[1], before[1]);
    assert_eq!(after[1].restarts, 1);
    let refused = running.handle.begin(Command::Restart(Some(Slot(3))), ASKER).await.expect_err("refused");
    assert_eq!(refused, Refused::NoWorker(Slot(3)));
    running.end().await;
}

#[tokio::test]
async fn a_worker_is_replaced_by_one_that_is_ready_first() {
    let running = start_listening(spec("sleep", &["60"], 2));
    let before = ids(&running.until(all_online).await);
    let mut events = running.handle.events();
    running.handle.replace(before[1], ReplaceReason::Age(Duration::from_secs(60))).await;
    running.handle.replace(before[1], ReplaceReason::Memory(1)).await;
    let after =
        running.until(|workers| workers.len() == 2 && all_online(workers) && ids(workers)[1] != before[1]);
    assert_eq!(ids(&after.await)[0], before[0]);
    let mut told = Vec::new();
    while let Ok(event) = events.try_recv() {
        told.push(event.kind);
    }
    let at = |wanted: fn(&EventKind) -> bool| told.iter().position(wanted).expect("it was told");
    let (online, draining) = (
        at(|kind| matches!(kind, EventKind::WorkerOnline { .. })),
        at(|kind| matches!(kind, EventKind::WorkerDraining { .. })),
    );
    assert!(online < draining, "{told:?}");
    assert_eq!(told.iter().filter(|kind| matches!(kind, EventKind::WorkerReplaced { .. })).count(), 1);
    running.end().await;
}

#[tokio::test]
async fn when_every_worker_has_failed_too_often_it_ends_with_their_code() {
    let few = |plan: &mut Plan| plan.rules.restart.max_restarts = 1;
    let running = start_under(spec("sh", &["-c", "exit 3"], 2), few);
    assert_eq!(running.gone().await.ok(), Some(3));
    let meant = |plan: &mut Plan| plan.rules.restart.stop_exit_codes = vec![0];
    assert_eq!(start_under(spec("true", &[], 2), meant).gone().await.ok(), Some(0));
}

#[tokio::test]
async fn it_does_not_end_before_everybody_was_started() {
    let once = |plan: &mut Plan| plan.rules.restart.autorestart = false;
    let mut running = start_under(spec("true", &[], 3), once);
    for slot in 1..=3 {
        assert_eq!(running.launched().await.worker.slot, Slot(slot));
    }
    assert_eq!(running.gone().await.ok(), Some(0));
}

#[tokio::test]
async fn who_does_not_come_up_keeps_nobody_from_being_started() {
    let running = start(spec("sleep", &["60"], 3));
    let status = running.until(all_run).await;
    assert!(status.iter().all(|worker| worker.phase == Phase::Launching), "{status:?}");
    running.end().await;
}

#[tokio::test]
async fn who_is_not_ready_in_time_is_ended_and_started_again() {
    let soon = |plan: &mut Plan| plan.rules.ready_timeout = Duration::from_millis(50);
    let running = start_under(spec("sleep", &["60"], 1), soon);
    let unready = running.metrics.restarts.with_label_values(&["1", "unready"]);
    let status = running.until(|_| unready.get() >= 1).await;
    assert_eq!(status[0].last_end.as_deref(), Some("was not ready within 50ms"));
    running.end().await;
}

#[tokio::test]
async fn once_the_end_has_begun_no_command_is_taken_but_workers_are_kept_up() {
    let running = start_listening(spec("sleep", &["60"], 1));
    let before = running.until(all_online).await;
    running.handle.close().await;
    let refused = running.handle.begin(Command::Reload, ASKER).await.expect_err("refused");
    assert_eq!(refused, Refused::Stopping);
    rustix::process::kill_process(pid(&before[0]), Signal::KILL).expect("it runs");
    running.until(|workers| all_online(workers) && ids(workers) != ids(&before)).await;
    running.handle.stop(Stop::Graceful { until: Instant::now() }).await;
    assert_eq!(running.gone().await.ok(), Some(0));
}

#[tokio::test]
async fn the_next_image_goes_on_with_the_workers_that_run() {
    let before = start(spec("sleep", &["60"], 2));
    let all_run = |workers: &[Status]| workers.iter().all(|worker| worker.running.is_some());
    let first = before.until(|workers| workers.len() == 2 && all_run(workers)).await;
    let standing = before.stand_still().await;
    let (snapshot, _) = carried(&standing.state);
    snapshot.check().unwrap();
    assert_eq!(snapshot.settings(), &settings());
    before.ended.abort();
    drop(standing);
    assert!(before.ended.await.unwrap_err().is_cancelled());

    let left = Carried { snapshot, output: HashMap::new(), guardian: None };
    let after = begin(spec("sleep", &["60"], 2), |_| {}, Some(left));
    let second = after.until(|workers| workers.len() == 2).await;
    let facts = |workers: &[Status]| -> Vec<_> {
        workers.iter().map(|worker| (worker.slot, worker.phase, worker.running, worker.since)).collect()
    };
    assert_eq!(facts(&second), facts(&first));
    let (id, pid) = second[0].running.unwrap();
    rustix::process::kill_process(pid, Signal::KILL).unwrap();
    let third = after.until(|workers| workers[0].running.is_some_and(|(_, now)| now != pid)).await;
    assert!(third[0].running.unwrap().0.launch > id.launch.max(second[1].running.unwrap().0.launch));
    assert_eq!(third[1].running, second[1].running);
    after.handle.stop(Stop::Fast).await;
    after.ended.await.unwrap().unwrap();
}

#[tokio::test]
async fn while_a_command_is_under_way_it_does_not_stand_still() {
    let running = start(spec("sleep", &["60"], 1));
    running.until(|workers| workers.iter().any(|worker| worker.running.is_some())).await;
    // Nobody listens: it is never done.
    let scaled = running.handle.begin(Command::Scale(Scale::To(2)), Asker::Cron).await.unwrap();
    let why = running.try_stand_still().await.unwrap_err();
    assert_eq!(why.to_string(), "a command is under way");
    drop(scaled);
    drop(running.stand_still().await);
    running.handle.ping().await;
    running.handle.stop(Stop::Fast).await;
    running.ended.await.unwrap().unwrap();
}
