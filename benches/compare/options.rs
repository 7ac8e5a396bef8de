//! What the arguments ask for; it starts nothing.

use std::path::PathBuf;

pub const HELP: &str = "\
cargo bench --bench compare -- [OPTIONS]

  --full               all measures, longer, as long as it takes, instead of ten minutes
  --only NAME,...      these contenders
  --measures NAME,...  these measures
  --rounds N           rounds at most
  --program FILE       this clusterd: the released one, or that of a commit before
  --json FILE          write everything, every round, as JSON
  --markdown FILE      write the tables; in a page that has the marks, between them
  --list               name contenders and measures, and start nothing
  --test, --smoke      one very short round, only to show that everything runs
  --help               print this";

/// How much is compared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    pub is_short: bool,
    pub is_full: bool,
    pub only: Option<Vec<String>>,
    pub measures: Option<Vec<String>>,
    pub rounds: Option<usize>,
    pub program: Option<PathBuf>,
    pub json: Option<PathBuf>,
    pub markdown: Option<PathBuf>,
    pub lists: bool,
    pub helps: bool,
}

impl Options {
    /// Reads the arguments, without the program's name. `cargo bench` passes `--bench`; without it, under `cargo test`, the run
    /// is short.
    pub fn parse(arguments: impl IntoIterator<Item = String>) -> anyhow::Result<Self> {
        let mut options = Self { is_short: true, ..Self::default() };
        let mut is_test = false;
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let mut value =
                || arguments.next().ok_or_else(|| anyhow::anyhow!("{argument} needs a value\n\n{HELP}"));
            match argument.as_str() {
                "--bench" => options.is_short = false,
                "--test" | "--smoke" => is_test = true,
                "--full" => options.is_full = true,
                "--only" => options.only = Some(list(&value()?)),
                "--measures" => options.measures = Some(list(&value()?)),
                "--rounds" => options.rounds = Some(number(&value()?)?),
                "--program" => options.program = Some(value()?.into()),
                "--json" => options.json = Some(value()?.into()),
                "--markdown" => options.markdown = Some(value()?.into()),
                "--list" => options.lists = true,
                "--help" | "-h" => options.helps = true,
                _ => anyhow::bail!("unknown option {argument:?}\n\n{HELP}"),
            }
        }
        options.is_short |= is_test;
        Ok(options)
    }
}

fn list(text: &str) -> Vec<String> {
    text.split(',').map(str::to_owned).collect()
}

fn number(text: &str) -> anyhow::Result<usize> {
    match text.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => anyhow::bail!("--rounds needs a number of at least 1, not {text:?}"),
    }
}
