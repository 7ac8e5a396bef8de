//! PM2's own file server, `script: "serve"` with `PM2_SERVE_*` among the variables: which command is that here.
//!
//! Pure. What the folder shows is [`crate::files`]'s concern.

use crate::settings::file_server;

/// Where PM2 serves if nothing is said.
const PORT: &str = "8080";

/// Variables that have no effect here, unless they say this; and what to use instead.
const IN_VAIN: [(&str, &[&str], &str); 5] = [
    ("PM2_SERVE_HOST", &["0.0.0.0"], "clusterd listens on every address; use bind for one"),
    ("PM2_SERVE_HOMEPAGE", &["/index.html", "index.html", "./index.html"], "a folder shows its index.html"),
    ("PM2_SERVE_FTP", &["false"], "folders are not listed"),
    ("PM2_SERVE_DIRECTORY", &["false"], "folders are not listed"),
    ("PM2_SERVE_MONITOR", &[], "nothing is sent anywhere"),
];

/// What runs.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Served {
    /// The command of the workers.
    pub words: Vec<String>,
    /// Where clients connect to, unless something else says so.
    pub port: String,
    /// Variables without an effect, and what to use instead.
    pub in_vain: Vec<(&'static str, &'static str)>,
}

/// The server that these variables and arguments ask for. A variable counts before an argument.
pub(super) fn served(variable: impl Fn(&str) -> Option<String>, arguments: &[String]) -> Served {
    let said = |name: &str, at: usize| variable(name).or_else(|| arguments.get(at).cloned());
    let is_true = |name: &str| variable(name).is_some_and(|value| value == "true");
    let folder = said("PM2_SERVE_PATH", 0).unwrap_or_else(|| ".".to_owned());
    let mut words = vec![file_server::PROGRAM.to_owned(), file_server::VERB.to_owned(), folder];
    words.extend(is_true("PM2_SERVE_SPA").then(|| file_server::SPA.to_owned()));
    words.extend(is_true("PM2_SERVE_BASIC_AUTH").then(|| file_server::BASIC_AUTH.to_owned()));
    let is_in_vain = |(name, harmless, _): &&(&'static str, &[&str], &'static str)| {
        variable(name).is_some_and(|value| !harmless.contains(&value.as_str()))
    };
    let in_vain = IN_VAIN.iter().filter(is_in_vain).map(|(name, _, instead)| (*name, *instead)).collect();
    Served { words, port: said("PM2_SERVE_PORT", 1).unwrap_or_else(|| PORT.to_owned()), in_vain }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Variables<'a> = &'a [(&'a str, &'a str)];

    fn of(variables: Variables<'_>, arguments: &[&str]) -> Served {
        let get = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        served(get, &arguments.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn variables_are_arguments_of_the_file_server() {
        let table: [(Variables<'_>, &[&str], &str, &str); 4] = [
            (&[], &[], "clusterd serve-worker .", "8080"),
            (&[], &["./dist", "3000"], "clusterd serve-worker ./dist", "3000"),
            (
                &[("PM2_SERVE_PATH", "/srv"), ("PM2_SERVE_PORT", "80"), ("PM2_SERVE_SPA", "true")],
                &["./dist", "3000"],
                "clusterd serve-worker /srv --spa",
                "80",
            ),
            (
                &[("PM2_SERVE_BASIC_AUTH", "true"), ("PM2_SERVE_SPA", "1")],
                &[],
                "clusterd serve-worker . --basic-auth",
                "8080",
            ),
        ];
        for (variables, arguments, words, port) in table {
            let served = of(variables, arguments);
            assert_eq!(
                (served.words.join(" ").as_str(), served.port.as_str()),
                (words, port),
                "{variables:?}"
            );
            assert!(served.in_vain.is_empty());
        }
    }

    #[test]
    fn what_has_no_effect_is_named() {
        let names = |variables: Variables<'_>| {
            of(variables, &[]).in_vain.into_iter().map(|(name, _)| name).collect::<Vec<_>>()
        };
        assert_eq!(names(&[("PM2_SERVE_HOMEPAGE", "./index.html"), ("PM2_SERVE_FTP", "false")]), [""; 0]);
        assert_eq!(
            names(&[("PM2_SERVE_HOMEPAGE", "/start.html"), ("PM2_SERVE_HOST", "::1")]),
            ["PM2_SERVE_HOST", "PM2_SERVE_HOMEPAGE"]
        );
    }
}
