//! Flags, environment and file through the real binary: what it says, and what it exits with.

use std::fs;
use std::path::Path;
use std::time::Duration;

use assert_cmd::Command;
use tempfile::TempDir;

/// clusterd in an empty environment, in `folder`.
fn clusterd(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("clusterd"));
    command.env_clear().env("PATH", "/usr/bin:/bin").args(arguments);
    command.current_dir(folder);
    command
}

/// A folder with a `clusterd.toml`.
fn with_file(text: &str) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("clusterd.toml"), text).expect("written");
    folder
}

fn stderr(output: &assert_cmd::assert::Assert) -> String {
    String::from_utf8_lossy(&output.get_output().stderr).into_owned()
}

#[test]
fn check_prints_nothing_when_all_is_right() {
    let folder = with_file("workers = 2\ncommand = [\"sh\", \"-c\", \"true\"]\n");
    let cases: [&[&str]; 4] = [
        &["--check"],
        &["--check", "--config", "clusterd.toml"],
        &["--check", "--port", "80:8080", "-i", "4", "--", "sh"],
        &["--check", "/bin/sh", "--config", "is the program's own"],
    ];
    for arguments in cases {
        let output = clusterd(folder.path(), arguments).assert().success();
        output.stdout("").stderr("");
    }
}

#[test]
fn a_cron_expression_that_is_none_or_never_comes_is_an_error() {
    let cases = [
        (
            "0 0 * * L",
            "not a cron expression: \"L\" is not a day of the week",
            "5L is the last Friday of the month",
        ),
        (
            "@reboot",
            "not a time: clusterd starts the workers whenever it starts itself",
            "use minute, hour, ",
        ),
        ("0 0 30 2 *", "no such time exists", "use minute, hour, "),
    ];
    for (text, expected, hint) in cases {
        let folder = with_file(&format!("cron = \"{text}\"\n"));
        for arguments in [&["--check", "--config", "clusterd.toml"][..], &["--config", "clusterd.toml", "sh"]]
        {
            let output =
                clusterd(folder.path(), arguments).timeout(Duration::from_secs(60)).assert().code(78);
            let said = stderr(&output);
            let line = format!("clusterd: clusterd.toml:1: cron = \"{text}\": {expected}\nhint: {hint}");
            assert!(said.starts_with(&line), "{said}");
        }
    }
}

#[test]
fn wrong_flags_exit_with_2() {
    let folder = with_file("");
    let cases: [(&[&str], &str); 6] = [
        (
            &["--workers", "fuor"],
            "clusterd: --workers fuor: not a whole number\nhint: use a number from 1 to 1024, or \"max\"\n",
        ),
        (
            &["--port", "0"],
            "clusterd: --port 0: port 0 means any free port, so the workers' port must be named\nhint: use 0:3000\n",
        ),
        (
            &["-i", "-1"],
            "clusterd: --workers -1: out of range\nhint: use a number from 1 to 1024, or \"max\"\n",
        ),
        (
            &["--kill-timeout", "8"],
            "clusterd: --kill-timeout 8: a duration needs a unit\nhint: use 8s for seconds, 8ms for milliseconds\n",
        ),
        (&["--prot", "80"], "clusterd: unexpected argument '--prot' found\n"),
        (&["--workers"], "clusterd: a value is required for '--workers <N|max>'"),
    ];
    for (arguments, expected) in cases {
        let output = clusterd(folder.path(), arguments).arg("--check").assert().code(2);
        assert!(stderr(&output).starts_with(expected), "{}", stderr(&output));
        output.stdout("");
    }
}

#[test]
fn a_wrong_environment_exits_with_78() {
    let folder = with_file("");
    clusterd(folder.path(), &["--check"])
        .env("CLUSTERD_WORKERS", "fuor")
        .env("PORT", "http")
        .assert()
        .code(78)
        .stdout("")
        .stderr(
            "clusterd: PORT=http: not a port\n\
             hint: use a number from 1 to 65535, or PUBLIC:WORKER, such as 80:8080, or \"off\"\n\
             clusterd: CLUSTERD_WORKERS=fuor: not a whole number\n\
             hint: use a number from 1 to 1024, or \"max\"\n",
        );
}

