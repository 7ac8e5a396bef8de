//! Words that were meant for a verb: mistyped ones, and those of other tools.
//!
//! It only advises.

use super::names;

/// What other tools (PM2, systemctl, supervisorctl, docker) call something, what comes nearest here, and whether no server
/// has this name: a program that is not meant must not run.
const OF_OTHERS: [(&str, &str, bool); 9] = [
    ("halt", "stop", true),
    ("shutdown", "stop", true),
    ("quit", "stop", true),
    ("rm", "delete", true),
    ("down", "stop", false),
    ("top", "monit", true),
    ("inspect", "describe", false),
    ("logtail", "logs", false),
    ("tail", "logs", false),
];

/// Whether this first argument is a word of another tool, and not a server's name.
pub(crate) fn is_of_others(word: &str) -> bool {
    OF_OTHERS.iter().any(|(name, _, is_no_server)| *name == word && *is_no_server)
}

/// What to say of a first argument that is neither a verb nor a program: the nearest verb, if one is near.
pub(crate) fn advice(word: &str) -> String {
    match nearest(word) {
        Some(verb) => format!("did you mean `clusterd {verb}`?"),
        None => "for a program, check the spelling, or give the full path; `clusterd --help` has the commands of clusterd".to_owned(),
    }
}

/// The verb that may have been meant by this word.
fn nearest(word: &str) -> Option<String> {
    if let Some((_, verb, _)) = OF_OTHERS.iter().find(|(name, ..)| *name == word) {
        return Some((*verb).to_owned());
    }
    names()
        .map(|name| (strsim::damerau_levenshtein(word, &name), name))
        .filter(|(distance, name)| name.len() > 2 && *distance <= 1 + name.len() / 4)
        .min()
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_word_of_others_leads_to_a_verb_and_is_none() {
        let verbs: Vec<_> = names().collect();
        for (word, verb, _) in OF_OTHERS {
            assert!(verbs.iter().any(|known| known == verb), "{verb}");
            assert!(verbs.iter().all(|known| known != word), "{word}");
        }
    }

    #[test]
    fn the_nearest_verb_is_named() {
        for (word, verb) in [("halt", "stop"), ("relaod", "reload"), ("strat", "start"), ("lst", "list")] {
            assert_eq!(advice(word), format!("did you mean `clusterd {verb}`?"));
        }
        assert!(advice("gunicorn").starts_with("for a program, check the spelling"));
    }
}
