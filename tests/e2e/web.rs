//! The page of `clusterd web` and of `--metrics`, in a real browser.
//!
//! What is checked, sentence by sentence, stands in the scripts of `fixtures/web`. Where they need what no clusterd does in
//! time, `feed.mjs` plays the server. With CLUSTERD_TEST_PICTURES=FOLDER, the pictures of the README are made anew.

use std::fs::{self, File};
use std::io::Write as _;
use std::net::TcpStream;
use std::os::unix::fs::OpenOptionsExt as _;

use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};

use crate::harness::browser::{self, check};
use crate::harness::home::Home;
use crate::harness::ports::free_port;
use crate::harness::said::Saying;
use crate::harness::{Signal, until};

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
fn the_page_ends_when_it_is_told_to_also_where_a_file_is_still_read() {
    let home = Home::new();
    let app = home.path("web");
    fs::create_dir_all(&app).expect("the folder can be made");
    fs::write(app.join("app.toml"), "").expect("a definition");
    let pipe = app.join("state.json");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a named pipe");
    let mut page = Saying::start(&home.home(), "web --listen 127.0.0.1:0");
    let printed = page.stdout();
    let line = until("it listens", || printed.lines().into_iter().next());
    let (address, token) = line
        .strip_prefix("the page is at http://")
        .and_then(|rest| rest.split_once("/#token="))
        .expect("an address with a token");
    let mut client = TcpStream::connect(address).expect("it listens");
    let head = format!("GET /live HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\n\r\n");
    client.write_all(head.as_bytes()).expect("it reads");
    let nonblocking = OFlags::NONBLOCK.bits().cast_signed();
    // That can be opened only while somebody reads it. Nothing is written, so that it is read for ever.
    let open = || File::options().write(true).custom_flags(nonblocking).open(&pipe).ok();
    let held = until("the state of the app is read", open);
    page.process().signal(Signal::TERM);
    let said = page.ended();
    assert_eq!((said.code, said.stderr.as_str()), (0, ""));
    drop(held);
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
