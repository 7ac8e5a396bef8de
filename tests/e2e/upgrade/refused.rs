//! Programs that cannot take over: nothing changes, and it is said which program it is and what is wrong with it.

use std::path::Path;

use rustix::process::{Pid, Resource, Rlimit, Signal};

use super::next::{CLUSTERD, fails, is_refused, script};
use super::upgrade;
use crate::harness::needs::needs;
use crate::harness::{Cluster, build, until};

const NO_CLUSTERD: &str = "is not a clusterd that can take over";

/// One cluster for all of these: none changes anything.
#[test]
fn programs_of_every_kind_are_refused_by_their_name() {
    let mut cluster = Cluster::demo().workers(2).start();
    let folder = cluster.folder().to_owned();
    for (name, text, why) in [
        ("silent", "#!/bin/sh\n", NO_CLUSTERD),
        ("crashes", "#!/bin/sh\nkill -SEGV $$\n", NO_CLUSTERD),
        ("complains", "#!/bin/sh\necho 'no such verb' >&2; exit 2\n", "it said: no such verb"),
        ("talks", "#!/bin/sh\nwhile :; do echo nonsense; done\n", NO_CLUSTERD),
        ("guesses", "#!/bin/sh\necho 'can restore: 9.9.9 12345'\n", NO_CLUSTERD),
        ("boasts", "#!/bin/sh\necho 'can restore: 9.9.9'\n", NO_CLUSTERD),
        ("leaves", "#!/bin/sh\n(sleep 600 & ) >/dev/null 2>&1 <&-\n", NO_CLUSTERD),
        ("no-interpreter", "#!/nowhere/sh\n", "interpreter"),
    ] {
        let program = script(&folder, name, text);
        is_refused(&cluster, &program, &[name, why]);
    }
    let data = folder.join("data");
    std::fs::write(&data, "x").unwrap();
    is_refused(&cluster, &data, &["cannot execute", "data", "Permission denied"]);
    is_refused(&cluster, &folder, &["cannot execute", "it is not a file"]);
    upgrade(&cluster);
    cluster.primary().signal(Signal::TERM);
    cluster.wait_success();
}

#[test]
fn one_that_does_not_answer_is_ended_with_all_that_it_has_started() {
    let cluster = Cluster::demo().workers(1).start();
    let program = script(cluster.folder(), "hangs", "#!/bin/sh\nsleep 600\n");
    is_refused(&cluster, &program, &["hangs did not answer within 10s"]);
    let sleeps = || cluster.primary().descendants().iter().any(|process| process.name() == "sleep");
    until("nothing of it is left", || (!sleeps()).then_some(()));
}

#[test]
fn a_program_for_another_processor_or_without_what_it_needs_is_named() {
    needs!("gcc");
    let cluster = Cluster::demo().workers(1).start();
    let folder = cluster.folder();
    let foreign = script(folder, "foreign", "");
    let mut header = std::fs::read(CLUSTERD).unwrap()[..4096].to_vec();
    // e_machine of elf(5): a processor of 1980.
    header[18] = 21;
    std::fs::write(&foreign, header).unwrap();
    is_refused(&cluster, &foreign, &["foreign", "it is no program for this machine"]);

    let source = folder.join("program.c");
    std::fs::write(&source, "int gone(void);\nint main(void) { return gone(); }\n").unwrap();
    let library = folder.join("libgone.so");
    std::fs::write(folder.join("gone.c"), "int gone(void) { return 0; }\n").unwrap();
    let compile = |words: &[&Path]| {
        build::run(&words.iter().map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>());
    };
    let [gcc, output, shared] = ["gcc", "-o", "-shared"].map(Path::new);
    compile(&[gcc, shared, output, &library, &folder.join("gone.c")]);
    let [without_library, without_loader] = ["no-library", "no-loader"].map(|name| folder.join(name));
    compile(&[gcc, output, &without_library, &source, &library]);
    let loader = Path::new("-Wl,--dynamic-linker=/nowhere/ld.so");
    compile(&[gcc, output, &without_loader, &source, &library, loader]);
    std::fs::remove_file(&library).unwrap();
    is_refused(&cluster, &without_library, &["no-library", "libgone.so"]);
    is_refused(&cluster, &without_loader, &["no-loader", "dynamic loader"]);
}