#[test]
fn a_value_that_is_not_utf_8_is_refused_but_in_the_command() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;

    let folder = with_file("");
    let bytes = OsStr::from_bytes(b"\xff");
    clusterd(folder.path(), &["--check"])
        .env("CLUSTERD_KILL_TIMEOUT", bytes)
        .assert()
        .code(78)
        .stderr("clusterd: CLUSTERD_KILL_TIMEOUT: not valid UTF-8\n");
    clusterd(folder.path(), &["--check", "--kill-timeout"]).arg(bytes).assert().code(2);
    clusterd(folder.path(), &["--check", "sh"]).arg(bytes).assert().success();
}

#[test]
fn a_wrong_file_exits_with_78_and_names_the_line() {
    let folder = with_file("port = 3000\n\n\nworkers = \"fuor\"\nqueue_size = 4\nlog-lvel = \"info\"\n");
    clusterd(folder.path(), &["--check"])
        .env("CLUSTERD_CONFIG", "clusterd.toml")
        .assert()
        .code(78)
        .stdout("")
        .stderr(
            "clusterd: clusterd.toml:5: queue_size: no such key\n\
             hint: `clusterd --show-config` lists every key\n\
             clusterd: clusterd.toml:6: log-lvel: no such key\n\
             hint: did you mean log-level?\n\
             clusterd: clusterd.toml:4: workers = \"fuor\": not a whole number\n\
             hint: use a number from 1 to 1024, or \"max\"\n",
        );
    clusterd(folder.path(), &["--check", "--config", "absent.toml"]).assert().code(78).stderr(
        "clusterd: absent.toml: cannot read the configuration file: No such file or directory (os error 2)\n",
    );
}

#[test]
fn a_command_that_cannot_run_exits_as_in_a_shell() {
    let folder = with_file("");
    let path = folder.path();
    clusterd(path, &["--check", "no-such-program"])
        .assert()
        .code(127)
        .stdout("")
        .stderr("clusterd: cannot start no-such-program: not found in PATH\nhint: check the spelling, or give the full path\n");
    let says = |words: &[&str], code, what: &str| {
        let said = stderr(&clusterd(path, words).assert().code(code).stdout(""));
        assert!(said.contains(what), "{words:?}: {said}");
    };
    says(&["relaod"], 127, "cannot start relaod: not found in PATH\nhint: did you mean `clusterd reload`?\n");
    says(&["gunicron"], 127, "check the spelling, or give the full path; `clusterd --help` has the commands");
    // It is a program, and no server.
    says(&["top"], 2, "clusterd has no command top\nhint: did you mean `clusterd monit`? ");
    clusterd(path, &["--", "relaod"]).assert().code(127).stderr(
        "clusterd: cannot start relaod: not found in PATH\nhint: check the spelling, or give the full path\n",
    );
    fs::write(path.join("app.py"), "").expect("written");
    says(&["app.js"], 127, "hint: a script is run by its interpreter: clusterd -- node app.js\n");
    says(&["--port", "3000", "--", "app.rb"], 127, "clusterd -- ruby app.rb\n");
    says(&["-i", "4", "./app.py"], 126, "clusterd -- python3 ./app.py\n");
    says(&["start", "app.js"], 1, "there is neither an app nor a file app.js\n");
    clusterd(path, &["--check", "clusterd.toml"]).assert().code(127).stderr(
        "clusterd: cannot start clusterd.toml: not found in PATH\nhint: \
             for the file in this folder, use ./clusterd.toml\n",
    );
    clusterd(path, &["--check", "./clusterd.toml"]).assert().code(126);
    clusterd(path, &["--check", "./absent"]).assert().code(127);
}

