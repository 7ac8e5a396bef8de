//! What is made from the settings and verbs that are declared in src/: files of the tree, and the man pages.
//!
//! `cargo xtask generate` writes config/clusterd.toml, docs/settings.md, docs/clusterd.schema.json and docs/openapi.json; a unit test fails where they are stale.
//! `cargo xtask man DIR` writes clusterd.1, and a page for each verb, for packages.
//! `cargo xtask dist` builds what users install into target/dist ([`dist`]).

mod dist;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clusterd::internal::cli;
use clusterd::internal::control::openapi;
use clusterd::internal::settings::{reference, schema};

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let words: Vec<_> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["generate"] => generate(),
        ["man", folder] => man(Path::new(folder)),
        ["dist", packages @ ..] => dist::dist(&root(), packages),
        _ => {
            eprintln!(
                "usage: cargo xtask generate\n       cargo xtask man DIR\n       cargo xtask dist [PACKAGE...]"
            );
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn root() -> PathBuf {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask).to_owned()
}

fn generate() -> Result<()> {
    let root = root();
    fs::write(root.join("config/clusterd.toml"), reference::toml())?;
    fs::write(root.join("docs/settings.md"), reference::markdown())?;
    fs::write(root.join("docs/clusterd.schema.json"), schema::json())?;
    fs::write(root.join("docs/openapi.json"), openapi::json())?;
    Ok(())
}

fn man(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    Ok(clap_mangen::generate_to(cli::everything(), folder)?)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn the_man_pages_are_complete_and_without_warnings() {
        let folder = tempfile::tempdir().expect("a folder");
        man(folder.path()).expect("written");
        let page = folder.path().join("clusterd.1");
        let text = fs::read_to_string(&page).expect("a page");
        for part in
            ["queue\\-timeout", "CLUSTERD_QUEUE_TIMEOUT", "takes effect at a reload", "clusterd\\-reload"]
        {
            assert!(text.contains(part), "{part}");
        }
        assert!(folder.path().join("clusterd-reload.1").exists());
        // Without groff, nothing more can be said.
        let Ok(output) = Command::new("groff").args(["-man", "-ww", "-z", "-Tutf8"]).arg(&page).output()
        else {
            return;
        };
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    }
}
