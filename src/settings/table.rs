//! Every setting, declared once: its flag, variable, key, help, reference and place in [`Config`] come from here.
//!
//! The first sentence of a comment is the help; what follows is for `config/clusterd.toml`, `docs/settings.md` and the
//! man page (`cargo xtask generate` writes them). What values may not do together beyond `needs` and `not_with` is in
//! [`super::check`].

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;
use globset::Glob;
use hyper::Uri;

use super::date_format::{DATE_FORMAT, DateFormat};
use super::kind::{ListOrOff, Memory, OrAuto, OrOff, Truth, choice, duration, list, number};
use super::parse::{
    ACCOUNT, AppName, BIND, CRON, FilePath, HEADER, HTTP_PATH, MAX_WORKERS, METRICS, NAMESPACE, PATTERN,
    PORT, PolicyWord, ProbeHeader, SHELL_LINE, USER_AND_GROUP, VARIABLE, Variables, Workers,
};
use super::resolve::Reading;
use super::schedule::Schedule;
use super::setting::{Doc, InForce, Key, Section, Setting, dashed, settings, text};
use super::stop_signal::{SignalName, StopSignal};
use super::workplace::Workplace;
use super::{
    Accept, Attach, CpuScheduling, DrainHttp, Listen, LogFormat, LogLevel, LogType, Policy, Stdin,
    StopSignalAt, WorkerCommand,
};

