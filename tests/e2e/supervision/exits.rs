//! An application that ends after each answer: its clients do not notice.

use super::{App, tests};
use crate::harness::setup::Setup;

tests!([python, node, newconn] of_an_app_that_ends_after_each_answer_every_request_is_answered);

fn of_an_app_that_ends_after_each_answer_every_request_is_answered(app: App) {
    let cluster = one_at_a_time(app.setup()).workers(3).start();
    for request in 1..=60 {
        let response =
            cluster.try_get("/last/1").unwrap_or_else(|error| panic!("request {request}: {error}"));
        assert_eq!(response.status, 200, "request {request}");
    }
    cluster.wait_for(3, "online");
    assert_eq!(cluster.metrics().count("clusterd_worker_restarts_total", &[("reason", "crash")]), 60);
}

/// What a server has accepted beside the request that ends it is lost with it, so it accepts nothing beside; Node is
/// like that by nature.
fn one_at_a_time(setup: Setup) -> Setup {
    setup.env("SERVER_SERIAL", "1")
}
