//! `clusterd serve`: the files of a folder, and nothing else.

use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;

use crate::harness::home::Home;
use crate::harness::http::{self, Pending, Response};
use crate::harness::ports::free_port;

/// Asks with these further header lines.
fn ask(port: u16, request: &str, headers: &[&str]) -> Response {
    let mut stream = http::connect(SocketAddr::from(([127, 0, 0, 1], port))).expect("it listens");
    let lines: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
    write!(stream, "{request} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{lines}\r\n")
        .expect("it reads");
    Pending::of(stream).response().expect("it answers")
}

fn status(port: u16, path: &str) -> u16 {
    ask(port, &format!("GET {path}"), &[]).status
}

/// A home with a folder `site`.
fn home() -> Home {
    let home = Home::new();
    let site = home.folder().join("site");
    fs::create_dir_all(site.join(".git")).expect("a folder");
    fs::create_dir_all(site.join("docs")).expect("a folder");
    fs::create_dir_all(site.join("linked")).expect("a folder");
    fs::create_dir_all(home.folder().join("outside")).expect("a folder");
    home.write("secret.txt", "secret");
    home.write("outside/index.html", "secret");
    home.write("site/index.html", "<h1>front</h1>");
    home.write("site/docs/index.html", "docs");
    home.write("site/a b.txt", "0123456789");
    home.write("site/.env", "secret");
    home.write("site/.git/config", "secret");
    for (target, link) in [
        ("../secret.txt", "out.txt"),
        ("../outside", "out"),
        (".env", "env.txt"),
        ("docs/index.html", "in.html"),
        ("../.env", "linked/index.html"),
    ] {
        symlink(target, site.join(link)).expect("a link");
    }
    symlink(site.join("docs/index.html"), site.join("whole.html")).expect("a link");
    home
}

#[test]
fn the_files_of_a_folder_are_served_and_nothing_else() {
    let (home, port) = (home(), free_port());
    let said = home.say(&format!("serve site {port} --workers 2"));
    assert!(
        said.done().starts_with(&format!("static-page-server-{port}: started with 2 workers")),
        "{said:?}"
    );
    let front = ask(port, "GET /", &[]);
    assert_eq!((front.status, front.text().as_str()), (200, "<h1>front</h1>"));
    assert_eq!(front.header("content-type"), Some("text/html"));
    let modified = front.header("last-modified").expect("a date").to_owned();
    assert_eq!(ask(port, "GET /", &[&format!("If-Modified-Since: {modified}")]).status, 304);
    let part = ask(port, "GET /a%20b.txt", &["Range: bytes=2-4"]);
    assert_eq!((part.status, part.text().as_str()), (206, "234"));
    assert_eq!(part.header("content-range"), Some("bytes 2-4/10"));
    let refused = ask(port, "POST /", &["Content-Length: 0"]);
    assert_eq!((refused.status, refused.header("allow")), (405, Some("GET, HEAD")));
    let shown = ["/docs/", "/in.html", "/whole.html"].map(|path| status(port, path));
    assert_eq!(shown, [200; 3]);
    assert_eq!(ask(port, "GET /docs", &[]).header("location"), Some("/docs/"));
    let hidden = [
        "/none",
        "/.env",
        "/%2eenv",
        "/.git/config",
        "/../secret.txt",
        "/%2e%2e/secret.txt",
        "/docs/..%2f..%2fsecret.txt",
        "//docs",
        "/out.txt",
        "/out/",
        "/out/index.html",
        "/env.txt",
        "/linked",
        "/linked/",
    ];
    for path in hidden {
        let answer = ask(port, &format!("GET {path}"), &["Accept: text/html"]);
        assert_eq!((answer.status, answer.text().as_str()), (404, "404 Not Found\n"), "{path}");
    }
}