#[test]
fn check_finds_what_the_start_would_not() {
    let folder = with_file("");
    let cases = [
        (["--user", "no-such-user"], "there is no user no-such-user"),
        (["--group", "no-such-group"], "there is no group no-such-group"),
        (["--primary-user", "no-such-user:0"], "there is no user no-such-user"),
        (["--watch", "no-such-folder"], "no-such-folder: No such file or directory"),
    ];
    for (flags, what) in cases {
        let output = clusterd(folder.path(), &[&flags[..], &["--check", "--", "sleep", "1"]].concat());
        let said = stderr(&{ output }.assert().code(1).stdout(""));
        assert!(said.contains(what) && said.contains("hint: "), "{flags:?}: {said}");
    }
}

#[test]
fn a_negative_value_is_told_with_its_flag() {
    let folder = with_file("");
    let cases = [
        (["--queue-timeout", "-5s"], 2),
        (["--max-memory", "-1M"], 2),
        (["--cron", "-1 * * * *"], 2),
        (["--workers", "-1"], 2),
    ];
    for (flags, code) in cases {
        let output = clusterd(folder.path(), &[&flags[..], &["--check", "--", "sleep", "-1"]].concat());
        let said = stderr(&{ output }.assert().code(code).stdout(""));
        assert!(said.starts_with(&format!("clusterd: {} ", flags[0])) && said.contains(flags[1]), "{said}");
    }
    // What is the worker's stays so.
    clusterd(folder.path(), &["--check", "--", "sleep", "--queue-timeout", "-5s"]).assert().success();
}

