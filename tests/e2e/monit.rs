//! `clusterd monit`, in a terminal.

use crate::harness::home::Home;
use crate::harness::needs::needs;
use crate::harness::process::Process;
use crate::harness::screen::Screen;
use crate::harness::{Signal, until};

const APP: &str = "const server = require('http').createServer((request, response) => {
    console.log('asked for ' + request.url);
    response.end('pid ' + process.pid);
});
server.listen(8080);";

/// A home with two apps, `api` of one worker and `web` of two.
fn home() -> Home {
    let home = Home::new();
    home.write("app.js", APP);
    home.say("start app.js --name web -i 2 --port 0:8080").done();
    home.say("start app.js --name api -i 1 --port 0:8080").done();
    home
}

/// The screen of `monit` in that home. What follows it is run when it has ended.
fn monit(home: &Home, size: (u16, u16), then: &str, variables: &[(&str, &str)]) -> Screen {
    let home_folder = home.home();
    let mut all = vec![("CLUSTERD_HOME", home_folder.to_str().expect("a path in UTF-8"))];
    all.extend(variables);
    let command = format!("{} monit{then}", env!("CARGO_BIN_EXE_clusterd"));
    Screen::run(home.folder(), size, &command, &all)
}

/// Of all addresses.
fn port(home: &Home, app: &str) -> u16 {
    let app = home.app(app).expect("it runs");
    let address = app["addresses"][0]["address"].as_str().expect("an address").to_owned();
    address.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port")
}

#[test]
fn the_screen_shows_apps_workers_the_log_and_events() {
    needs!("node", "script");
    let home = home();
    let mut screen = monit(&home, (120, 30), "", &[]);
    screen.shows(&[
        "apps: 2",
        "api",
        "web",
        "1/1",
        "2/2",
        "workers of api: 1",
        "conn/s",
        "nothing has happened yet",
    ]);
    assert!(screen.is_taken() && screen.has_colours());
    screen.press("j");
    screen.shows(&["workers of web: 2", "log of web"]);
    home.get(port(&home, "web"));
    screen.shows(&["asked for /"]);
    home.say("scale web 3").done();
    screen.shows(&["3/3", "workers of web: 3", "web: scaled to 3", "web: worker 3 online"]);
    home.say("delete web").done();
    screen.shows(&["apps: 1", "workers of api: 1"]);
    home.say("start app.js --name late --port 0:8080").done();
    screen.shows(&["apps: 2", "late"]);
    screen.press("/la");
    screen.shows(&["apps: 1 of 2", "name has: la_", "workers of late"]);
}

#[test]
fn a_terminal_that_knows_no_size_has_the_usual_one() {
    needs!("node", "script");
    let home = home();
    let home_folder = home.home();
    let variables = [("CLUSTERD_HOME", home_folder.to_str().expect("a path in UTF-8"))];
    let command = format!("stty cols 0 rows 0 && {} monit; echo left", env!("CARGO_BIN_EXE_clusterd"));
    let mut screen = Screen::run(home.folder(), (80, 24), &command, &variables);
    screen.shows(&["api", "web", "workers of api: 1"]);
    assert!(screen.is_taken());
    screen.press("q");
    screen.shows(&["left"]);
}

#[test]
fn an_order_is_given_once_it_is_confirmed() {
    needs!("node", "script");
    let home = home();
    let mut screen = monit(&home, (60, 20), "", &[]);
    screen.shows(&["api", "web"]);
    let pid = |home: &Home| home.app("api").expect("it runs")["workers"][0]["pid"].clone();
    let before = pid(&home);
    screen.press("r");
    screen.shows(&["reload api? (y, n)"]);
    screen.press("n");
    screen.shows(&["? help"]);
    assert_eq!(pid(&home), before, "nothing was done");
    screen.press("ry");
    screen.shows(&["api: 1 worker replaced"]);
    assert_ne!(pid(&home), before);
    screen.press("+y");
    until("there is one more", || (home.app("api")?["wanted"] == 2).then_some(()));
    screen.press("sy");
    until("it is stopped", || (home.app("api")?["stopped"] == true).then_some(()));
    screen.shows(&["api          stopped"]);
    screen.press("s");
    screen.shows(&["start api? (y, n)"]);
    screen.press("y");
    until("it is started", || (home.app("api")?["ready"] == true).then_some(()));
    // One worker alone, by its number.
    let before = pid(&home);
    screen.press("\tRy");
    until("the worker is another one", || (pid(&home) != before).then_some(()));
}