settings! {
    "Listening" {
        /// Serve this port on every address, for workers that listen on it or on WORKER.
        ///
        /// Over IPv4 and IPv6, as far as workers listen on them. With `"80:8080"`, clients connect
        /// to port 80 and the server listens on 8080. `"0:8080"` takes any free public port.
        ///
        /// With `off` nothing is opened before a worker asks for it: a port on which a Node worker listens is opened then,
        /// for all of them; any other server listens by itself, and workers get no `PORT`. `clusterd start` does so if no
        /// port is named.
        port: Vec<Listen> {
            values: ListOrOff(list(PORT, "[3000, \"80:8080\"]")),
            in_force: AtNextStart,
            default: "3000",
            platform_variable: "PORT",
            decided_with: "bind",
        }

        /// Serve this address only, such as `127.0.0.1:3000` or `[::1]:80:8080`.
        ///
        /// Without `port`, there is then no default port. The highest of flags, variables and file that names a port or
        /// an address decides both.
        bind: Vec<Listen> {
            values: list(BIND, "[\"127.0.0.1:3000\", \"[::1]:80:8080\"]"),
            in_force: AtNextStart,
            decided_with: "port",
        }

        /// Number of connections that the kernel may hold for each public address (see listen(2)).
        ///
        /// They wait there until clusterd accepts them. The kernel does not go above net.core.somaxconn.
        backlog: NonZeroU32 {
            values: number(1, 2_147_483_647),
            in_force: AtNextStart,
            default: "4096",
            placeholder: "CONNECTIONS",
        }

        /// Number of accepted connections that may wait for an idle worker, for each port of the workers.
        ///
        /// When the queue is full, nothing is refused: clusterd stops accepting, and the backlog fills.
        queue: NonZeroUsize {
            // Each of them is an open descriptor.
            values: number(1, 65_536),
            in_force: AtNextStart,
            default: "1024",
            placeholder: "CONNECTIONS",
        }

        /// Close a connection that has waited this long for a worker.
        queue_timeout: Duration {
            values: duration("1ms", "24h"),
            in_force: AtNextStart,
            default: "1m",
        }

        /// Number of connections that may be on their way to one worker that takes them quickly.
        ///
        /// More than one only if no worker is idle. A worker that has not taken a connection within 20 ms gets one at a
        /// time, and the others that it was given go to other workers. With 1, a connection goes to an idle worker
        /// only, as with Node's cluster.
        window: NonZeroUsize {
            // The kernel signals that a connection was taken only while what lies in a channel is less than a quarter
            // of its send buffer (`unix_writable`): with the usual buffer, about 64 records.
            values: number(1, 64),
            in_force: AtNextStart,
            default: "16",
            placeholder: "CONNECTIONS",
        }

        /// Give a connection to an idle worker if the first has not taken it within this time.
        ///
        /// If no worker is idle then, the first one that is gets it. The worker that was late gets no connection until
        /// it moves. Without effect if it is not shorter than `handoff-timeout`, and for Node workers without the shim.
        redispatch_after: Duration {
            values: duration("1ms", "24h"),
            in_force: AtNextStart,
            default: "20ms",
        }

        /// Take a connection back if the worker has not taken it within this time, whether or not another one is idle.
        ///
        /// It waits for the next idle worker then. A worker that has taken nothing for so long is stalled.
        handoff_timeout: Duration {
            values: duration("1ms", "24h"),
            in_force: AtNextStart,
            default: "1s",
        }

        /// Which worker gets a connection.
        ///
        /// Whichever it is, a worker that takes nothing gets nothing. `docs/guide.md` tells when to use which.
        policy: Policy {
            values: PolicyWord,
            in_force: AtNextStart,
            default: "round-robin",
        }

        /// Number of connections that a worker may have open; further ones wait in the queue.
        ///
        /// For servers that do one thing at a time (`php -S`, gunicorn's sync workers): with 1, nobody waits for a busy
        /// worker while another one is idle. An open connection counts until no process has it any more, idle or not, so
        /// clients that keep connections alive keep their places. clusterd's own connections, such as probes, do not
        /// count.
        concurrency: Option<NonZeroUsize> {
            values: OrOff(number(1, 65_536)),
            in_force: AtNextStart,
            default: "off",
            placeholder: "CONNECTIONS",
            not_with: ("accept", "workers"),
        }

        /// Who accepts connections.
        ///
        /// If workers accept by themselves, each from a listening socket of its own, clusterd costs no connection anything,
        /// and it can neither count nor assign them: settings that need that cannot be used. Each public port then has one
        /// address, and for Node the same number for clients and workers. `docs/guide.md` tells when to use which.
        accept: Accept {
            values: choice::<Accept>(),
            in_force: AtNextStart,
            default: "auto",
            platform_variable: "NODE_CLUSTER_SCHED_POLICY",
        }

        /// Let the kernel pass on what waits for a worker that has ended or is stuck, if workers accept.
        ///
        /// clusterd sets net.ipv4.tcp_migrate_req to 1 at its start. That is a setting of the whole network namespace: the
        /// container's, or the machine's. It needs root, and /proc/sys is read-only in most containers: set it from outside
        /// there (`docker run --sysctl net.ipv4.tcp_migrate_req=1`). clusterd makes use of it whoever has set it. Without it,
        /// what waits for such a worker is served by the one that takes its place.
        tcp_migrate: bool {
            values: Truth,
            in_force: AtNextStart,
            default: "false",
        }
    }

    "Workers" {
        /// Number of workers; `max` is one for each CPU that clusterd may use.
        ///
        /// The CPU affinity and the CPU limit of the container count. `max-1` is one fewer, but one at least.
        workers: NonZeroU32 {
            values: Workers,
            in_force: AtReload,
            default: "max",
            platform_variable: "WEB_CONCURRENCY",
            short: 'w',
            alias: "instances",
            short_alias: 'i',
        }

        /// Name of the app; `auto` is the name of the command's program.
        ///
        /// Commands such as `clusterd reload NAME` take it.
        name: String {
            values: AppName,
            in_force: AtNextStart,
            default: "auto",
        }

        /// Namespace of the app, which it may share with others.
        ///
        /// Commands that take the name of an app, such as `clusterd stop NAME`, take a namespace, too: every app in it is
        /// meant. A name goes before a namespace.
        namespace: String {
            values: NAMESPACE,
            in_force: AtNextStart,
            default: "default",
        }

        /// Run workers in this folder.
        ///
        /// `off` is the folder in which clusterd was started, by the name that the shell has for it (`PWD`); from there a
        /// relative path starts. Each launch looks the folder up by its name: where a link leads to the current release,
        /// a reload takes the release of that moment. The command is relative to it, with its arguments, such as
        /// `app.js`, and so is `env-file`.
        cwd: Option<PathBuf> {
            values: OrOff(FilePath),
            in_force: AtReload,
            default: "off",
            placeholder: "DIR",
        }

        /// Give workers this variable; repeatable.
        ///
        /// It goes before `env-file`, and before what workers inherit of clusterd's own environment. In the file this is a
        /// table, also as `[env]` at its end, in which numbers, `true` and `false` are taken as text. Of one name the
        /// highest source counts; all others are taken from all sources. In the variable, a value with a comma cannot be
        /// used.
        env: BTreeMap<String, String> {
            values: Variables,
            in_force: AtReload,
        }

        /// Give workers the variables of this file, in the dialect of npm's dotenv.
        ///
        /// They go before what workers inherit; of several files, the last goes first. A relative path starts from the
        /// folder that workers run in (`cwd`). Each launch reads it again. `docs/guide.md` says how lines are written.
        env_file: Vec<PathBuf> {
            values: list(FilePath, "[\".env\", \".env.production\"]"),
            in_force: AtReload,
            placeholder: "FILE",
        }

        /// Keep this variable, which clusterd inherited, from workers; repeatable.
        ///
        /// What `env` and `env-file` give them is not concerned.
        filter_env: Vec<String> {
            values: list(VARIABLE, "[\"AWS_SECRET_ACCESS_KEY\", \"GITHUB_TOKEN\"]"),
            in_force: AtReload,
        }

        /// Name of the variable in which workers have their number, counted from 0.
        instance_var: String {
            values: VARIABLE,
            in_force: AtReload,
            default: "NODE_APP_INSTANCE",
        }

        /// Count this variable up from worker to worker.
        ///
        /// The first has the value that `env` gives it, or 0, the second one more, and so on; a worker that is started again
        /// has the same as before. With `PORT`, each worker is told a port of its own, which it opens by itself.
        increment_var: Option<String> {
            values: OrOff(VARIABLE),
            in_force: AtReload,
            default: "off",
        }

        /// Write the process id of each worker to a file of this name, with the worker's id before the extension.
        ///
        /// `web.pid` is `web-0.pid`, as PM2 has it. A file goes with its process. Without this, apps with a name and those in the
        /// background have `NAME-ID.pid` in `CLUSTERD_HOME/pids`.
        pid_file: Option<PathBuf> {
            values: OrOff(FilePath),
            in_force: AtNextStart,
            default: "off",
            placeholder: "FILE",
        }

        /// What workers read from their standard input.
        ///
        /// Some servers stop at its end, such as `esbuild --serve`, or one that waits for Enter.
        stdin: Stdin {
            values: choice::<Stdin>(),
            in_force: AtReload,
            default: "null",
        }

        /// How workers get connections.
        attach: Attach {
            // `CLUSTERD_ATTACH_SOCKET` is what workers get: the attach socket.
            values: choice::<Attach>(),
            in_force: AtNextStart,
            default: "auto",
        }

        /// Pass what a Node worker sends with `process.send` on to the app's other Node workers.
        ///
        /// They receive it as `process.on('message')`, in the words in which it was sent. @socket.io/cluster-adapter needs
        /// it, and what PM2's users have from pm2-intercom. A message may have 1 MiB, and 4 MiB or 1024 messages may
        /// wait for one worker; more is dropped and counted. `process.send('ready')` is not passed on.
        relay_messages: bool {
            values: Truth,
            in_force: AtNextStart,
            default: "false",
            not_with: ("attach", "preload"),
        }

        /// Run workers as this user, by name or number.
        ///
        /// clusterd itself, which opens the ports, stays the user that it was started as, usually root, unless `primary-user`
        /// names another. Workers also get the user's groups, and its `HOME`, `USER` and `LOGNAME`.
        user: Option<String> {
            values: OrOff(ACCOUNT),
            in_force: AtNextStart,
            default: "off",
            placeholder: "USER",
        }

        /// Run workers with this group, by name or number; `off` is the user's own.
        ///
        /// Without `user`, workers keep clusterd's user, and get this group instead of clusterd's.
        group: Option<String> {
            values: OrOff(ACCOUNT),
            in_force: AtNextStart,
            default: "off",
            placeholder: "GROUP",
        }

        /// Run clusterd itself as this user, by name or number: it gives up root before it opens or starts anything.
        ///
        /// With `USER:GROUP` it gets that group instead of the user's own. Workers run as this user, too, with its `HOME`,
        /// `USER` and `LOGNAME`, unless `user` names another. Of root's capabilities clusterd keeps what it needs later:
        /// CAP_NET_BIND_SERVICE for ports below 1024; CAP_SETUID, CAP_SETGID and CAP_KILL for workers of another user, and
        /// CAP_SYS_PTRACE if their calls are intercepted; CAP_SYS_RESOURCE for `nofile` and `oom-score-adj` beyond its own.
        /// Workers and hooks get none of them. Logs and CLUSTERD_HOME must be this user's. It is not for apps of
        /// `clusterd start`. `docs/security.md` tells what it protects from.
        primary_user: Option<String> {
            values: OrOff(USER_AND_GROUP),
            in_force: AtNextStart,
            default: "off",
            placeholder: "USER",
        }

        /// Number of files, connections among them, that each worker may have open (RLIMIT_NOFILE).
        ///
        /// Both the soft and the hard limit. More than clusterd's own hard limit needs CAP_SYS_RESOURCE. `off` leaves the
        /// limits that clusterd was started with.
        nofile: Option<u64> {
            // As far as systemd raises `fs.nr_open`, and no limit can be above that.
            values: OrOff(number(1, 1_073_741_816)),
            in_force: AtReload,
            default: "off",
            placeholder: "FILES",
        }

        /// How readily the kernel kills a worker when memory runs out: -1000 never, 1000 first.
        ///
        /// Less than clusterd's own needs CAP_SYS_RESOURCE; `off` leaves it at clusterd's own. See
        /// proc_pid_oom_score_adj(5).
        oom_score_adj: Option<i16> {
            values: OrOff(number(-1000, 1000)),
            in_force: AtReload,
            default: "off",
            placeholder: "SCORE",
        }

        /// Run each worker on one CPU only.
        ///
        /// Worker 1 runs on the first CPU that clusterd may use, worker 2 on the second, and so on, round and round.
        cpu_affinity: bool {
            values: Truth,
            in_force: AtReload,
            default: "false",
        }

        /// How the kernel schedules workers (see sched(7)).
        cpu_scheduling: CpuScheduling {
            values: choice::<CpuScheduling>(),
            in_force: AtReload,
            default: "inherit",
        }
    }

    "Readiness" {
        /// Send a worker no connections before it reports that it is ready.
        ///
        /// A worker reports it with `process.send('ready')` in Node, with `READY=1` to `NOTIFY_SOCKET` as any service
        /// of systemd does, or through the library's listener, which does so by itself.
        wait_ready: bool {
            values: Truth,
            in_force: AtNextStart,
            default: "false",
        }

        /// Send a worker no connections before it answers GET PATH with a 2xx or 3xx status.
        ready_http: Option<Uri> {
            values: OrOff(HTTP_PATH),
            in_force: AtNextStart,
            default: "off",
            not_with: ("accept", "workers"),
        }

        /// Time that a worker has to become ready; after that, its start has failed.
        ready_timeout: Duration {
            values: duration("1ms", "24h"),
            in_force: AtReload,
            default: "30s",
        }
    }

    "Restarts" {
        /// Start a worker again when it exits.
        autorestart: bool {
            values: Truth,
            in_force: AtReload,
            default: "true",
            negation: "no-autorestart",
        }

        /// A worker that exits before this time, and has served nobody, has failed.
        ///
        /// Its next start is delayed, longer each time in a row. The first new worker of a reload must have been ready
        /// for this time before an old one is stopped.
        min_uptime: Duration {
            values: duration("1ms", "24h"),
            in_force: AtReload,
            default: "1s",
        }

        /// Number of times in a row that a failing worker is started again before clusterd gives it up.
        max_restarts: u32 {
            values: number(0, 1_000_000),
            in_force: AtReload,
            default: "16",
            placeholder: "TIMES",
        }

        /// Wait this long before a worker that has ended is started again.
        restart_delay: Duration {
            values: duration("0s", "24h"),
            in_force: AtReload,
            default: "0s",
        }

        /// Wait this long before a worker that has failed is started again, and twice as long each further time in a row.
        ///
        /// 15 seconds at most, or as long as said here. Each delay is a fifth longer or shorter by chance. If `restart-delay` is
        /// longer, it counts.
        restart_backoff: Duration {
            values: duration("1ms", "24h"),
            in_force: AtReload,
            default: "100ms",
            alias: "exp-backoff-restart-delay",
        }

        /// Do not restart a worker that exits with this code.
        ///
        /// A worker exits with such a code when its work is done.
        stop_exit_codes: Vec<u8> {
            values: list(number(0, 255), "[0, 3]"),
            in_force: AtReload,
            placeholder: "CODE",
        }
    }

    "Stop and reload" {
        /// Time for which clients are still accepted after a signal to stop, while `/readyz` already answers 503.
        ///
        /// Load balancers need seconds until they know that this clusterd ends, as the endpoints of Kubernetes do; who
        /// comes meanwhile is served. A second signal ends it at once. It is a part of `drain-timeout`, which counts from the
        /// signal.
        stop_delay: Duration {
            values: duration("0s", "24h"),
            in_force: AtNextStart,
            default: "0s",
        }

        /// Time that a worker has to finish its open connections once it gets no new ones.
        ///
        /// It gets the stop signal as soon as it has none left, and after this time even if some are left.
        drain_timeout: Duration {
            values: duration("1ms", "24h"),
            in_force: AtReload,
            default: "6s",
        }

        /// Whether clients with keep-alive connections are asked to leave a worker that drains.
        ///
        /// Only the client can end such a connection without losing a request. Of all traffic, clusterd changes this one line
        /// in the head of a response, and only while its worker drains.
        drain_http: DrainHttp {
            values: choice::<DrainHttp>(),
            in_force: AtReload,
            default: "auto",
        }

        /// Signal that asks a worker to stop once it has drained.
        ///
        /// A Node worker that has no handler for it is asked to `disconnect` instead, and gets the signal when the drain is
        /// over. With `TERM`, one that has a handler for INT alone gets INT.
        stop_signal: StopSignal {
            values: SignalName,
            in_force: AtReload,
            default: "TERM",
        }

        /// When a worker gets the stop signal: once it has drained, or when its drain begins.
        ///
        /// `drain` is for servers that send their clients away by themselves, as with HTTP/2, gRPC and WebSockets: they need
        /// to know early. A Node worker without a handler for the signal gets it later all the same.
        stop_signal_at: StopSignalAt {
            values: choice::<StopSignalAt>(),
            in_force: AtReload,
            default: "drained",
        }

        /// Send Node workers the message `shutdown` instead of the stop signal.
        ///
        /// They receive it as `process.on('message')`. Workers that are not Node get the signal.
        shutdown_with_message: bool {
            values: Truth,
            in_force: AtReload,
            default: "false",
            not_with: ("attach", "preload"),
        }

        /// Time that a worker has to exit after the stop signal before it is killed.
        ///
        /// If it got the signal when its drain began, the time counts from the end of the drain.
        ///
        /// The default is PM2's. Together with that of `drain-timeout` it stays below the 10 s that container runtimes
        /// usually allow.
        kill_timeout: Duration {
            values: duration("1ms", "24h"),
            in_force: AtReload,
            default: "1600ms",
        }

        /// End with a worker everything that it has started, also what has detached itself.
        ///
        /// What a server leaves in the background, in a session of its own, gets the stop signal when the worker has
        /// ended, and KILL after `kill-timeout`. Without this only the worker's process group ends.
        treekill: bool {
            values: Truth,
            in_force: AtNextStart,
            default: "true",
            negation: "no-treekill",
        }

        /// Number of workers that a reload replaces at a time.
        ///
        /// Until the old ones have left, so many more run than otherwise, and take memory. `auto` is half of them, and two at
        /// least: a worker whose clients stay holds up no other, and all together take two times `drain-timeout` at most.
        reload_parallel: Option<NonZeroU32> {
            values: OrAuto(number(1, MAX_WORKERS as i64)),
            in_force: AtReload,
            default: "auto",
            placeholder: "WORKERS",
        }

        /// Reload at these times, as in crontab(5), such as `"0 3 * * *"`.
        ///
        /// The fields are minute, hour, day of the month, month and day of the week; `"0 3 * * *"` is 03:00 every
        /// day. A sixth field in front is the second. Nicknames such as `@daily` and `@midnight` work. The time is
        /// local: that of the variable `TZ`, or of /etc/localtime. `docs/guide.md` has the rules.
        cron: Option<Schedule> {
            values: OrOff(CRON),
            in_force: AtNextStart,
            default: "off",
        }

        /// Reload when this file, or a file in this folder, changes.
        ///
        /// A folder is watched with everything below it. clusterd reloads when nothing more has changed for 200 ms.
        watch: Vec<PathBuf> {
            values: list(FilePath, "[\"src\", \"app.js\"]"),
            in_force: AtNextStart,
        }

        /// Ignore changes of files that match this pattern, such as `"**/*.log"`.
        ///
        /// `*` and `?` match anything but a slash, `**` any folders, `{a,b}` one of several. A pattern without a slash
        /// matches names at any depth; one with a slash matches paths, below the watched folder or from the root.
        /// `docs/guide.md` lists what is always ignored. In the variable, `{a,b}` cannot be used.
        ignore: Vec<Glob> {
            values: list(PATTERN, "[\"*.md\", \"public/**\"]"),
            in_force: AtNextStart,
            needs: "watch",
        }
    }

    "Health" {
        /// Replace a worker that repeatedly fails to answer GET PATH with a 2xx or 3xx status.
        health_http: Option<Uri> {
            values: OrOff(HTTP_PATH),
            in_force: AtNextStart,
            default: "off",
            not_with: ("accept", "workers"),
        }

        /// Send this header with each probe and each scrape of a worker; repeatable.
        ///
        /// Without one, `Host` is `localhost`, which servers with a list of permitted hosts refuse (Django's
        /// `ALLOWED_HOSTS`, Rails' `config.hosts`): use `"Host: example.com"`. In the variable, a value with a comma
        /// cannot be used.
        probe_header: Vec<ProbeHeader> {
            values: list(HEADER, "[\"Host: example.com\", \"X-Forwarded-Proto: https\"]"),
            in_force: AtNextStart,
        }

        /// Time between two health checks of a worker.
        health_interval: Duration {
            values: duration("1ms", "24h"),
            in_force: AtNextStart,
            default: "10s",
        }

        /// Number of failed health checks in a row after which a worker is replaced.
        health_failures: NonZeroU32 {
            values: number(1, 1000),
            in_force: AtNextStart,
            default: "3",
            placeholder: "TIMES",
        }

        /// Replace a worker that takes no connection for this time while one waits for it.
        ///
        /// Not shorter than `handoff-timeout`.
        stuck_timeout: Option<Duration> {
            values: OrOff(duration("1ms", "24h")),
            in_force: AtNextStart,
            default: "off",
        }
    }

    /// A worker that reaches a limit is replaced; its successor is ready before it stops.
    "Limits" {
        /// Replace a worker whose processes together use more memory than this, such as `512M` or `1.5G`.
        ///
        /// Units are of 1024, however they are written: 1G, 1GB and 1GiB are the same. Memory is checked every second;
        /// memory that several processes share is counted once.
        max_memory: Option<ByteSize> {
            values: OrOff(Memory),
            in_force: AtNextStart,
            default: "off",
        }

        /// Replace a worker that has run for this time, such as `24h` or `7d`.
        ///
        /// Each worker runs for up to a tenth less, so that they are not replaced all at once.
        max_age: Option<Duration> {
            values: OrOff(duration("1s", "30d")),
            in_force: AtNextStart,
            default: "off",
        }

        /// Replace a worker that has been given this number of connections.
        max_connections: Option<NonZeroU32> {
            values: OrOff(number(1, u32::MAX as i64)),
            in_force: AtNextStart,
            default: "off",
            placeholder: "CONNECTIONS",
            not_with: ("accept", "workers"),
        }
    }

    /// Lines of workers are whole, wherever they are written. Of an app in the background they go to files in
    /// `CLUSTERD_HOME/apps/NAME/logs`, and otherwise to clusterd's own standard streams.
    "Logs" {
        /// Write to this file what workers write to stdout.
        ///
        /// `auto` is `out.log` in the app's folder if the app was started in the background, and clusterd's stdout if not.
        /// A folder that is missing is made. `/dev/null` is nowhere. A file is only added to, and rotated.
        out_file: Option<PathBuf> {
            values: OrAuto(FilePath),
            in_force: AtNextStart,
            default: "auto",
            placeholder: "FILE",
        }

        /// Write to this file what workers write to stderr.
        ///
        /// `auto` is `error.log` in the app's folder if the app was started in the background, and clusterd's stderr if not.
        error_file: Option<PathBuf> {
            values: OrAuto(FilePath),
            in_force: AtNextStart,
            default: "auto",
            placeholder: "FILE",
        }

        /// Write to this file both what workers write to stdout and to stderr, beside the others.
        log_file: Option<PathBuf> {
            values: OrOff(FilePath),
            in_force: AtNextStart,
            default: "off",
            placeholder: "FILE",
        }

        /// Write the lines of all workers to the same files.
        ///
        /// Without it, each worker has files of its own: `out-2.log` instead of `out.log` is that of worker 2.
        merge_logs: bool {
            values: Truth,
            in_force: AtNextStart,
            default: "true",
            negation: "no-merge-logs",
        }

        /// Write before each line of a worker when it ended, such as `"YYYY-MM-DD HH:mm:ss.SSS"`.
        ///
        /// The tokens are those of day.js (PM2's): YYYY YY MMMM MMM MM M DD D dddd ddd dd d HH H hh h mm m ss s SSS A a Z
        /// ZZ, and `[text]`. With a percent sign in it, the format is that of strftime(3): `"%F %T"`. The time is local.
        log_date_format: Option<DateFormat> {
            values: OrOff(DATE_FORMAT),
            in_force: AtNextStart,
            default: "off",
        }

        /// Write lines of workers as they come, or each as a JSON object.
        ///
        /// The keys are `message`, `timestamp` (RFC 3339 in UTC, or `log-date-format`), `type` (`out` or `err`),
        /// `process_id` (the id that `clusterd list` shows for the worker), `app_name` and `worker`. `log-format` is for
        /// clusterd's own messages.
        log_type: LogType {
            values: choice::<LogType>(),
            in_force: AtNextStart,
            default: "raw",
        }

        /// Write nothing of what workers write.
        disable_logs: bool {
            values: Truth,
            in_force: AtNextStart,
            default: "false",
        }

        /// Begin another log file when this one would be larger.
        ///
        /// The one before is kept beside it, with the time in its name. `off` leaves that to others, such as logrotate(8).
        log_max_size: Option<ByteSize> {
            values: OrOff(Memory),
            in_force: AtNextStart,
            default: "10M",
        }

        /// Begin another log file when this one has been written for this time, such as `1d`.
        log_max_age: Option<Duration> {
            values: OrOff(duration("1m", "365d")),
            in_force: AtNextStart,
            default: "off",
        }

        /// Number of log files that are kept beside the one that is written.
        log_keep: u32 {
            values: number(0, 10_000),
            in_force: AtNextStart,
            default: "10",
            placeholder: "FILES",
        }

        /// Compress log files that are kept (gzip).
        ///
        /// One thread does so, only with time that no other wants, once no file was begun for 10 seconds.
        log_compress: bool {
            values: Truth,
            in_force: AtNextStart,
            default: "true",
            negation: "no-log-compress",
        }
    }

    "Metrics, messages and events" {
        /// Serve /metrics, /livez and /readyz at this address, and a page at /; a bare port means 127.0.0.1.
        ///
        /// `"0.0.0.0:9090"` is every IPv4 address. The page shows this app live, and elsewhere than on the loopback no more than
        /// /metrics does.
        metrics: Option<SocketAddr> {
            values: OrOff(METRICS),
            in_force: AtNextStart,
            default: "off",
        }

        /// Add the metrics that each worker serves at PATH to /metrics, with the label `worker`.
        scrape: Option<Uri> {
            values: OrOff(HTTP_PATH),
            in_force: AtNextStart,
            default: "off",
            needs: "metrics",
            not_with: ("accept", "workers"),
        }

        /// Count what clients' connections move, and how long they last, for /metrics and the page.
        ///
        /// Bytes received and sent, segments sent again, duration and round-trip time, with the label `worker`. The
        /// kernel knows them: clusterd still touches no byte, and workers do nothing for it. To hear of each connection
        /// that ends takes some CPU time.
        connection_stats: bool {
            values: Truth,
            in_force: AtNextStart,
            default: "false",
            not_with: ("accept", "workers"),
        }

        /// Format of clusterd's own messages, which go to stderr; those of an app in the background, to `clusterd.log`.
        log_format: LogFormat {
            values: choice::<LogFormat>(),
            in_force: AtNextStart,
            default: "text",
        }

        /// Write clusterd's own messages of this level and above.
        log_level: LogLevel {
            values: choice::<LogLevel>(),
            in_force: AtNextStart,
            default: "info",
        }

        /// Run this shell command for each event in a worker's life, with the event as JSON on its input.
        ///
        /// It has `CLUSTERD_EVENT`, `CLUSTERD_APP` and `CLUSTERD_WORKER` in its environment. Nothing waits for it.
        on_event: Option<String> {
            values: OrOff(SHELL_LINE),
            in_force: AtNextStart,
            default: "off",
        }
    }
}