#[test]
fn show_config_tells_every_value_and_its_origin() {
    let folder = with_file("workers = 5\nkill-timeout = \"2s\"\n");
    let output = clusterd(folder.path(), &["--show-config", "--config", "clusterd.toml", "--queue", "7"])
        .args(["--", "node", "app.js"])
        .env("PORT", "5000")
        .env("CLUSTERD_WORKERS", "2")
        .assert()
        .success()
        .stderr("");
    let shown = String::from_utf8_lossy(&output.get_output().stdout);
    let named: Vec<_> = shown.lines().filter(|line| !line.ends_with("(default)")).collect();
    insta::assert_snapshot!(named.join("\n"), @r#"
    port                   5000                (from PORT)
    bind                   none                (PORT decides)
    queue                  7                   (from --queue)
    workers                2                   (from CLUSTERD_WORKERS)
    name                   node                (default: auto)
    kill-timeout           2s                  (from clusterd.toml:2)
    log-max-size           10.0 MiB            (default: 10M)
    command                ["node", "app.js"]  (from the command line)
    config                 clusterd.toml       (from --config)
    "#);
}

#[test]
fn help_and_version_go_to_standard_output() {
    let folder = with_file("");
    for flag in ["--help", "-h", "--version", "-V"] {
        let output = clusterd(folder.path(), &[flag]).assert().success().stderr("");
        assert!(!output.get_output().stdout.is_empty());
    }
}

#[test]
fn a_verb_has_arguments_of_its_own() {
    let folder = with_file("");
    let cases: [(&[&str], i32, &str); 5] = [
        (&["list", "--help"], 0, ""),
        (&["list", "--workers", "2"], 2, "clusterd: unexpected argument '--workers' found\n"),
        (&["list", "-o", "yaml"], 2, "clusterd: invalid value 'yaml' for '--output <text|json>'\n"),
        (
            &["scale"],
            2,
            "clusterd: no number of workers given\nhint: use 4 for four, +1 for one more, -1 for one fewer\n",
        ),
        (&["restart", "--worker", "0"], 2, "clusterd: invalid value '0' for '--worker <N>'"),
    ];
    for (arguments, code, expected) in cases {
        let output =
            clusterd(folder.path(), arguments).env("CLUSTERD_HOME", folder.path()).assert().code(code);
        assert!(stderr(&output).starts_with(expected), "{arguments:?}: {}", stderr(&output));
    }
}

#[test]
fn max_workers_respects_the_affinity() {
    let folder = with_file("");
    let output = Command::new("taskset")
        .args(["--cpu-list", "0"])
        .arg(assert_cmd::cargo::cargo_bin!("clusterd"))
        .args(["--show-config", "--workers", "max"])
        .env_remove("WEB_CONCURRENCY")
        .current_dir(folder.path())
        .assert()
        .success();
    let shown = String::from_utf8_lossy(&output.get_output().stdout);
    let workers = shown.lines().find(|line| line.starts_with("workers"));
    let words: Vec<_> = workers.unwrap_or_default().split_whitespace().collect();
    assert_eq!(words, ["workers", "1", "(from", "--workers)"]);
}

#[test]
fn what_is_only_wrong_together_is_told() {
    let folder = with_file("ignore = [\"**/*.log\"]\nstuck-timeout = \"500ms\"\n");
    clusterd(folder.path(), &["--check", "--config", "clusterd.toml", "--scrape", "/metrics"])
        .assert()
        .code(78)
        .stdout("")
        .stderr(
            "clusterd: clusterd.toml:1: ignore = \"**/*.log\": has no effect without watch\n\
             hint: set --watch, or leave this out\n\
             clusterd: --scrape /metrics: has no effect without metrics\n\
             hint: set --metrics, or leave this out\n\
             clusterd: clusterd.toml:2: stuck-timeout = \"500ms\": shorter than handoff-timeout\n\
             hint: use 1s or longer\n",
        );
}

#[test]
fn a_stop_delay_leaves_time_for_the_drain() {
    let folder = with_file("stop-delay = \"6s\"\n");
    clusterd(folder.path(), &["--check", "--config", "clusterd.toml"]).assert().code(78).stderr(
        "clusterd: clusterd.toml:1: stop-delay = \"6s\": not shorter than drain-timeout, of which it is a part\n\
         hint: use less than 6s, or a longer drain-timeout\n",
    );
    clusterd(folder.path(), &["--check", "--config", "clusterd.toml", "--drain-timeout", "7s"])
        .assert()
        .code(0);
}

#[test]
fn flags_that_do_not_go_together_are_a_configuration_error() {
    let folder = with_file("");
    let workers = ["--check", "--accept", "workers"];
    let cases: [(&[&str], u8); 5] = [
        (&["--concurrency", "1"], 78),
        (&["--policy", "round-robin"], 78),
        (&["--policy", "least-connections"], 78),
        (&["--port", "80", "--port", "80"], 78),
        (&["--concurrency", "none of them"], 2),
    ];
    for (flags, code) in cases {
        let arguments = [&workers, flags, &["--", "node", "app.js"]].concat();
        let output = clusterd(folder.path(), &arguments).assert().code(i32::from(code)).stdout("");
        assert!(stderr(&output).starts_with(&format!("clusterd: {} ", flags[0])), "{}", stderr(&output));
    }
}

#[test]
fn every_shell_gets_a_completion_script_that_knows_flags_words_and_verbs() {
    let folder = with_file("");
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let output = clusterd(folder.path(), &["completions", shell]).assert().success().stderr("");
        let script = String::from_utf8_lossy(&output.get_output().stdout).into_owned();
        for word in ["queue-timeout", "round-robin", "reload"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
        if shell == "bash" {
            Command::new("bash").arg("-n").write_stdin(script).assert().success().stderr("");
        }
    }
    clusterd(folder.path(), &["completions", "cmd"]).assert().code(2);
    clusterd(folder.path(), &["--check", "--", "completions"]).assert().code(127);
}

#[test]
fn a_folder_that_is_not_there_is_an_error_at_the_start() {
    let folder = with_file("");
    let arguments = ["--port", "0:3000", "--cwd", "nowhere", "--", "sh"];
    clusterd(folder.path(), &arguments).env("CLUSTERD_HOME", folder.path()).assert().code(1).stderr(format!(
        "clusterd: cannot run workers in {}: No such file or directory (os error 2)\n\
             hint: --cwd names the folder that workers run in\n",
        folder.path().join("nowhere").display()
    ));
    let check = ["--check", "--cwd", "nowhere", "--", "sh"];
    assert!(stderr(&clusterd(folder.path(), &check).assert().code(1)).contains("nowhere: No such file"));
}

#[test]
fn variables_for_workers_are_shown_with_their_origin() {
    let folder = with_file("env-file = '.env'\nworkers = 1\n[env]\nB = 'file'\nC = 'file'\nD = 4\n");
    fs::write(folder.path().join(".env"), "A=dotenv\nB=dotenv # not this\nE=\"a\\nb\"\n").expect("written");
    let output = clusterd(folder.path(), &["--show-config", "--config", "clusterd.toml", "--env", "C=flag"])
        .args(["--", "sh"])
        .env("CLUSTERD_ENV", "D=own,F=x y")
        .assert()
        .success()
        .stderr("");
    let shown = String::from_utf8_lossy(&output.get_output().stdout);
    let named: Vec<_> = shown.lines().filter(|line| line.starts_with("env")).collect();
    insta::assert_snapshot!(named.join("\n"), @r#"
    env.A                  dotenv             (from .env:1)
    env.B                  file               (from clusterd.toml:4)
    env.C                  flag               (from --env)
    env.D                  own                (from CLUSTERD_ENV)
    env.E                  "a\nb"             (from .env:3)
    env.F                  "x y"              (from CLUSTERD_ENV)
    env-file               .env               (from clusterd.toml:1)
    "#);
}

#[test]
fn variables_for_workers_that_cannot_be_are_refused() {
    let folder = with_file("");
    fs::write(folder.path().join(".env"), "A=1\nsecret\n").expect("written");
    let env = folder.path().join(".env");
    let file = format!(
        "clusterd: --env-file .env: {}:2: not an assignment\n\
         hint: use KEY=VALUE; a value of several lines needs quotes, and a comment a # in front\n",
        env.display()
    );
    const NAME: &str =
        "not the name of a variable\nhint: use letters, digits, _, . and -, and no digit at the beginning\n";
    let cases = [
        ("--env=1A=x", 2, format!("clusterd: --env 1A=x: {NAME}")),
        ("--env==x", 2, format!("clusterd: --env =x: {NAME}")),
        (
            "--env=A",
            2,
            "clusterd: --env A: no value\nhint: use KEY=VALUE; what clusterd was started with, workers inherit anyway\n"
                .to_owned(),
        ),
        (
            "--env=PORT=5",
            78,
            "clusterd: --env PORT=5: clusterd gives workers PORT=3000, the port that they are served on\n\
             hint: leave it out, and use --port for the port\n"
                .to_owned(),
        ),
        ("--env-file=.env", 78, file),
    ];
    for (flag, code, expected) in cases {
        clusterd(folder.path(), &["--check", flag, "--", "sh"]).assert().code(code).stderr(expected);
    }
    clusterd(folder.path(), &["--check", "--env", "PORT=3000", "--", "sh"]).assert().success();
    let absent = clusterd(folder.path(), &["--check", "--env-file", "absent", "--", "sh"]).assert().code(78);
    assert!(stderr(&absent).contains("absent: No such file or directory"), "{}", stderr(&absent));
}

#[test]
fn a_program_is_looked_up_as_its_workers_will() {
    let folder = with_file("");
    fs::create_dir_all(folder.path().join("app/bin")).expect("a folder");
    std::os::unix::fs::symlink("/bin/sh", folder.path().join("app/bin/server")).expect("a link");
    for arguments in [
        &["--cwd", "app", "--", "./bin/server"][..],
        &["--cwd", "app", "--env", "PATH=bin", "--", "server"],
        &["--env", "PATH=app/bin", "--", "server"],
    ] {
        clusterd(folder.path(), &["--check"]).args(arguments).assert().success().stderr("");
    }
    clusterd(folder.path(), &["--check", "--", "./bin/server"]).assert().code(127);
}