/// How a screen ends.
enum End {
    Keys(&'static str),
    By(Signal),
}

#[test]
fn the_terminal_is_left_as_it_was() {
    needs!("script");
    let home = Home::new();
    let then = "; code=$?; test \"$before\" = \"$(stty -g)\" && echo \"left as it was with code $code\"";
    let ends = [
        (End::Keys("q"), 0),
        (End::Keys("\u{3}"), 0),
        (End::By(Signal::TERM), 143),
        (End::By(Signal::INT), 130),
        (End::By(Signal::HUP), 129),
    ];
    for (end, code) in ends {
        let home_folder = home.home();
        let command = format!("before=$(stty -g); {} monit{then}", env!("CARGO_BIN_EXE_clusterd"));
        let variables = [("CLUSTERD_HOME", home_folder.to_str().expect("a path in UTF-8"))];
        let mut screen = Screen::run(home.folder(), (80, 24), &command, &variables);
        screen.shows(&["no running clusterd found for this user"]);
        match end {
            End::Keys(keys) => screen.press(keys),
            End::By(signal) => screen.program("monit").signal(signal),
        }
        screen.shows(&[&format!("left as it was with code {code}")]);
        assert!(!screen.is_taken(), "the screen or the cursor is not given back:\n{}", screen.text());
    }
}

#[test]
fn a_suspended_screen_comes_back() {
    needs!("script", "bash");
    let home = Home::new();
    let home_folder = home.home();
    let command = format!(
        "exec bash --norc -im -c '{} monit; echo suspended; fg; echo over'",
        env!("CARGO_BIN_EXE_clusterd")
    );
    let variables = [("CLUSTERD_HOME", home_folder.to_str().expect("a path in UTF-8"))];
    let mut screen = Screen::run(home.folder(), (80, 24), &command, &variables);
    screen.shows(&["no running clusterd found for this user"]);
    screen.press("\u{1a}");
    screen.shows(&["no running clusterd found for this user"]);
    screen.press("q");
    screen.shows(&["suspended", "over"]);
    assert!(!screen.is_taken());
}

/// As by `kill -STOP`, after which the shell has its own terminal modes.
#[test]
fn a_screen_that_was_stopped_takes_the_terminal_again() {
    needs!("script");
    let home = Home::new();
    let mut screen = monit(&home, (80, 24), "; echo over", &[]);
    screen.shows(&["no running clusterd found for this user"]);
    let process = screen.program("monit");
    let tty = tty_of(&process);
    process.signal(Signal::STOP);
    until("it is stopped", || process.is_stopped().then_some(()));
    stty(&tty, &["sane"]);
    process.signal(Signal::CONT);
    until("it reads keys one by one again", || stty(&tty, &["-a"]).contains("-icanon").then_some(()));
    screen.press("q");
    screen.shows(&["over"]);
    assert!(!screen.is_taken());
}

#[test]
fn a_terminal_that_is_gone_ends_it_quietly() {
    needs!("script");
    let home = Home::new();
    let home_folder = home.home();
    // The shell stays, and tells how it ended.
    let command = format!("trap '' HUP; {} monit 2>said; echo $? >code", env!("CARGO_BIN_EXE_clusterd"));
    let variables = [("CLUSTERD_HOME", home_folder.to_str().expect("a path in UTF-8"))];
    let screen = Screen::run(home.folder(), (80, 24), &command, &variables);
    screen.shows(&["no running clusterd found for this user"]);
    drop(screen);
    let file = |name: &str| std::fs::read_to_string(home.folder().join(name)).unwrap_or_default();
    let code = until("it has ended", || Some(file("code")).filter(|code| !code.is_empty()));
    assert!(["0", "129"].contains(&code.trim()), "{code} {}", file("said"));
    assert_eq!(file("said"), "");
}

/// The terminal of a process.
fn tty_of(process: &Process) -> String {
    let tty = std::fs::read_link(format!("/proc/{}/fd/0", process.pid())).expect("a terminal");
    tty.into_os_string().into_string().expect("a path in UTF-8")
}

fn stty(tty: &str, words: &[&str]) -> String {
    let done = std::process::Command::new("stty").args(["-F", tty]).args(words).output();
    let done = done.expect("stty can be started");
    assert!(done.status.success(), "{done:?}");
    String::from_utf8_lossy(&done.stdout).into_owned()
}

#[test]
fn it_is_drawn_anew_when_the_terminal_changes_and_without_colours_where_none_are_wanted() {
    needs!("script");
    let home = Home::new();
    let screen = monit(&home, (60, 20), "", &[("NO_COLOR", "1")]);
    screen.shows(&["clusterd no running clusterd", "? help"]);
    assert!(!screen.has_colours());
    // With room for the events beside the log.
    screen.resize(130, 40);
    stty(&tty_of(&screen.program("monit")), &["cols", "130", "rows", "40"]);
    screen.shows(&["nothing has happened yet"]);
}

#[test]
fn without_a_terminal_it_says_so() {
    let home = Home::new();
    let said = home.say("monit");
    assert_eq!(said.code, 2);
    assert!(said.stderr.contains("monit needs a terminal"), "{}", said.stderr);
    assert!(said.stderr.contains("hint: clusterd list"), "{}", said.stderr);
}
