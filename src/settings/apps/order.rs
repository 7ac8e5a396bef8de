//! In which order the apps of a file are started: each after those that it depends on.
//!
//! Pure. When an app is ready, and what is done if it never is, is for others to say.

use super::super::error::{Problem, Reason};
use super::super::file::nearest;
use super::App;

/// The apps' places in the file, in the order in which they may be started; where nothing else is said, that of the file.
///
/// # Errors
/// An app depends on one that is not there, or, in the end, on itself.
pub(crate) fn order(apps: &[App]) -> Result<Vec<usize>, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut needs = Vec::new();
    for app in apps {
        let mut of_app = Vec::new();
        for needed in &app.depends_on {
            match apps.iter().position(|other| other.name.text == needed.text) {
                Some(place) => of_app.push(place),
                None => problems.push(Problem::together(needed, unknown(apps, &needed.text))),
            }
        }
        needs.push(of_app);
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let mut walk = Walk { apps, needs, path: Vec::new(), order: Vec::new() };
    (0..apps.len()).try_for_each(|place| walk.visit(place)).map_err(|cycle| vec![cycle])?;
    Ok(walk.order)
}

fn unknown(apps: &[App], name: &str) -> Reason {
    let names = apps.iter().map(|app| app.name.text.as_str());
    let reason = Reason::new(format!("no app {name} in this file"));
    match nearest(name, names.clone()) {
        Some(nearest) => reason.hint(format!("did you mean {nearest}?")),
        None => reason.hint(format!("its apps are {}", names.collect::<Vec<_>>().join(", "))),
    }
}

struct Walk<'a> {
    apps: &'a [App],
    needs: Vec<Vec<usize>>,
    /// From where the walk began to where it is.
    path: Vec<usize>,
    order: Vec<usize>,
}

impl Walk<'_> {
    fn visit(&mut self, place: usize) -> Result<(), Problem> {
        if self.order.contains(&place) {
            return Ok(());
        }
        if let Some(begin) = self.path.iter().position(|&other| other == place) {
            let cycle = self.path.get(begin..).unwrap_or_default().iter().chain([&place]);
            let names: Vec<_> = cycle.map(|&place| self.apps[place].name.text.as_str()).collect();
            let value = &self.apps[place].depends_on[0];
            let reason = Reason::new(format!("each waits for another: {}", names.join(" -> ")));
            return Err(Problem::together(value, reason.hint("leave one of these out")));
        }
        self.path.push(place);
        for needed in self.needs[place].clone() {
            self.visit(needed)?;
        }
        self.path.pop();
        self.order.push(place);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::super::toml;
    use super::*;

    fn apps(depends: &[(&str, &[&str])]) -> Vec<App> {
        let text: String = depends
            .iter()
            .map(|(name, needs)| format!("[app.{name}]\ncommand = ['x']\ndepends-on = {needs:?}\n"))
            .collect();
        toml::read(Path::new("clusterd.toml"), &text).expect("valid").apps
    }

    fn names(apps: &[App]) -> Vec<&str> {
        let order = order(apps).expect("an order");
        order.into_iter().map(|place| apps[place].name.text.as_str()).collect()
    }

    #[test]
    fn what_is_needed_comes_first_and_else_the_file_decides() {
        assert_eq!(names(&apps(&[("c", &[]), ("a", &[]), ("b", &[])])), ["c", "a", "b"]);
        assert_eq!(
            names(&apps(&[("web", &["db", "cache"]), ("cache", &[]), ("db", &[])])),
            ["db", "cache", "web"]
        );
        assert_eq!(names(&apps(&[("a", &["b"]), ("b", &["c"]), ("c", &[])])), ["c", "b", "a"]);
    }

    #[test]
    fn cycles_and_unknown_names_are_errors() {
        let said = |depends: &[(&str, &[&str])]| {
            let problems = order(&apps(depends)).expect_err("wrong");
            problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n")
        };
        insta::assert_snapshot!(said(&[("a", &["b"]), ("b", &["c"]), ("c", &["a"])]), @r#"
        clusterd.toml:3: depends-on = ["b"]: each waits for another: a -> b -> c -> a
        hint: leave one of these out
        "#);
        insta::assert_snapshot!(said(&[("a", &["a"])]), @r#"
        clusterd.toml:3: depends-on = ["a"]: each waits for another: a -> a
        hint: leave one of these out
        "#);
        insta::assert_snapshot!(said(&[("web", &["dbs"]), ("db", &["nowhere-near"])]), @r#"
        clusterd.toml:3: depends-on = ["dbs"]: no app dbs in this file
        hint: did you mean db?
        clusterd.toml:6: depends-on = ["nowhere-near"]: no app nowhere-near in this file
        hint: its apps are web, db
        "#);
    }

    proptest! {
        #[test]
        fn each_app_comes_once_and_after_what_it_needs(needs in proptest::collection::vec(proptest::collection::vec(any::<prop::sample::Index>(), 0..3), 1..9)) {
            // Only earlier ones are needed, so there is no cycle; the file has them the other way round.
            let lists: Vec<(String, Vec<String>)> = needs.iter().enumerate().map(|(place, needs)| {
                let needs = needs.iter().filter(|_| place > 0).map(|index| format!("a{}", index.index(place.max(1))));
                (format!("a{place}"), needs.collect())
            }).rev().collect();
            let borrowed: Vec<(&str, Vec<&str>)> = lists.iter().map(|(name, needs)| (name.as_str(), needs.iter().map(String::as_str).collect())).collect();
            let slices: Vec<(&str, &[&str])> = borrowed.iter().map(|(name, needs)| (*name, needs.as_slice())).collect();
            let apps = apps(&slices);
            let order = order(&apps).expect("an order");
            prop_assert_eq!(order.len(), apps.len());
            for (at, &place) in order.iter().enumerate() {
                for needed in &apps[place].depends_on {
                    let before = order[..at].iter().any(|&other| apps[other].name.text == needed.text);
                    prop_assert!(before, "{} before {}", needed.text, apps[place].name.text);
                }
            }
        }
    }
}
