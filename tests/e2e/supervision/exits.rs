//! An application that ends after each answer: its clients do not notice.

use super::{App, tests};
use crate::harness::setup::Setup;
use crate::harness::until;

tests!([python, node, newconn] of_an_app_that_ends_after_each_answer_every_request_is_answered);

const REQUESTS: u64 = 60;

fn of_an_app_that_ends_after_each_answer_every_request_is_answered(app: App) {
    let cluster = one_at_a_time(app.setup()).workers(3).start();
    for request in 1..=REQUESTS {
        let response =
            cluster.try_get("/last/1").unwrap_or_else(|error| panic!("request {request}: {error}"));
        assert_eq!(response.status, 200, "request {request}");
    }
    until("each end is counted", || {
        let ends = cluster.metrics().count("clusterd_worker_restarts_total", &[("reason", "crash")]);
        (ends == REQUESTS).then_some(())
    });
    cluster.wait_for(3, "online");
}

/// What a server has accepted beside the request that ends it is lost with it, so it accepts nothing beside; Node is
/// like that by nature.
fn one_at_a_time(setup: Setup) -> Setup {
    setup.env("SERVER_SERIAL", "1")
}
