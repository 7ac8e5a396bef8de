//! Node below another program: the channel reaches it, or the shim serves it, and each connection is counted once.

use crate::harness::Cluster;
use crate::harness::needs::needs;
use crate::harness::ports::free_ports;
use crate::servers::answer_in_turn;

#[test]
fn a_shell_that_becomes_the_server_carries_the_channel_through() {
    needs!("node");
    let script = "echo started; exec node {fixtures}/node/app.js";
    let cluster = Cluster::of("sh -c").arg(script).taking_turns().start();
    answer_in_turn(&cluster);
    cluster.get("/send/a-message");
}

#[test]
fn a_shell_that_runs_programs_one_after_the_other_keeps_the_channel_and_the_shim_serves() {
    needs!("node");
    let script = "node -p 1; node {fixtures}/node/app.js; true";
    answer_in_turn(&Cluster::of("sh -c").arg(script).taking_turns().start());
}

/// Deno speaks the protocol, but takes no listener that it is sent: its connections come one by one.
#[test]
fn deno_is_a_cluster_worker_as_node_is() {
    needs!("deno");
    let app = "const c = require('node:cluster'), h = require('node:http'); \
               h.createServer((q, r) => r.end('worker ' + process.env.CLUSTERD_WORKER_ID + ' ' + c.isWorker)) \
               .listen(process.env.PORT);";
    let cluster = Cluster::of("deno run -A {folder}/app.cjs").file("app.cjs", app).taking_turns().start();
    assert!(cluster.get("/").ends_with(" true"));
    answer_in_turn(&Cluster::of("deno run -A {folder}/app.cjs").file("app.cjs", app).taking_turns().start());
}

#[test]
fn env_carries_the_channel_through() {
    needs!("node");
    let cluster = Cluster::of("env COLOUR=blue node {fixtures}/node/app.js").taking_turns().start();
    answer_in_turn(&cluster);
    cluster.get("/send/a-message");
}

#[test]
fn a_wrapper_that_closes_the_channel_does_no_harm() {
    needs!("node", "python3");
    let script = "import subprocess, sys; sys.exit(subprocess.call(['node', '{fixtures}/node/app.js']))";
    answer_in_turn(&Cluster::of("python3 -c").arg(script).taking_turns().start());
}

#[test]
fn npm_start_takes_the_channel_and_the_shim_serves() {
    needs!("npm", "node");
    let package = r#"{ "name": "app", "version": "1.0.0", "scripts": { "start": "node server.js" } }"#;
    let cluster = Cluster::of("npm start")
        .file("package.json", package)
        .file("server.js", include_str!("../fixtures/node/app.js"))
        .env("npm_config_update_notifier", "false");
    answer_in_turn(&cluster.taking_turns().start());
}

#[test]
fn node_watch_takes_the_channel_and_the_shim_serves() {
    needs!("node");
    answer_in_turn(&Cluster::of("node --watch {fixtures}/node/app.js").taking_turns().start());
}

#[test]
fn a_launcher_that_forks_the_server_keeps_the_channel_and_the_shim_serves() {
    needs!("node");
    let launcher = "require('node:child_process').fork('app.js');";
    let cluster = Cluster::of("node launcher.js").file("launcher.js", launcher);
    answer_in_turn(&cluster.file("app.js", include_str!("../fixtures/node/app.js")).taking_turns().start());
}

/// As under Node's own primary, so that one does not keep the debugger from the others.
#[test]
fn each_worker_waits_for_a_debugger_on_a_port_of_its_own() {
    needs!("node");
    let app = "
        const url = new URL(require('node:inspector').url() ?? 'ws://none:1');
        require('node:http').createServer((_, response) => response.end(url.port)).listen(process.env.PORT);
    ";
    let first = free_ports(4);
    let own = Cluster::of(&format!("node --inspect=127.0.0.1:{first} app.js")).file("app.js", app).workers(2);
    let options = format!("--inspect={}", first + 2);
    let from_environment =
        Cluster::of("node app.js").file("app.js", app).workers(2).env("NODE_OPTIONS", options);
    for (setup, first) in [(own, first), (from_environment, first + 2)] {
        let cluster = setup.start();
        let mut ports = [cluster.get("/"), cluster.get("/")];
        ports.sort();
        assert_eq!(ports, [first.to_string(), (first + 1).to_string()]);
    }
}