/// Older and newer versions say in their own words what they do not read.
#[test]
fn what_a_version_does_not_know_it_refuses() {
    let cluster = Cluster::demo().workers(1).start();
    let changed = |name: &str, change: &str| {
        let text = format!(
            "#!/bin/sh\nsed '{change}' > {{folder}}/{name}.json\nexec {{clusterd}} \"$@\" < {{folder}}/{name}.json\n"
        );
        script(cluster.folder(), name, &text)
    };
    let known = r#"s/"order":/"unheard_of":1,"order":/"#;
    is_refused(&cluster, &changed("field", known), &["cannot take over", "unknown field `unheard_of`"]);
    let newer = r#"s/"format":[0-9]*/"format":99/"#;
    is_refused(&cluster, &changed("format", newer), &["cannot take over", "in format 99"]);
    is_refused(&cluster, &changed("cut", "s/.....$//"), &["cannot take over"]);
    let older = "#!/bin/sh\necho 'clusterd 0.0.9 cannot take over: it is too old' >&2; exit 1\n";
    let older = script(cluster.folder(), "older", older);
    is_refused(&cluster, &older, &["clusterd 0.0.9 cannot take over: it is too old"]);
}

#[test]
fn what_was_checked_is_what_is_executed() {
    needs!("gcc");
    let program = build::program("upgrade-replaced", "upgrade/replaced.c", &["gcc"]);
    let setup = Cluster::demo().workers(2).env("CLUSTERD_REAL", CLUSTERD);
    let folder = setup.folder.path().to_owned();
    let [itself, replacement] = ["itself", "replacement"].map(|name| folder.join(name));
    let cluster = setup.env("CLUSTERD_ITSELF", &itself).env("CLUSTERD_REPLACEMENT", &replacement).start();
    std::fs::copy(program, &itself).unwrap();
    script(&folder, "replacement", "#!/bin/sh\ntouch {folder}/executed\n");
    let (primary, workers) = (cluster.primary().pid(), cluster.pids());
    let said = cluster.say(&format!("upgrade --binary {}", itself.display()));
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!((cluster.primary().pid(), cluster.pids()), (primary, workers));
    assert!(!replacement.exists() && !folder.join("executed").exists());

    // The interpreter of a script finds it by its name alone.
    let text = "#!/bin/sh\n[ \"$1\" != restore-check ] || mv {folder}/replacement {folder}/script\nexec {clusterd} \"$@\"\n";
    script(&folder, "replacement", "#!/bin/sh\ntouch {folder}/executed\n");
    fails(&cluster, &script(&folder, "script", text));
    assert!(!replacement.exists() && !folder.join("executed").exists());
}

#[test]
fn a_program_that_is_written_meanwhile_is_not_executed() {
    let mut cluster = Cluster::demo().workers(2).start();
    let folder = cluster.folder().to_owned();
    let text = "#!/bin/sh
if [ \"$1\" = restore-check ]; then
    setsid sh -c 'exec 3>>{folder}/written; : > {folder}/open; while [ -e {folder}/open ]; do sleep 0.05; done' \
        >/dev/null 2>&1 </dev/null &
    while [ ! -e {folder}/open ]; do sleep 0.01; done
fi
exec {clusterd} \"$@\"
";
    let program = script(&folder, "written", text);
    is_refused(&cluster, &program, &["cannot execute", "written", "it is being written"]);
    std::fs::remove_file(folder.join("open")).unwrap();
    upgrade(&cluster);
    cluster.primary().signal(Signal::TERM);
    cluster.wait_success();
}

/// execvp(3), with which it is asked, has a shell read what execve(2) does not.
#[test]
fn a_program_that_only_a_shell_would_read_is_not_executed() {
    let mut cluster = Cluster::demo().workers(2).start();
    let program = script(cluster.folder(), "no-line", "exec {clusterd} \"$@\"\n");
    is_refused(&cluster, &program, &["cannot execute", "no-line"]);
    upgrade(&cluster);
    cluster.primary().signal(Signal::TERM);
    cluster.wait_success();
}

#[test]
fn an_environment_that_is_too_long_changes_nothing() {
    needs!("prlimit");
    let long = "x".repeat(100_000);
    let mut cluster = Cluster::demo().workers(2).env("LONG_1", long.clone()).env("LONG_2", long).start();
    // What fits into an environment depends on the limit of the stack (execve(2)).
    let text = "#!/bin/sh\n[ \"$1\" != restore-check ] || prlimit --pid $PPID --stack=131072:\nexec {clusterd} \"$@\"\n";
    let program = script(cluster.folder(), "too-long", text);
    is_refused(&cluster, &program, &["cannot execute", "too-long", "Argument list too long"]);
    let pid = Pid::from_raw(cluster.primary().pid());
    let whole =
        Rlimit { current: Some(8 << 20), maximum: rustix::process::getrlimit(Resource::Stack).maximum };
    rustix::process::prlimit(pid, Resource::Stack, whole).unwrap();
    upgrade(&cluster);
    cluster.primary().signal(Signal::TERM);
    cluster.wait_success();
}
