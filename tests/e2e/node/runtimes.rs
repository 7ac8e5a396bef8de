//! What is like Node, and is no worker of its cluster: served through the shim as any other program.

use crate::harness::needs::needs;
use crate::harness::{Cluster, until};
use crate::servers::answer_in_turn;

/// `node:http`, and whether there is anything of a cluster to be seen.
const HTTP: &str = "
    const { createServer } = require('node:http');
    const alone = process.env.NODE_UNIQUE_ID === undefined && process.env.NODE_CHANNEL_FD === undefined;
    createServer((request, response) => response.end(`worker ${process.env.CLUSTERD_WORKER_ID} ${alone}`))
        .listen(process.env.PORT);
";

#[test]
fn bun_serves_node_http() {
    needs!("bun");
    let cluster = Cluster::of("bun app.js").file("app.js", HTTP).taking_turns().start();
    answer_in_turn(&cluster);
    assert!(cluster.get("/").ends_with(" true"), "the channel is not announced");
    assert!(!cluster.stderr.text().contains("Node channel"), "{}", cluster.stderr.text());
}

#[test]
fn deno_serve_without_permission_to_read_the_environment() {
    needs!("deno");
    let app = "export default { fetch: () => new Response('hello of deno') };";
    let cluster = Cluster::of("deno serve --port {port} app.ts").file("app.ts", app).workers(2).start();
    for _ in 0..4 {
        assert_eq!(cluster.get("/"), "hello of deno");
    }
}

#[test]
fn deno_that_may_read_some_of_the_environment() {
    needs!("deno");
    let app = "Deno.serve({ port: Number(Deno.env.get('PORT')) }, () => new Response('hello of deno'));";
    let cluster =
        Cluster::of("deno run --allow-net --allow-env=PORT app.ts").file("app.ts", app).workers(2).start();
    assert_eq!(cluster.get("/"), "hello of deno");
}

/// It is the primary of a cluster itself, which a cluster worker cannot be.
#[test]
fn pm2_runtime_is_a_primary_in_each_worker() {
    needs!("pm2-runtime");
    for mode in ["", " -i 2"] {
        let cluster = Cluster::of(&format!("pm2-runtime start app.js{mode}"))
            .file("app.js", &HTTP.replace("${alone}", "served"))
            .env("PM2_HOME", "pm2")
            .env("PM2_DISCRETE_MODE", "true")
            .start();
        assert_eq!(cluster.get("/"), "worker 1 served");
    }
}

/// A program that does not speak as Node does keeps its channel and its connections.
#[test]
fn bytes_that_are_no_message_end_nobody() {
    needs!("node");
    let app = "
        const http = require('node:http');
        const server = http.createServer((request, response) => response.end(`pid ${process.pid}`));
        server.listen(process.env.PORT, () => require('node:fs').writeSync(3, '\\x02{}\\n'));
    ";
    let cluster = Cluster::of("node app.js").file("app.js", app).start();
    until("clusterd says what it makes of it", || {
        cluster.stderr.text().contains("ignoring the worker's Node channel from now on").then_some(())
    });
    let before = cluster.get("/");
    for _ in 0..5 {
        assert_eq!(cluster.get("/"), before, "the same process serves on");
    }
    assert_eq!(cluster.stderr.text().matches("ignoring the worker's Node channel").count(), 1);
}
