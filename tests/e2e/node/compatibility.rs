//! What an application sees under clusterd is what it sees under Node's own primary.

use super::case::Case;
use super::{Attach, both_ways};
use crate::harness::needs::{self, needs};

both_ways!(
    a_worker_is_told_the_same_about_itself,
    a_server_has_the_same_address_and_clients,
    listening_fails_with_the_same_errors,
    port_0_gives_the_same_ports_to_every_worker,
    unix_paths_are_served_with_their_permissions,
    abstract_unix_sockets_are_served,
    a_unix_path_may_be_too_long_when_it_is_absolute,
    a_link_local_address_has_its_interface,
    a_descriptor_that_is_no_listener_is_refused,
    a_server_learns_what_has_become_of_a_connection_that_it_sent_away,
    an_exclusive_port_stays_with_its_worker,
    a_served_port_can_be_closed_and_listened_on_again,
    a_port_opened_on_demand_can_be_closed_and_listened_on_again,
    shared_sockets_can_be_closed_and_listened_on_again,
    several_served_ports_in_a_worker,
    several_ports_opened_on_demand_in_a_worker,
    one_address_is_served_there_and_nowhere_else,
    https_resumes_sessions_in_any_worker,
    http2_with_tls_and_without,
    a_plain_tcp_server,
    a_plain_tcp_server_whose_workers_accept,
    a_server_has_the_same_address_and_clients_when_workers_accept,
    ports_at_which_workers_accept,
    port_0_at_which_workers_accept,
    one_address_at_which_workers_accept,
    https_when_workers_accept,
    a_worker_that_disconnects_ends_as_under_node_when_workers_accept,
    a_server_of_datagrams,
    an_application_of_modules,
    an_application_that_would_make_a_cluster_of_itself,
    a_worker_that_disconnects_ends_as_under_node,
    a_worker_that_kills_itself_ends_as_under_node,
    a_process_that_disconnects_ends_as_under_node,
);

#[track_caller]
fn same(attach: Attach, app: &str) {
    Case::of(app).assert_same(attach);
}

fn a_worker_is_told_the_same_about_itself(attach: Attach) {
    Case::of("identity.js").workers(3).assert_same(attach);
}

fn a_server_has_the_same_address_and_clients(attach: Attach) {
    same(attach, "http.js");
}

fn listening_fails_with_the_same_errors(attach: Attach) {
    same(attach, "errors.js");
}

fn port_0_gives_the_same_ports_to_every_worker(attach: Attach) {
    same(attach, "any_port.js");
}

fn unix_paths_are_served_with_their_permissions(attach: Attach) {
    same(attach, "unix.js");
}

fn abstract_unix_sockets_are_served(attach: Attach) {
    same(attach, "abstract.js");
}

fn a_unix_path_may_be_too_long_when_it_is_absolute(attach: Attach) {
    same(attach, "long_path.js");
}

fn a_link_local_address_has_its_interface(attach: Attach) {
    same(attach, "link_local.js");
}

fn a_descriptor_that_is_no_listener_is_refused(attach: Attach) {
    same(attach, "descriptor.js");
}

fn a_server_learns_what_has_become_of_a_connection_that_it_sent_away(attach: Attach) {
    same(attach, "sent_sockets.js");
}

fn an_exclusive_port_stays_with_its_worker(attach: Attach) {
    same(attach, "exclusive.js");
}

fn a_served_port_can_be_closed_and_listened_on_again(attach: Attach) {
    same(attach, "close_and_listen.js");
}

fn a_port_opened_on_demand_can_be_closed_and_listened_on_again(attach: Attach) {
    Case::of("close_and_listen.js").serving(&[9]).assert_same(attach);
}

fn shared_sockets_can_be_closed_and_listened_on_again(attach: Attach) {
    Case::of("again.js").workers(1).assert_same(attach);
}

fn several_served_ports_in_a_worker(attach: Attach) {
    Case::of("two_ports.js").serving(&[0, 1, 2]).assert_same(attach);
}

fn several_ports_opened_on_demand_in_a_worker(attach: Attach) {
    Case::of("two_ports.js").serving(&[9]).assert_same(attach);
}

/// clusterd serves its own ports on every address, so these are opened on demand.
fn one_address_is_served_there_and_nowhere_else(attach: Attach) {
    if needs::ipv6() {
        Case::of("addresses.js").serving(&[9]).assert_same(attach);
    }
}

fn https_resumes_sessions_in_any_worker(attach: Attach) {
    needs!("openssl");
    same(attach, "https.js");
}

fn http2_with_tls_and_without(attach: Attach) {
    needs!("openssl");
    same(attach, "http2.js");
}

fn a_plain_tcp_server(attach: Attach) {
    same(attach, "net_echo.js");
}

/// With one worker unless it does not matter who answers: that is by chance.
fn sharing(app: &str) -> Case {
    Case::of(app).workers(1).env("NODE_CLUSTER_SCHED_POLICY", "none")
}

fn a_plain_tcp_server_whose_workers_accept(attach: Attach) {
    sharing("net_echo.js").workers(2).assert_same(attach);
}

fn a_server_has_the_same_address_and_clients_when_workers_accept(attach: Attach) {
    sharing("http.js").assert_same(attach);
}

fn ports_at_which_workers_accept(attach: Attach) {
    for served in [&[0, 1, 2][..], &[9]] {
        sharing("two_ports.js").serving(served).assert_same(attach);
        sharing("close_and_listen.js").serving(served).assert_same(attach);
    }
}

fn port_0_at_which_workers_accept(attach: Attach) {
    sharing("any_port.js").assert_same(attach);
}

fn one_address_at_which_workers_accept(attach: Attach) {
    if needs::ipv6() {
        sharing("addresses.js").serving(&[9]).assert_same(attach);
    }
}

fn https_when_workers_accept(attach: Attach) {
    needs!("openssl");
    sharing("https.js").assert_same(attach);
}

fn a_worker_that_disconnects_ends_as_under_node_when_workers_accept(attach: Attach) {
    sharing("leave.js").client_first().env("CASE_WAY", "worker.disconnect").assert_same(attach);
}

fn a_server_of_datagrams(attach: Attach) {
    same(attach, "udp.js");
}

fn an_application_of_modules(attach: Attach) {
    same(attach, "esm.mjs");
}

fn an_application_that_would_make_a_cluster_of_itself(attach: Attach) {
    same(attach, "own_cluster.js");
}

#[track_caller]
fn leaves_as_under_node(attach: Attach, way: &str) {
    Case::of("leave.js").workers(1).client_first().env("CASE_WAY", way).assert_same(attach);
}

fn a_worker_that_disconnects_ends_as_under_node(attach: Attach) {
    leaves_as_under_node(attach, "worker.disconnect");
}

fn a_worker_that_kills_itself_ends_as_under_node(attach: Attach) {
    leaves_as_under_node(attach, "worker.kill");
}

fn a_process_that_disconnects_ends_as_under_node(attach: Attach) {
    leaves_as_under_node(attach, "process.disconnect");
}
