//! Who is compared: what each is, what it needs, and the commands that start it; it runs none of them.

use std::process::Command;

use rustix::process::Signal;

use crate::application::{self, Application};
use crate::place::{self, Place};

const NODE_CLUSTER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/reload/cluster.js");

/// How connections reach the workers.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Way {
    /// clusterd, with these flags.
    Clusterd(&'static [&'static str]),
    /// One process, and nothing before it.
    Alone,
    /// Processes that share a port by SO_REUSEPORT.
    ReusePort,
    /// Node's cluster, with this policy (`NODE_CLUSTER_SCHED_POLICY`).
    NodeCluster(&'static str),
    Pm2,
    NginxStream,
    NginxHttp,
    Haproxy,
    /// The server's own workers.
    Own,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Contender {
    pub(crate) name: &'static str,
    pub(crate) application: Application,
    pub(crate) way: Way,
    /// What it is, in a table.
    pub(crate) says: &'static str,
}

const fn contender(name: &'static str, application: Application, way: Way, says: &'static str) -> Contender {
    Contender { name, application, way, says }
}

/// clusterd comes first of each application: the others are shown as multiples of it.
pub(crate) const ALL: &[Contender] = &{
    use Application::{C, Go, Gunicorn, Node, Puma, Uvicorn};
    use Way::{Alone, Clusterd, Haproxy, NginxHttp, NginxStream, NodeCluster, Own, Pm2, ReusePort};
    const PRELOAD: &[&str] = &["--attach", "preload", "--accept", "primary"];
    const BATCH: &[&str] = &["--attach", "preload", "--accept", "primary", "--cpu-scheduling", "batch"];
    const NODE_BATCH: &[&str] = &["--cpu-scheduling", "batch"];
    const SHARED: &[&str] = &["--accept", "workers"];
    const SECCOMP: &[&str] = &["--attach", "seccomp"];
    [
        contender("clusterd", C, Clusterd(PRELOAD), "clusterd accepts, by the preloaded shim"),
        contender("reuseport", C, ReusePort, "processes that share the port by SO_REUSEPORT"),
        contender("clusterd-node", Node, Clusterd(&[]), "clusterd as it is without flags"),
        contender("node-rr", Node, NodeCluster("rr"), "Node's cluster, SCHED_RR"),
        contender("nginx-stream", C, NginxStream, "nginx passes TCP on to the same processes"),
        contender("clusterd-shared", C, Clusterd(SHARED), "clusterd; workers accept"),
        contender("clusterd-seccomp", C, Clusterd(SECCOMP), "clusterd; workers accept, by seccomp"),
        contender("clusterd-batch", C, Clusterd(BATCH), "clusterd accepts; workers have SCHED_BATCH"),
        contender("single", C, Alone, "one process alone"),
        contender("nginx-http", C, NginxHttp, "nginx passes requests on to the same processes"),
        contender("haproxy", C, Haproxy, "HAProxy passes requests on to the same processes"),
        contender("clusterd-node-ipc", Node, Clusterd(&["--attach", "node"]), "clusterd, by Node's channel"),
        contender("node-none", Node, NodeCluster("none"), "Node's cluster, SCHED_NONE"),
        contender("clusterd-node-batch", Node, Clusterd(NODE_BATCH), "clusterd; workers have SCHED_BATCH"),
        contender("nginx-node", Node, NginxStream, "nginx passes TCP on to the same processes"),
        contender("pm2", Node, Pm2, "PM2's cluster mode, without its daemon (pm2-runtime)"),
        contender("single-node", Node, Alone, "one process alone"),
        contender("clusterd-go", Go, Clusterd(&[]), "clusterd; workers accept, as Go always does"),
        contender("go", Go, Alone, "one process alone, which uses all CPUs itself"),
        contender("clusterd-gunicorn", Gunicorn, Clusterd(&[]), "clusterd; each worker is a gunicorn of one"),
        contender("gunicorn", Gunicorn, Own, "gunicorn's own workers"),
        contender("clusterd-uvicorn", Uvicorn, Clusterd(&[]), "clusterd; each worker is a uvicorn of one"),
        contender("uvicorn", Uvicorn, Own, "uvicorn's own workers"),
        contender("clusterd-puma", Puma, Clusterd(&[]), "clusterd; each worker is a puma of one"),
        contender("puma", Puma, Own, "puma's own workers"),
    ]
};

/// How a contender is told to replace its workers.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Reload {
    Signal(Signal),
    Command(&'static [&'static str]),
    /// It cannot do that by itself.
    None,
}

