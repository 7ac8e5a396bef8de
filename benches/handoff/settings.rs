//! How much a benchmark measures, as its arguments and the environment say.

use std::str::FromStr;

use anyhow::Context;

/// Whether it is only to be shown that everything runs: so it is with `--test` or `--smoke`, and under `cargo test`.
pub(crate) fn is_short() -> bool {
    let has = |flag: &str| std::env::args().any(|argument| argument == flag);
    !has("--bench") || has("--test") || has("--smoke")
}

/// A number from the environment, at least 1.
pub(crate) fn number(name: &str, default: usize) -> anyhow::Result<usize> {
    let Ok(text) = std::env::var(name) else {
        return Ok(default);
    };
    let number: usize = text.parse().with_context(|| format!("{name} is not a number: {text:?}"))?;
    anyhow::ensure!(number > 0, "{name} must be at least 1");
    Ok(number)
}

/// What the environment lists, separated by commas.
pub(crate) fn list<T: FromStr>(name: &str, default: &str) -> Result<Vec<T>, T::Err> {
    let text = std::env::var(name).unwrap_or_else(|_| default.to_owned());
    text.split(',').map(str::parse).collect()
}