impl Config {
    /// Where the primary listens from the start, no place twice.
    pub(crate) fn listen(&self) -> Vec<Listen> {
        [self.port.as_slice(), &self.bind].concat()
    }

    /// A path that starts from the folder in which clusterd was started. It stays as it is where no name leads there.
    pub(crate) fn in_start_folder(&self, path: &Path) -> PathBuf {
        self.start_folder.as_ref().map_or_else(|| path.to_owned(), |folder| folder.join(path))
    }

    /// What each launch of a worker looks up.
    pub(crate) fn workplace(&self) -> Workplace {
        let folder =
            self.cwd.as_ref().map(|cwd| self.in_start_folder(cwd)).or_else(|| self.start_folder.clone());
        let in_folder =
            |path: &PathBuf| folder.as_ref().map_or_else(|| path.clone(), |folder| folder.join(path));
        Workplace {
            env_files: self.env_file.iter().map(in_folder).collect(),
            variables: self.env.clone(),
            filtered: self.filter_env.clone(),
            instance_var: Some(self.instance_var.clone()),
            increment_var: self.increment_var.clone(),
            folder,
        }
    }
}

/// Every setting, section by section.
pub(crate) fn all() -> impl Iterator<Item = &'static Key> {
    SECTIONS.iter().flat_map(|section| section.keys).copied()
}

/// The setting of this name.
pub(crate) fn named(name: &str) -> Option<&'static Key> {
    all().find(|key| key.name == name)
}

/// Whether a file may have this key.
pub(crate) fn is_known(name: &str) -> bool {
    name == COMMAND || named(name).is_some()
}

/// The file's one key that is no setting of the table: what the workers run, a list of strings.
pub(crate) const COMMAND: &str = "command";

/// What it is for.
pub(crate) const COMMAND_DOC: Doc = Doc(&[
    "What each worker runs: a program, looked up in PATH unless it has a slash, and its arguments.",
    "",
    "A relative path starts from the folder that workers run in (`cwd`). There is no shell: for one, use",
    "`[\"sh\", \"-c\", \"...\"]`. Without a command a small built-in demo runs.",
]);

/// A valid command, as the file has it.
pub(crate) const COMMAND_EXAMPLE: &str = "[\"node\", \"app.js\"]";

/// The environment variable that names the file, as `--config` does.
pub(crate) const CONFIG_VARIABLE: &str = "CLUSTERD_CONFIG";
