//! What is made from the settings and verbs that are declared in src/: files of the tree, and the man pages.
//!
//! `cargo xtask generate` writes config/clusterd.toml and docs/settings.md; a unit test fails where they are stale.
//! `cargo xtask man DIR` writes clusterd.1, and a page for each verb, for packages.

use std::fs;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use clusterd::internal::cli;
use clusterd::internal::settings::reference;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let words: Vec<_> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["generate"] => generate(),
        ["man", folder] => man(Path::new(folder)),
        _ => {
            eprintln!("usage: cargo xtask generate\n       cargo xtask man DIR");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: cannot write the files: {error}");
            ExitCode::FAILURE
        }
    }
}

fn generate() -> io::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    fs::write(root.join("config/clusterd.toml"), reference::toml())?;
    fs::write(root.join("docs/settings.md"), reference::markdown())
}

fn man(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    clap_mangen::generate_to(cli::everything(), folder)
}
