//! Mail, files, names, chat, shells: what else listens on a Debian machine.

use super::{Server, servers};

servers! {
    dovecot => Server::of_shell("sed s,OWN,$PWD, {folder}/dovecot.conf > conf && exec dovecot -F -c $PWD/conf").needs("dovecot")
        .in_its_own_folder().file("dovecot.conf", "
protocols = imap
ssl = no
base_dir = OWN/run
log_path = /dev/stderr
import_environment = $import_environment LD_PRELOAD CLUSTERD_ATTACH_SOCKET CLUSTERD_ATTACH_TOKEN \
  CLUSTERD_ATTACH_PORTS WITNESS_PORT
service imap-login {
  chroot =
  inet_listener imap {
    port = {port}
  }
}
passdb {
  driver = static
  args = nopassword=y
}
").greets(b"* OK ");
    exim => Server::of_shell("exec exim4 -bdf -C {folder}/exim.conf -DOWN=$PWD -oX {port}").needs("exim4")
        .in_its_own_folder().file("exim.conf", "
spool_directory = OWN
log_file_path = OWN/%slog
keep_environment = ^LD_PRELOAD : ^CLUSTERD : ^WITNESS
").greets(b"220 ");
    /// One process for each connection.
    proftpd => Server::of_shell("sed s,OWN,$PWD, {folder}/proftpd.conf > conf && exec proftpd -n -c $PWD/conf").needs("proftpd")
        .in_its_own_folder().file("proftpd.conf", "
ServerType standalone
Port {port}
User nobody
Group nogroup
PidFile OWN/proftpd.pid
ScoreboardFile none
DelayEngine off
UseIPv6 on
").greets(b"220 ");
    pure_ftpd => Server::of("pure-ftpd -S {port} -g {folder}/pure.pid -E").greets(b"220");
    vsftpd => Server::of("vsftpd {folder}/vsftpd.conf").file("vsftpd.conf", "
listen=YES
listen_port={port}
background=NO
anonymous_enable=YES
secure_chroot_dir={folder}
seccomp_sandbox=NO
").greets(b"220 ");
    vsftpd_of_both_families => Server::of("vsftpd {folder}/vsftpd.conf").file("vsftpd.conf", "
listen=NO
listen_ipv6=YES
listen_port={port}
background=NO
anonymous_enable=YES
secure_chroot_dir={folder}
seccomp_sandbox=NO
").greets(b"220 ");
    /// It executes itself again for each connection.
    sshd => Server::of_shell("mkdir -p /run/sshd; ssh-keygen -q -t ed25519 -N '' -f key; \
exec /usr/sbin/sshd -D -e -p {port} -f /dev/null -h $PWD/key -o PidFile=none -o MaxStartups=100")
        .needs_file("/usr/sbin/sshd").in_its_own_folder().greets(b"SSH-2.0-OpenSSH");
    dropbear => Server::of_shell("dropbearkey -t ed25519 -f key >/dev/null 2>&1; exec dropbear -F -E -p {port} -r key -P pid")
        .needs("dropbear").needs("dropbearkey").in_its_own_folder().greets(b"SSH-2.0-dropbear");
    tinysshd_below_tcpsvd => Server::of_shell("tinysshd-makekey -q keys; exec tcpsvd -E 0 {port} tinysshd $PWD/keys")
        .needs("tinysshd").needs("tcpsvd").in_its_own_folder().greets(b"SSH-2.0-tinyssh");
    rsync => Server::of("rsync --daemon --no-detach --port={port} --config=rsync.conf").file("rsync.conf", "
use chroot = no
[files]
path = {folder}
").greets(b"@RSYNCD: ");
    distcc => Server::of("distccd --no-detach --daemon --enable-tcp-insecure --port {port} --allow 127.0.0.1 --allow ::1 --log-stderr")
        .arg("--user").arg("nobody").answers(
        b"DIST00000001ARGC00000005ARGV00000002ccARGV00000002-cARGV00000003a.cARGV00000002-oARGV00000003a.oDOTI00000000",
        b"DONE00000001STAT",
    );
    subversion => Server::of("svnserve -d --foreground --listen-port {port} -r .").greets(b"( success ");
    git => Server::of_shell("git init -q --bare repo.git; touch repo.git/git-daemon-export-ok; \
exec git daemon --port={port} --base-path=$PWD --reuseaddr")
        .needs_file("/usr/lib/git-core/git-daemon").in_its_own_folder()
        .answers(b"0025git-upload-pack /repo.git\0host=a\0", b"0000");
    bind => Server::of_shell("exec named -f -c {folder}/named.conf -p {port} -n 1").needs("named").in_its_own_folder()
        .file("named.conf", "
options {
    directory \".\";
    pid-file none;
    session-keyfile none;
    lock-file none;
    listen-on { 127.0.0.1; };
    listen-on-v6 { none; };
    recursion no;
    dnssec-validation no;
};
controls { };
").answers(VERSION_BIND, VERSION_ANSWER);
    unbound => Server::of("unbound -d -c unbound.conf").file("unbound.conf", "
server:
    interface: 127.0.0.1@{port}
    interface: ::1@{port}
    do-udp: no
    do-daemonize: no
    use-syslog: no
    username: \"\"
    chroot: \"\"
    pidfile: \"\"
    local-zone: test. static
    local-data: \"a.test. A 192.0.2.1\"
remote-control:
    control-enable: no
").answers(A_TEST, b"\xc0\0\x02\x01");
    dnsmasq => Server::of("dnsmasq -k -C /dev/null -p {port} -u root -R -h -A /a.test/192.0.2.1")
        .answers(A_TEST, b"\xc0\0\x02\x01");
    ngircd => Server::of("ngircd -n -f ngircd.conf").file("ngircd.conf", "
[Global]
Name = irc.test
Info = test
Listen = ::,0.0.0.0
Ports = {port}
ServerUID = nobody
ServerGID = nogroup
MotdPhrase = hello
[Options]
PAM = no
DNS = no
Ident = no
").answers(b"CAP LS\r\n", b"CAP * LS");
    inspircd => Server::of("inspircd --nofork --nopid --config {folder}/inspircd.conf --runasroot").file("inspircd.conf", r#"
<server name="irc.test" description="test" network="test" id="1AA">
<admin name="a" nick="a" email="a@test">
<bind address="*" port="{port}" type="clients">
<connect allow="*" resolvehostnames="no">
"#).answers(b"PING a\r\n", b" 451 ");
    bitlbee => Server::of("bitlbee -F -n -p {port} -i 0.0.0.0 -d . -c /dev/null").greets(b"NOTICE");
    /// It asks who its client is: SO_PASSCRED on the listener.
    mpd => Server::of("mpd --no-daemon --stdout {folder}/mpd.conf").in_its_own_folder().file("mpd.conf", "
bind_to_address \"any\"
port \"{port}\"
audio_output {
    type \"null\"
    name \"none\"
}
").greets(b"OK MPD ").in_ci();
    dict => Server::of("dictd -d nodetach -p {port} -c {folder}/dict.conf --locale C").file("dict.conf", "
access {
  allow *
}
database none { data /dev/null index /dev/null }
").greets(b"220 ");
    socat => Server::of("socat TCP-LISTEN:{port},fork,reuseaddr PIPE").answers(b"echo", b"echo").in_ci();
    socat_of_both_families => Server::of("socat TCP6-LISTEN:{port},fork,reuseaddr,ipv6only=0 EXEC:cat")
        .answers(b"echo", b"echo");
    ncat => Server::of("ncat -lk {port} -e /bin/cat").answers(b"echo", b"echo");
    tcpserver => Server::of("tcpserver -RHl0 0 {port} cat").answers(b"echo", b"echo");
    tcpsvd => Server::of("tcpsvd -E 0 {port} cat").answers(b"echo", b"echo");
    xinetd => Server::of("xinetd -dontfork -f {folder}/xinetd.conf").file("xinetd.conf", "
service echo
{
    type = UNLISTED
    port = {port}
    socket_type = stream
    protocol = tcp
    wait = no
    user = root
    server = /bin/cat
    flags = IPv4
    instances = UNLIMITED
    cps = 10000 1
}
").answers(b"echo", b"echo");
    inetd => Server::of("inetutils-inetd -d {folder}/inetd.conf").file("inetd.conf", "
{port} stream tcp nowait root /bin/cat cat
").answers(b"echo", b"echo");
    microsocks => Server::of("microsocks -i 0.0.0.0 -p {port}").answers(b"\x05\x01\0", b"\x05\0");
}

/// TXT version.bind in class CHAOS, over TCP.
const VERSION_BIND: &[u8] = b"\0\x1e\0\x01\0\0\0\x01\0\0\0\0\0\0\x07version\x04bind\0\0\x10\0\x03";
const VERSION_ANSWER: &[u8] = b"\0\x10\0\x03\xc0\x0c";
/// A of a.test, over TCP.
const A_TEST: &[u8] = b"\0\x18\0\x01\0\0\0\x01\0\0\0\0\0\0\x01a\x04test\0\0\x01\0\x01";
