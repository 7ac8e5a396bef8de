//! A row of the table: one configuration of a real server, as its users would write it down.

use std::env;
use std::path::Path;

use super::dialogue::Dialogue;
use crate::harness::build;
use crate::harness::needs;
use crate::harness::ports::free_port;
use crate::harness::setup::Setup;
use crate::harness::tools;
use crate::harness::{Cluster, Native, Witness};

/// The configuration; the methods read as its description.
///
/// In the command and in files, `{port}` is the port that it asks for, `{folder}` where its files are, `{python}` the
/// Python that has the packages, and `{program}` what was compiled for it.
pub(super) struct Server {
    command: Vec<&'static str>,
    files: Vec<(&'static str, &'static str)>,
    environment: Vec<(&'static str, &'static str)>,
    needs: Vec<Need>,
    compiled: Option<(&'static str, &'static [&'static str])>,
    options: &'static str,
    own_folder: bool,
    pub(super) accepts: bool,
    in_ci: bool,
    accepting_in_ci: bool,
    intercepted_in_ci: bool,
    pub(super) dialogue: Dialogue,
}

/// Whether a program in Go has parts in C, and is dynamically linked then.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum C {
    None,
    Linked,
}

enum Need {
    Program(&'static str),
    File(&'static str),
    Python(&'static str),
    Npm(&'static str),
}

impl Server {
    /// A server that is started by this command, whose words are separated by spaces, and answers GET /. Its first word
    /// has to be installed.
    pub(super) fn of(command: &'static str) -> Self {
        let command: Vec<_> = command.split_whitespace().collect();
        let needs = match command[0] {
            "{python}" | "{program}" => Vec::new(),
            program => vec![Need::Program(program)],
        };
        Self {
            command,
            files: Vec::new(),
            environment: Vec::new(),
            needs,
            compiled: None,
            options: "",
            own_folder: false,
            accepts: true,
            in_ci: false,
            accepting_in_ci: false,
            intercepted_in_ci: false,
            dialogue: Dialogue::Page { path: "/", says: "worker" },
        }
    }

    /// One that is started by this line of a shell.
    pub(super) fn of_shell(line: &'static str) -> Self {
        Self::of("sh -c").arg(line)
    }

    /// A program from `fixtures/SOURCE`, built by this compiler with these arguments.
    pub(super) fn compiled(source: &'static str, compiler: &'static [&'static str]) -> Self {
        let mut server = Self::of("{program}").needs(compiler[0]);
        server.compiled = Some((source, compiler));
        server
    }

    /// A server in Go from `fixtures/SOURCE`, without C or with it, on packages of the distribution.
    pub(super) fn of_go(source: &'static str, c: C) -> Self {
        let compiler: &[&str] = if c == C::Linked { &["go", "gcc"] } else { &["go"] };
        let server = Self::compiled(source, compiler);
        compiler.iter().copied().fold(server, Self::needs)
    }

    /// One more word of the command, which may hold spaces.
    pub(super) fn arg(mut self, word: &'static str) -> Self {
        self.command.push(word);
        self
    }

    /// A file in its folder, where it is started.
    pub(super) fn file(mut self, name: &'static str, content: &'static str) -> Self {
        self.files.push((name, content));
        self
    }

    pub(super) fn env(mut self, name: &'static str, value: &'static str) -> Self {
        self.environment.push((name, value));
        self
    }

    /// Further options of clusterd.
    pub(super) fn options(mut self, options: &'static str) -> Self {
        self.options = options;
        self
    }

    /// It keeps files where it is started, so each launch is started in an empty folder of its own, which any user may
    /// write.
    pub(super) fn in_its_own_folder(mut self) -> Self {
        self.own_folder = true;
        self
    }

    /// As a cluster worker it accepts nothing itself, so that nobody can tell what accept would give it.
    pub(super) fn gets_connections_from_its_primary(mut self) -> Self {
        self.accepts = false;
        self
    }

    /// This program has to be installed too.
    pub(super) fn needs(mut self, program: &'static str) -> Self {
        self.needs.push(Need::Program(program));
        self
    }

    /// This file, or folder, has to be there.
    pub(super) fn needs_file(mut self, path: &'static str) -> Self {
        self.needs.push(Need::File(path));
        self
    }

    /// This Python module has to be installed.
    pub(super) fn python(mut self, module: &'static str) -> Self {
        self.needs.push(Need::Python(module));
        self
    }

    /// This npm package has to be installed.
    pub(super) fn npm(mut self, package: &'static str) -> Self {
        self.needs.push(Need::Npm(package));
        self
    }

    /// It is one of those that run everywhere.
    pub(super) fn in_ci(mut self) -> Self {
        self.in_ci = true;
        self
    }

    /// It is one of those that run everywhere with `--accept workers` as well.
    pub(super) fn accepting_in_ci(mut self) -> Self {
        self.accepting_in_ci = true;
        self
    }

    /// It is one of those that run everywhere with `--attach seccomp` as well.
    pub(super) fn intercepted_in_ci(mut self) -> Self {
        self.intercepted_in_ci = true;
        self
    }

    /// Nothing can be preloaded into it, so that nobody can tell what accept gives it.
    pub(super) fn nothing_is_preloaded(mut self) -> Self {
        self.accepts = false;
        self
    }

    /// The page / contains this.
    pub(super) fn says(self, says: &'static str) -> Self {
        self.page("/", says)
    }

    /// This page contains this.
    pub(super) fn page(mut self, path: &'static str, says: &'static str) -> Self {
        self.dialogue = Dialogue::Page { path, says };
        self
    }

    /// It does not speak HTTP: it answers these bytes with these.
    pub(super) fn answers(mut self, say: &'static [u8], hear: &'static [u8]) -> Self {
        self.dialogue = Dialogue::Words { say, hear };
        self
    }

    /// It speaks first.
    pub(super) fn greets(self, hear: &'static [u8]) -> Self {
        self.answers(b"", hear)
    }

    /// Whether it is to run now, and can; says why not.
    pub(super) fn is_wanted(&self) -> bool {
        self.is_wanted_if(self.in_ci)
    }

    /// The same, to accept by itself.
    pub(super) fn is_wanted_accepting(&self) -> bool {
        self.is_wanted_if(self.accepting_in_ci)
    }

    /// The same, with its calls intercepted.
    pub(super) fn is_wanted_intercepted(&self) -> bool {
        self.is_wanted_if(self.intercepted_in_ci)
    }

    fn is_wanted_if(&self, in_ci: bool) -> bool {
        let wanted = in_ci || env::var_os("CLUSTERD_TEST_SERVERS").is_some_and(|which| which == "all");
        if !wanted {
            println!("skipped: CLUSTERD_TEST_SERVERS=all runs it");
        }
        wanted && self.needs.iter().all(Need::is_met)
    }

    /// It alone, without clusterd.
    pub(super) fn native(&self, witness: &Witness) -> Native {
        Native::start(self.setup(witness))
    }

    /// Three workers of it.
    pub(super) fn cluster(&self, witness: &Witness) -> Cluster {
        self.quick(witness).taking_turns().start()
    }

    /// Three workers of it that accept by themselves, as these options say.
    pub(super) fn accepting_cluster(&self, witness: &Witness, options: &str) -> Cluster {
        self.quick(witness).workers(3).options(options).start()
    }

    fn quick(&self, witness: &Witness) -> Setup {
        let quickly = "--reload-parallel 3 --min-uptime 300ms";
        let setup = self.setup(witness).options(quickly).options(self.options);
        let port = setup.asks_for().to_string();
        setup.port(&port)
    }

    fn setup(&self, witness: &Witness) -> Setup {
        const OWN_FOLDER: &str =
            r#"own=$(mktemp -d "$0/own.XXXXXX") && chmod 777 "$own" && cd "$own" && exec "$@""#;
        let mut setup = Cluster::of("").worker_port(free_port());
        if self.own_folder {
            setup = setup.arg("sh").arg("-c").arg(OWN_FOLDER).arg("{folder}");
        }
        let program = self.compiled.map(|(source, compiler)| match compiler {
            ["go", c @ ..] => build::go_with(&compiled_name(source, c), source, !c.is_empty()),
            _ => build::program(&compiled_name(source, &compiler[1..]), source, compiler),
        });
        let fill = |text: &str| {
            text.replace("{python}", &tools::python().to_string_lossy())
                .replace("{program}", program.as_deref().unwrap_or("{program}"))
        };
        setup = self.command.iter().fold(setup, |setup, word| setup.arg(&fill(word)));
        setup =
            self.files.iter().fold(setup, |setup, (name, content)| setup.filled_file(name, &fill(content)));
        setup = self.environment.iter().fold(setup, |setup, (name, value)| setup.env(name, *value));
        setup = witness.environment().into_iter().fold(setup, |setup, (name, value)| setup.env(name, value));
        setup.env("PATH", tools::path()).env("NODE_PATH", tools::node_modules())
    }
}

impl Need {
    fn is_met(&self) -> bool {
        match self {
            Self::Program(name) => tools::program(name),
            Self::File(path) => needs::met(Path::new(path).exists(), &format!("there is no {path}")),
            Self::Python(module) => tools::module(module),
            Self::Npm(package) => tools::package(package),
        }
    }
}

/// Two configurations of one source may be built at once.
fn compiled_name(source: &str, how: &[&str]) -> String {
    [source].iter().chain(how).map(|word| word.replace(['/', '.'], "-")).collect()
}
