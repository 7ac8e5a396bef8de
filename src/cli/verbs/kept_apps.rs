//! Apps of the home folder that words mean, whether they run or not.
//!
//! It asks none of them.

use std::collections::BTreeMap;

use super::choose::{NotChosen, Word};
use super::{VerbError, rest};
use crate::home::apps::{AppFolder, Apps};
use crate::home::definition;

/// Those that these words mean, each once; every one if there are no words.
///
/// # Errors
/// A word means none, or is a pattern that is none.
pub(super) fn kept(words: &[String]) -> Result<Vec<AppFolder>, VerbError> {
    let (mut all, ids) = (Apps::of_this_process()?.all(), rest::ids());
    if words.is_empty() {
        return Ok(all);
    }
    let namespaces: BTreeMap<_, _> =
        all.iter().map(|app| (app.name().to_owned(), definition::namespace(app))).collect();
    let names = || namespaces.iter().map(|(name, namespace)| (name.as_str(), namespace.as_str()));
    let read = words.iter().map(|word| Ok(Word::read(word)?.among(names())));
    let read: Vec<_> = read.collect::<Result<_, NotChosen>>()?;
    let is_meant = |word: &Word, app: &AppFolder| {
        word.means(app.name(), &namespaces[app.name()], ids.of_app(app.name()))
    };
    for (text, word) in words.iter().zip(&read) {
        if !matches!(word, Word::All) && !all.iter().any(|app| is_meant(word, app)) {
            let known: Vec<_> = all.iter().map(AppFolder::name).collect();
            return Err(VerbError::NotKept { wanted: text.clone(), known: known.join(", ") });
        }
    }
    all.retain(|app| read.iter().any(|word| is_meant(word, app)));
    Ok(all)
}
