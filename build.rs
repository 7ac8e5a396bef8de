//! Builds the shim for the target, compresses the files of the page, and hands them to the crate, which embeds them.
//!
//! The shim needs no crate and no libc, so a bare compiler suffices. Where it is not supported, the cfg `shim` is
//! not set, and the crate says so when it starts.

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

use flate2::Compression;
use flate2::write::GzEncoder;

/// The files of the page.
const PAGE: &str = "src/web/page";

fn main() {
    println!("cargo::rustc-check-cfg=cfg(shim)");
    println!("cargo::rerun-if-changed=src/preload");
    println!("cargo::rerun-if-changed=src/protocol/drain_page.rs");
    println!("cargo::rerun-if-changed=src/protocol/wire.rs");
    println!("cargo::rerun-if-changed=src/sys/proc_fd.rs");
    println!("cargo::rerun-if-changed={PAGE}");
    println!("cargo::rerun-if-env-changed=RUSTC_LINKER");
    let output = variable("OUT_DIR");
    compress_page(&Path::new(&output).join("page"));
    if is_supported() {
        build(&Path::new(&output).join("shim.so"));
        println!("cargo::rustc-cfg=shim");
    }
}

/// Each file of the page under its own name, by gzip.
fn compress_page(output: &Path) {
    let compress = || {
        // What is no file of the page any more is not to stay.
        fs::remove_dir_all(output).or_else(|error| if output.exists() { Err(error) } else { Ok(()) })?;
        fs::create_dir_all(output)?;
        for entry in fs::read_dir(PAGE)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
                std::io::Write::write_all(&mut encoder, &fs::read(entry.path())?)?;
                fs::write(output.join(entry.file_name()), encoder.finish()?)?;
            }
        }
        Ok::<_, std::io::Error>(())
    };
    compress().unwrap_or_else(|error| panic!("cannot compress the page: {error}"));
}

fn is_supported() -> bool {
    variable("CARGO_CFG_TARGET_OS") == "linux"
        && variable("CARGO_CFG_TARGET_POINTER_WIDTH") == "64"
        && variable("CARGO_CFG_TARGET_ENDIAN") == "little"
        && matches!(variable("CARGO_CFG_TARGET_ARCH").as_str(), "x86_64" | "aarch64")
}

fn build(output: &Path) {
    let mut rustc = Command::new(variable("RUSTC"));
    rustc.args(["--crate-name", "clusterd_shim", "--crate-type", "cdylib", "--edition", "2024"]);
    rustc.args([
        "--target",
        &variable("TARGET"),
        "-C",
        "opt-level=s",
        "-C",
        "panic=abort",
        "-C",
        "codegen-units=1",
    ]);
    // With link-time optimisation nothing of `core` is left that wants to unwind: its personality routine is not
    // there to be found.
    rustc.args(["-C", "strip=symbols", "-C", "force-unwind-tables=no", "-C", "lto=fat"]);
    // A target that links statically makes no dynamic libraries unless it is told otherwise.
    if variable("CARGO_CFG_TARGET_ENV") == "musl" {
        rustc.args(["-C", "target-feature=-crt-static"]);
    }
    // Without any library to link to, the names it needs are found in whichever libc the program has.
    for argument in ["-nostdlib", "-nostartfiles", "-Wl,-z,now", "-Wl,-z,relro"] {
        rustc.arg("-C").arg(format!("link-arg={argument}"));
    }
    if let Ok(linker) = env::var("RUSTC_LINKER") {
        rustc.arg("-C").arg(format!("linker={linker}"));
    }
    let status = rustc.arg("-o").arg(output).arg("src/preload/lib.rs").status();
    match status {
        Ok(status) if status.success() => {}
        Ok(status) => panic!("cannot build the shim: {rustc:?}: {status}"),
        Err(error) => panic!("cannot build the shim: {rustc:?}: {error}"),
    }
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|error| panic!("cargo did not set {name}: {error}"))
}