#[test]
fn a_reload_of_a_file_server_fails_no_request() {
    let (home, port) = (home(), free_port());
    home.say(&format!("serve site {port} --name files --workers 2")).done();
    std::thread::scope(|scope| {
        let reload = scope.spawn(|| home.say("reload files"));
        let mut asked = 0;
        while !reload.is_finished() || asked < 20 {
            assert_eq!(status(port, "/"), 200);
            asked += 1;
        }
        reload.join().expect("it ends").done();
    });
}

#[test]
fn a_page_that_is_not_there_is_the_index_of_a_single_page_app() {
    let (home, port) = (home(), free_port());
    home.say(&format!("serve site --port {port} --spa --workers 1")).done();
    let page = ask(port, "GET /users/7", &["Accept: text/html,*/*;q=0.8"]);
    assert_eq!((page.status, page.text().as_str()), (200, "<h1>front</h1>"));
    assert_eq!(ask(port, "GET /users/7.png", &["Accept: image/png"]).status, 404);
    assert_eq!(ask(port, "GET /.env", &["Accept: text/html"]).status, 404);
}

#[test]
fn who_does_not_know_the_password_gets_nothing() {
    let (home, port) = (home(), free_port());
    let auth = "--basic-auth-username ann --basic-auth-password s3cret-word";
    home.say(&format!("serve site {port} --name files --workers 1 {auth}")).done();
    let refused = ask(port, "GET /", &[]);
    assert_eq!(refused.status, 401);
    assert!(refused.header("www-authenticate").is_some_and(|value| value.starts_with("Basic realm=")));
    // ann:s3cret-word, and ann:wrong.
    let admitted = "Authorization: Basic YW5uOnMzY3JldC13b3Jk";
    assert_eq!(ask(port, "GET /", &["Authorization: Basic YW5uOndyb25n"]).status, 401);
    assert_eq!(ask(port, "GET /", &[admitted]).status, 200);
    assert!(!home.file("files", "app.toml").contains("s3cret-word"));
}

#[test]
fn a_folder_that_is_not_there_is_not_served() {
    let home = home();
    let said = home.say("serve none");
    assert!(said.code == 2 && said.stderr.contains("not a folder"), "{said:?}");
}

#[test]
fn a_server_whose_program_was_replaced_or_removed_goes_on() {
    let (home, port) = (home(), free_port());
    let copied = ["sh", "-c", "cp \"$1\" copy && shift && exec ./copy \"$@\"", "sh"];
    home.say_under(&copied, &format!("serve site {port} --name files --workers 1"), &[]).done();
    fs::remove_file(home.folder().join("copy")).expect("removed");
    home.say("restart files").done();
    assert_eq!(status(port, "/"), 200);
    let app = home.app("files").expect("it runs");
    assert_eq!(app["command"][0], "clusterd", "{app}");
}

#[test]
fn an_ecosystem_file_serves_files_as_it_does_with_pm2() {
    let (home, port) = (home(), free_port());
    home.write(
        "ecosystem.config.json",
        &format!(
            r#"{{ "apps": [{{ "name": "pages", "script": "serve", "env": {{
                "PM2_SERVE_PATH": "./site", "PM2_SERVE_PORT": {port}, "PM2_SERVE_SPA": "true", "PM2_SERVE_HOST": "::1",
                "PM2_SERVE_BASIC_AUTH": "true", "PM2_SERVE_BASIC_AUTH_USERNAME": "me", "PM2_SERVE_BASIC_AUTH_PASSWORD": "it is"
            }} }}] }}"#
        ),
    );
    let said = home.say("start ecosystem.config.json");
    assert!(said.done().contains("pages: started"), "{said:?}");
    assert!(said.stderr.contains("PM2_SERVE_HOST has no effect"), "{said:?}");
    assert_eq!(status(port, "/"), 401);
    // me:it is
    let known = ["Authorization: Basic bWU6aXQgaXM=", "Accept: text/html"];
    assert_eq!(ask(port, "GET /", &known).text(), "<h1>front</h1>");
    assert_eq!(ask(port, "GET /a/page/of/the/app", &known).text(), "<h1>front</h1>");
}
