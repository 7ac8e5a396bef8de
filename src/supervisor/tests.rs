//! The supervisor with real processes. It waits only for the processes that it started: the tests of this
//! program share one process.

use std::io::{BufRead, Read};
use std::num::NonZeroU32;
use std::os::fd::OwnedFd;

use rustix::net::SocketAddrUnix;
use rustix::process::{Resource, Signal, getrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;

use super::*;
use crate::config::WorkerCommand;
use crate::protocol::wire;

const DEADLINE: Duration = Duration::from_secs(20);

/// A running supervisor, and what its workers were started with.
struct Running {
    handle: Handle,
    metrics: Metrics,
    ended: JoinHandle<Result<(), StartError>>,
    launches: mpsc::UnboundedReceiver<Launched>,
}

/// Surroundings in which nothing is to be taken back.
struct Watcher(mpsc::UnboundedSender<Launched>);

impl Surroundings for Watcher {
    fn launched(&mut self, launched: Launched) {
        // A test that has seen enough looks no more.
        let _ = self.0.send(launched);
    }

    fn gone(&mut self, _: WorkerId) -> TakingBack {
        Box::pin(std::future::ready(()))
    }
}

fn recipe(program: &str, arguments: &[&str], workers: u32) -> Recipe {
    Recipe {
        command: WorkerCommand::Program {
            program: program.into(),
            arguments: arguments.iter().map(Into::into).collect(),
        },
        workers: NonZeroU32::new(workers).expect("not zero"),
        ports: vec![WorkerPort(3000), WorkerPort(3001)],
        attach: AttachEnv { socket: "@test".into(), shim: None, node_channel: false },
        wait_ready: false,
        nofile: getrlimit(Resource::Nofile).current,
    }
}

fn start(recipe: Recipe) -> Running {
    let metrics = Metrics::new();
    let (give, launches) = mpsc::unbounded_channel();
    let spec = Spec { recipe, scope: Scope::Groups, guardian: None };
    let (handle, supervisor) = new(spec, Watcher(give), metrics.clone());
    Running { handle, metrics, ended: tokio::spawn(supervisor.run()), launches }
}

impl Running {
    async fn until(&self, what: impl Fn(&[Status]) -> bool) -> Vec<Status> {
        let mut status = self.handle.status();
        let seen = tokio::time::timeout(DEADLINE, status.wait_for(|app| what(&app.workers))).await;
        seen.expect("in time").expect("it runs").workers.clone()
    }

    async fn launched(&mut self) -> Launched {
        let next = tokio::time::timeout(DEADLINE, self.launches.recv()).await;
        next.expect("in time").expect("a launch")
    }

    async fn gone(self) -> Result<(), StartError> {
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
    tokio::task::spawn_blocking(move || {
        let mut text = String::new();
        std::fs::File::from(pipe).read_to_string(&mut text).expect("text");
        text
    })
    .await
    .expect("no panic")
}

/// What is written up to and with the line `last`.
async fn read_until(pipe: OwnedFd, last: &'static str) -> String {
    tokio::task::spawn_blocking(move || {
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
    .expect("no panic")
}

fn all_run(workers: &[Status]) -> bool {
    !workers.is_empty() && workers.iter().all(|worker| worker.running.is_some())
}

#[tokio::test]
async fn workers_start_go_online_and_stop() {
    let running = start(recipe("sleep", &["60"], 2));
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
    let running = start(recipe("sh", &["-c", "sleep 60 & sleep 60"], 1));
    let before = running.until(all_run).await;
    rustix::process::kill_process(pid(&before[0]), Signal::KILL).expect("it runs");
    let other = pid(&before[0]);
    running.until(|workers| all_run(workers) && pid(&workers[0]) != other).await;
    assert_eq!(running.metrics.restarts.with_label_values(&["1", "signal"]).get(), 1);
    wait_for_no_group(other).await;
    running.handle.stop(Stop::Fast).await;
    running.gone().await.expect("it ran");
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
    let mut running = start(recipe("sh", &["-c", "trap '' TERM; echo up; while :; do sleep 1; done"], 1));
    let workers = running.until(all_run).await;
    let mut stdout = std::fs::File::from(running.launched().await.pipes.stdout);
    let mut first = [0; 3];
    let up = tokio::task::spawn_blocking(move || stdout.read_exact(&mut first));
    up.await.expect("no panic").expect("the trap is set");
    let kill_at = Instant::now() + Duration::from_millis(200);
    running.handle.stop(Stop::Graceful { kill_at }).await;
    running.gone().await.expect("it ran");
    assert!(Instant::now() >= kill_at);
    wait_for_no_group(pid(&workers[0])).await;
}

#[tokio::test]
async fn others_of_the_group_may_take_until_the_deadline_when_the_leader_is_gone() {
    let script = "(trap '' TERM; echo up; while :; do sleep 1; done) & wait";
    let mut running = start(recipe("sh", &["-c", script], 1));
    let workers = running.until(all_run).await;
    let mut stdout = std::fs::File::from(running.launched().await.pipes.stdout);
    let mut first = [0; 3];
    let up = tokio::task::spawn_blocking(move || stdout.read_exact(&mut first));
    up.await.expect("no panic").expect("the trap is set");
    let kill_at = Instant::now() + Duration::from_millis(300);
    running.handle.stop(Stop::Graceful { kill_at }).await;
    running.until(|workers| workers[0].running.is_none()).await;
    assert!(exists(pid(&workers[0])), "the leader is gone, another lives");
    running.gone().await.expect("it ran");
    assert!(Instant::now() >= kill_at);
    wait_for_no_group(pid(&workers[0])).await;
}

#[tokio::test]
async fn crashes_are_counted_and_waited_out() {
    let running = start(recipe("sh", &["-c", "exit 3"], 1));
    let crashes = running.metrics.restarts.with_label_values(&["1", "crash"]);
    let began = Instant::now();
    running.until(|workers| crashes.get() >= 2 && workers[0].phase == Phase::WaitingRestart).await;
    assert!(began.elapsed() >= Duration::from_millis(240), "two delays, at their shortest");
    running.handle.stop(Stop::Fast).await;
    running.gone().await.expect("it ran");
}

#[tokio::test]
async fn a_worker_inherits_what_is_meant_for_it_and_nothing_else() {
    let script = "grep -E 'Sig(Blk|Ign)' /proc/self/status; ls -l /proc/self/fd; env; ulimit -n; \
                  cut -d' ' -f1,5 /proc/self/stat; exec >&-; sleep 60";
    crate::sys::process::close_on_exec_above(3).expect("as at the start of the program");
    let mut recipe = recipe("sh", &["-c", script], 1);
    recipe.nofile = Some(100);
    recipe.attach.shim = Some("/run/shim.so".into());
    let mut running = start(recipe);
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
    running.handle.stop(Stop::Fast).await;
    running.gone().await.expect("it ran");
}

#[tokio::test]
async fn a_worker_with_a_node_channel_inherits_it_as_3_and_nothing_else() {
    let script = "ls -l /proc/self/fd >&2; env | sort >&2; echo said >&3; read heard <&3; echo $heard >&2; exec sleep 60";
    crate::sys::process::close_on_exec_above(3).expect("as at the start of the program");
    let mut recipe = recipe("sh", &["-c", script], 1);
    recipe.attach.node_channel = true;
    let mut running = start(recipe);
    for launch in 1..=2 {
        let Launched { worker, pipes, channel, .. } = running.launched().await;
        assert_eq!(worker, WorkerId { slot: Slot(1), launch });
        let channel = channel.expect("the recipe has one");
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
    running.handle.stop(Stop::Fast).await;
    running.gone().await.expect("it ran");
}

#[tokio::test]
async fn only_the_holder_of_a_living_workers_token_is_admitted() {
    let mut running = start(recipe("sh", &["-c", "echo $CLUSTERD_ATTACH_TOKEN; exec >&-; sleep 60"], 2));
    let workers = running.until(all_run).await;
    let Launched { worker: id, token, pipes, .. } = running.launched().await;
    let told = Token::from_hex(read(pipes.stdout).await.trim().as_bytes());
    assert_eq!(told, Some(token));
    assert_eq!(workers[id.slot.0 as usize - 1].running.expect("it runs").0, id);
    let euid = rustix::process::geteuid().as_raw();
    assert_eq!(running.handle.admit(token, euid).await, Some(id));
    assert_eq!(running.handle.admit(token, 0).await, Some(id));
    assert_eq!(running.handle.admit(token, euid + 1).await, None);
    assert_eq!(running.handle.admit(Token([0; 16]), euid).await, None);
    running.handle.stop(Stop::Fast).await;
    let handle = running.handle.clone();
    running.gone().await.expect("it ran");
    assert_eq!(handle.admit(token, euid).await, None);
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
        (folder.path().to_str().expect("text"), 126, "folder"),
    ];
    for ((program, code, part), node_channel) in cases.iter().flat_map(|case| [(case, false), (case, true)]) {
        let mut recipe = recipe(program, &[], 2);
        recipe.attach.node_channel = node_channel;
        let error = start(recipe).gone().await.expect_err("no start");
        assert_eq!(error.exit_code(), *code, "{error}");
        assert!(error.to_string().contains(part), "{error}");
        assert!(error.to_string().contains(program), "{error}");
    }
}
