//! Databases, caches, queues and brokers. Each launch has its data for itself: here they are servers, not stores.

use super::{Server, servers};

/// PostgreSQL's answer to a session of this user that asks for the client's address.
const POSTGRES_SESSION: &[u8] = b"\0\0\0\x29\0\x03\0\0user\0postgres\0database\0postgres\0\0";

/// It makes its data once and copies them for each launch, becomes its own user, and says by sd_notify when it is ready.
const POSTGRES: &str = r#"
PG=$(ls -d /usr/lib/postgresql/*/bin | tail -n 1)
as="setpriv --reuid=postgres --regid=postgres --clear-groups"
flock {folder}/lock sh -c '[ -d {folder}/data ] || { install -d -o postgres {folder}/data && '"$as $PG/"'initdb \
    -D {folder}/data -A trust --no-sync --no-instructions >/dev/null; }'
cp -a {folder}/data data
exec $as $PG/postgres -D data -p {port} -k '' -c fsync=off -c listen_addresses="$LISTEN"
"#;

fn postgres(listen: &'static str) -> Server {
    Server::of_shell(POSTGRES)
        .env("LISTEN", listen)
        .needs("setpriv")
        .needs_file("/usr/lib/postgresql")
        .in_its_own_folder()
        .options("--wait-ready")
        // AuthenticationOk: what pg_hba.conf says of this client.
        .answers(POSTGRES_SESSION, b"R\0\0\0\x08\0\0\0\0")
}

servers! {
    redis => Server::of("redis-server --port {port} --save").arg("").in_its_own_folder()
        .answers(b"PING\r\n", b"+PONG\r\n").in_ci().accepting_in_ci().intercepted_in_ci();
    redis_of_one_address => Server::of("redis-server --port {port} --bind 127.0.0.1 --save").arg("").in_its_own_folder()
        .answers(b"PING\r\n", b"+PONG\r\n");
    redis_with_threads =>
        Server::of("redis-server --port {port} --io-threads 2 --protected-mode no --bind * --save").arg("")
        .in_its_own_folder().answers(b"PING\r\n", b"+PONG\r\n");
    /// It gives up root before it binds.
    memcached => Server::of("memcached -u nobody -p {port} -U 0").answers(b"version\r\n", b"VERSION ").in_ci();
    memcached_of_two_addresses => Server::of("memcached -u root -l 127.0.0.1,::1 -p {port}")
        .answers(b"version\r\n", b"VERSION ");
    mosquitto => Server::of("mosquitto -p {port}")
        .answers(b"\x10\x0d\0\x04MQTT\x04\x02\0\x3c\0\x01a", b"\x20\x02\0\0");
    /// It gives up root before it binds.
    mosquitto_of_every_address => Server::of("mosquitto -c mosquitto.conf").file("mosquitto.conf", "
listener {port}
allow_anonymous true
").answers(b"\x10\x0d\0\x04MQTT\x04\x02\0\x3c\0\x01a", b"\x20\x02\0\0").in_ci();
    postgres_of_every_address => postgres("*").in_ci();
    postgres_of_localhost => postgres("localhost");
    mariadb => Server::of_shell("flock {folder}/lock sh -c '[ -d {folder}/data ] || mariadb-install-db --no-defaults \
--datadir={folder}/data --user=mysql --auth-root-authentication-method=normal --skip-test-db >/dev/null'; \
cp -a {folder}/data data; exec mariadbd --no-defaults --datadir=$PWD/data --user=mysql --port={port} --socket=$PWD/sock \
--innodb-buffer-pool-size=8M --skip-log-bin")
        .needs("mariadbd").needs("mariadb-install-db").in_its_own_folder().greets(b"MariaDB");
    gearmand => Server::of("gearmand -u nobody -p {port} -l stderr")
        .answers(b"version\n", b"OK ");
    gearmand_of_ipv4 => Server::of("gearmand -u nobody -L 0.0.0.0 -p {port} -l stderr").answers(b"version\n", b"OK ");
    beanstalkd => Server::of("beanstalkd -p {port}").answers(b"stats\r\n", b"OK ");
    tarantool => Server::of("tarantool {folder}/init.lua").file("init.lua", "
box.cfg{ listen = os.getenv('PORT'), log_level = 1, wal_mode = 'none', memtx_memory = 33554432 }
").in_its_own_folder().greets(b"Tarantool ");
    openldap => Server::of("slapd -d 0 -h ldap://:{port}/ -f {folder}/slapd.conf").file("slapd.conf", "
include /etc/ldap/schema/core.schema
modulepath /usr/lib/ldap
moduleload back_ldif
database ldif
suffix \"dc=test\"
directory {folder}
").answers(b"\x30\x0c\x02\x01\x01\x60\x07\x02\x01\x03\x04\0\x80\0", b"\x61\x07\x0a\x01\0");
}