/// The commands of one contender, not yet started.
pub(crate) struct Commands {
    /// What is before the workers, or what starts them.
    pub(crate) front: Option<Command>,
    /// Whether all that `front` starts belongs to the front.
    pub(crate) is_proxy: bool,
    pub(crate) servers: Vec<Command>,
    /// Where the servers listen that are to be waited for before the front is started: a proxy turns to others for a while
    /// when one refuses it.
    pub(crate) listen_first: Vec<u16>,
}

impl Contender {
    /// The programs that have to be installed.
    pub(crate) fn needs(&self) -> Vec<&'static str> {
        let front = match self.way {
            Way::NginxStream | Way::NginxHttp => Some("nginx"),
            Way::Haproxy => Some("haproxy"),
            Way::Pm2 => Some("pm2-runtime"),
            _ => None,
        };
        front.into_iter().chain([self.application.program()]).collect()
    }

    /// How many workers it has, where so many are asked for.
    pub(crate) fn workers(&self, asked: usize) -> usize {
        if matches!(self.way, Way::Alone) { 1 } else { asked }
    }

    pub(crate) fn reload(&self) -> Reload {
        match (self.way, self.application) {
            (Way::Clusterd(_) | Way::NodeCluster(_), _)
            | (Way::Own, Application::Gunicorn | Application::Uvicorn) => Reload::Signal(Signal::HUP),
            (Way::Own, _) => Reload::Signal(Signal::USR1),
            (Way::Pm2, _) => Reload::Command(&["pm2", "--silent", "reload", "all"]),
            _ => Reload::None,
        }
    }

    pub(crate) fn commands(&self, place: &Place, port: u16, workers: usize) -> anyhow::Result<Commands> {
        let servers = |servers| Commands { front: None, is_proxy: false, servers, listen_first: Vec::new() };
        let starts = |front| Commands { front: Some(front), ..servers(Vec::new()) };
        Ok(match self.way {
            Way::Clusterd(flags) => starts(self.clusterd(place, port, workers, flags)?),
            Way::Alone => servers(vec![self.server(place, port)?]),
            Way::ReusePort => {
                let mut all =
                    (0..workers).map(|_| self.server(place, port)).collect::<anyhow::Result<Vec<_>>>()?;
                for server in &mut all {
                    server.env("REUSEPORT", "1");
                }
                servers(all)
            }
            Way::NodeCluster(policy) => {
                let server = self.application.source("server.js");
                let words = ["node".to_owned(), NODE_CLUSTER.to_owned(), workers.to_string(), server];
                let mut command = command(place, &words, port);
                command.env("NODE_CLUSTER_SCHED_POLICY", policy);
                starts(command)
            }
            Way::Pm2 => starts(self.pm2(place, port, workers)),
            Way::Own => starts(command(place, &self.own(port, workers), port)),
            Way::NginxStream | Way::NginxHttp | Way::Haproxy => self.proxy(place, port, workers)?,
        })
    }

    fn server(&self, place: &Place, port: u16) -> anyhow::Result<Command> {
        Ok(command(place, &self.application.command(place, port)?, port))
    }

    fn clusterd(&self, place: &Place, port: u16, workers: usize, flags: &[&str]) -> anyhow::Result<Command> {
        let mut words = vec![place.clusterd().to_owned()];
        words.extend(["--bind".to_owned(), format!("127.0.0.1:{port}"), "--workers".to_owned()]);
        words.extend([workers.to_string(), "--log-level".to_owned(), "error".to_owned()]);
        words.extend(flags.iter().map(|&flag| flag.to_owned()));
        words.push("--".to_owned());
        words.extend(self.application.command(place, port)?);
        let mut command = command(place, &words, port);
        command.env("CLUSTERD_HOME", place.folder().join(format!("home-{port}")));
        Ok(command)
    }

    fn pm2(&self, place: &Place, port: u16, workers: usize) -> Command {
        let words =
            ["pm2-runtime", "start", &self.application.source("server.js"), "-i", &workers.to_string()];
        let mut command = command(place, &words.map(str::to_owned), port);
        command.env("PM2_HOME", place.pm2_home(port));
        command
    }

    fn own(&self, port: u16, workers: usize) -> Vec<String> {
        match self.application {
            Application::Gunicorn => application::gunicorn(port, workers),
            Application::Uvicorn => application::uvicorn(port, workers),
            _ => application::puma(port, &["-w", &workers.to_string()]),
        }
    }

    /// Servers with a port each, and what passes on to them.
    fn proxy(&self, place: &Place, port: u16, workers: usize) -> anyhow::Result<Commands> {
        let ports = (0..workers).map(|_| place::free_port()).collect::<anyhow::Result<Vec<_>>>()?;
        let servers = ports.iter().map(|&port| self.server(place, port)).collect::<anyhow::Result<_>>()?;
        let (words, text): (&[&str], _) = match self.way {
            Way::Haproxy => (&["haproxy", "-db", "-f"], haproxy(port, &ports)),
            way => (&["nginx", "-e", "stderr", "-c"], nginx(place, way, port, &ports)),
        };
        let file = place.write(&format!("{}-{port}.conf", self.name), &text)?;
        let mut words: Vec<_> = words.iter().map(|&word| word.to_owned()).collect();
        words.push(file.display().to_string());
        let front = Some(command(place, &words, port));
        Ok(Commands { front, is_proxy: true, servers, listen_first: ports })
    }
}

