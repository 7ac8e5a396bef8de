//! The page of `clusterd web` and of `--metrics`, in a real browser.
//!
//! What is checked, sentence by sentence, stands in the scripts of `fixtures/web`. Where they need what no clusterd does in
//! time, `feed.mjs` plays the server. With CLUSTERD_TEST_PICTURES=FOLDER, the pictures of the README are made anew.

use crate::harness::browser::{self, check};
use crate::harness::home::Home;
use crate::harness::ports::free_port;

/// It says who was asked for what, in markup. While there is a file `broken`, it does not start.
const APP: &str = "const { existsSync } = require('fs');
console.log('begins');
if (existsSync('broken')) {
    console.error('nothing works today');
    process.exit(1);
}
const server = require('http').createServer((request, response) => {
    console.log('<b id=\"injected\">asked for ' + request.url + '</b>');
    response.end('pid ' + process.pid);
});
server.keepAliveTimeout = 600_000;
server.listen(8080);";

/// A home in which these words start apps.
fn home(starts: &[&str]) -> Home {
    let home = Home::new();
    home.write("app.js", APP);
    for words in starts {
        home.say(&format!("start app.js --port 0:8080 {words}")).done();
    }
    home
}

#[test]
fn the_page_shows_what_clusterd_says() {
    if browser::is_there() {
        check("shows.mjs", &home(&["--name web -i 3", "--name api -i 1"]), &[]);
    }
}

#[test]
fn what_is_pressed_on_the_page_is_done() {
    if browser::is_there() {
        check("acts.mjs", &home(&["--name web -i 2"]), &[]);
    }
}

#[test]
fn the_page_at_the_metrics_shows_strangers_no_more_than_they_may_know() {
    if browser::is_there() {
        let (own, public) = (free_port(), free_port());
        let own_words = format!("--name own -i 2 --metrics 127.0.0.1:{own}");
        let public_words = format!("--name shared -i 2 --metrics 0.0.0.0:{public} -- secret-word");
        let home = home(&[&own_words, &public_words]);
        let url = |port| format!("http://127.0.0.1:{port}/");
        check("metrics_page.mjs", &home, &[("OWN", &url(own)), ("PUBLIC", &url(public))]);
    }
}

#[test]
fn everybody_can_use_the_page() {
    if browser::is_there() {
        check("accessible.mjs", &Home::new(), &[]);
    }
}

#[test]
fn figures_lanes_and_bands_are_of_what_was_told() {
    if browser::is_there() {
        check("figures.mjs", &Home::new(), &[]);
    }
}

#[test]
fn logs_and_connections_are_shown_however_many_there_are() {
    if browser::is_there() {
        check("parts.mjs", &Home::new(), &[]);
    }
}

#[test]
fn a_thousand_workers_do_not_slow_the_page_down() {
    if browser::is_there() {
        check("many.mjs", &Home::new(), &[]);
    }
}

#[test]
fn a_token_is_needed_and_what_strangers_write_stays_text() {
    if browser::is_there() {
        check("stranger.mjs", &Home::new(), &[]);
    }
}

#[test]
fn the_pictures_of_the_readme_can_be_made() {
    if std::env::var_os("CLUSTERD_TEST_PICTURES").is_some() && browser::is_there() {
        check("pictures.mjs", &Home::new(), &[]);
    }
}