fn command(place: &Place, words: &[String], port: u16) -> Command {
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).current_dir(place.folder());
    // Nothing of whoever runs this decides how contenders run.
    for variable in ["NODE_OPTIONS", "NODE_CLUSTER_SCHED_POLICY", "WEB_CONCURRENCY", "REUSEPORT"] {
        command.env_remove(variable);
    }
    command.env("PATH", place.path()).env("PORT", port.to_string()).env("NODE_ENV", "production");
    command
}

/// As many workers as there are CPUs, and connections to servers kept, both as its guide has it.
fn nginx(place: &Place, way: Way, port: u16, ports: &[u16]) -> String {
    let folder = place.folder().display();
    let servers: String = ports.iter().map(|port| format!("server 127.0.0.1:{port}; ")).collect();
    let module = place.nginx_stream_module().filter(|_| matches!(way, Way::NginxStream));
    let module = module.map(|module| format!("load_module {};\n", module.display())).unwrap_or_default();
    // As root, its workers would have another user, who may not enter the folder.
    let user = if rustix::process::geteuid().is_root() { "user root;\n" } else { "" };
    let listen = format!("listen 127.0.0.1:{port} backlog=4096;");
    let rest = match way {
        Way::NginxStream => {
            format!("stream {{ upstream app {{ {servers}}} server {{ {listen} proxy_pass app; }} }}")
        }
        _ => format!(
            "http {{ access_log off; upstream app {{ {servers}keepalive 64; }} server {{ {listen} location / {{ \
             proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection \"\"; }} }} {} }}",
            ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
                .map(|kind| format!("{kind}_temp_path {folder}/nginx-{kind};"))
                .join(" ")
        ),
    };
    format!(
        "{module}{user}daemon off;\npid {folder}/nginx-{port}.pid;\nerror_log stderr error;\nworker_processes auto;\n\
         worker_rlimit_nofile 16384;\nevents {{ worker_connections 8192; }}\n{rest}\n"
    )
}

fn haproxy(port: u16, ports: &[u16]) -> String {
    let server = |port: &u16| format!("  server s{port} 127.0.0.1:{port}\n");
    let servers: String = ports.iter().map(server).collect();
    format!(
        "global\n  maxconn 8192\ndefaults\n  mode http\n  timeout connect 5s\n  timeout client 30s\n  \
         timeout server 30s\nfrontend clients\n  bind 127.0.0.1:{port} backlog 4096\n  default_backend app\n\
         backend app\n  balance roundrobin\n{servers}"
    )
}
