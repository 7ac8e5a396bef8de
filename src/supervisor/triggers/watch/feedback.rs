//! Whether the app itself writes what is watched, so that each reload brings about the next.
//!
//! Pure: it is told what has changed, and how long workers had been ready then. It ignores nothing for good: what looks like
//! it is reloaded for less and less often.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// For how long workers are new once they are ready: what they write of themselves, they write then.
const NEW_FOR: Duration = Duration::from_secs(2);

/// What an app writes by a timer, it writes as long after each start, give or take this.
const JITTER: Duration = Duration::from_millis(250);

/// So many reloads in a row are brought about by a change of the same file before it is taken for the app's own. Somebody who
/// saves a file twice does so while workers are new, too.
const SAME_FILE: u32 = 3;
/// The same for changes in the same folder, of files that have other names each time.
const SAME_FOLDER: u32 = 6;

/// How long the next reload waits then, at first and at most.
const FIRST_DELAY: Duration = Duration::from_secs(1);
const LONGEST_DELAY: Duration = Duration::from_secs(60);

/// More reloads in a row need not be counted for that.
const MOST_RELOADS: u32 = 12;

/// So many files that one reload is for are remembered.
const MOST: usize = 256;

/// How long workers had been ready at the changes of a file; no time while some were not.
#[derive(Clone, Copy, Debug)]
struct Ages {
    shortest: Duration,
    longest: Duration,
}

impl Ages {
    fn of(age: Duration) -> Self {
        Self { shortest: age, longest: age }
    }

    fn with(self, other: Ages) -> Self {
        Self { shortest: self.shortest.min(other.shortest), longest: self.longest.max(other.longest) }
    }

    /// Workers were new each time.
    fn are_new(self) -> bool {
        self.longest < NEW_FOR
    }
}

/// What has changed since the last reload.
#[derive(Debug, Default)]
pub(super) struct Round {
    /// The files.
    files: BTreeMap<PathBuf, Ages>,
    /// There are more of them.
    are_more: bool,
}

impl Round {
    /// This has changed, when workers had been ready for so long.
    pub(super) fn add(&mut self, path: PathBuf, age: Duration) {
        if self.files.len() == MOST && !self.files.contains_key(&path) {
            self.are_more = true;
            return;
        }
        let ages = self.files.entry(path).or_insert(Ages::of(age));
        *ages = ages.with(Ages::of(age));
    }

    /// One that has changed; `None` if nothing has.
    pub(super) fn any(&self) -> Option<&Path> {
        self.files.keys().next().map(PathBuf::as_path)
    }

    /// The folders with files that have changed.
    fn folders(&self) -> BTreeMap<PathBuf, Ages> {
        let mut folders = BTreeMap::new();
        for (file, ages) in &self.files {
            let all = folders.entry(folder(file).to_owned()).or_insert(*ages);
            *all = all.with(*ages);
        }
        folders
    }
}

/// What seems to be the app's own doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Feedback {
    /// What is written, or the folder that it is in.
    pub(super) path: PathBuf,
    /// How long to wait before the next.
    pub(super) delay: Duration,
}

/// Which changes have brought about reloads while workers were new, or as long after the last reload as after the one before.
#[derive(Debug, Default)]
pub(super) struct Recurrence {
    files: BTreeMap<PathBuf, Count>,
    folders: BTreeMap<PathBuf, Count>,
}

/// How many reloads in a row, and how long workers had been ready the last time.
#[derive(Debug)]
struct Count {
    reloads: u32,
    age: Duration,
}

impl Recurrence {
    /// A reload is due for these changes. Whether all of them seem to be the app's own.
    pub(super) fn note(&mut self, round: &Round) -> Option<Feedback> {
        count(&mut self.files, &round.files);
        count(&mut self.folders, &round.folders());
        let is_own = !round.are_more && round.files.keys().all(|file| self.explains(file));
        if is_own { self.most(round) } else { None }
    }

    /// Whether a change of this file is like those that seem to be the app's own: of one of the same files, of one beside
    /// them, such as a temporary one, or in one of the same folders.
    pub(super) fn explains(&self, file: &Path) -> bool {
        let (folder_of, in_folder) = (folder(file), self.folders.get(folder(file)));
        let mut own = self.files.iter().filter(|(_, count)| count.reloads >= SAME_FILE);
        own.any(|(own, _)| folder(own) == folder_of)
            || in_folder.is_some_and(|count| count.reloads >= SAME_FOLDER)
    }

    /// What of these changes has come most often.
    fn most(&self, round: &Round) -> Option<Feedback> {
        let folders: BTreeSet<&Path> = round.files.keys().map(|file| folder(file)).collect();
        let beyond = |(path, count): (&PathBuf, &Count), least: u32| {
            Some((count.reloads.checked_sub(least)?, path.clone()))
        };
        let files = self.files.iter().filter(|(file, _)| round.files.contains_key(*file));
        let files = files.filter_map(|file| beyond(file, SAME_FILE));
        let folders = self.folders.iter().filter(|(folder, _)| folders.contains(folder.as_path()));
        let folders = folders.filter_map(|folder| beyond(folder, SAME_FOLDER));
        let (beyond, path) = files.chain(folders).max()?;
        let delay = FIRST_DELAY.saturating_mul(1 << beyond).min(LONGEST_DELAY);
        Some(Feedback { path, delay })
    }
}

/// One more for each that has changed while workers were new, or as long after they were ready as the last time. What has
/// changed otherwise is somebody else's doing, and what has not changed this time counts for less.
fn count(counted: &mut BTreeMap<PathBuf, Count>, changed: &BTreeMap<PathBuf, Ages>) {
    for (path, count) in counted.iter_mut() {
        count.reloads = match changed.get(path) {
            Some(ages) if ages.are_new() || ages.shortest.abs_diff(count.age) <= JITTER => {
                (count.reloads + 1).min(MOST_RELOADS)
            }
            Some(_) => 0,
            None => count.reloads.saturating_sub(1),
        };
        count.age = changed.get(path).map_or(count.age, |ages| ages.shortest);
    }
    for (path, ages) in changed {
        let first = || Count { reloads: ages.are_new().into(), age: ages.shortest };
        counted.entry(path.clone()).or_insert_with(first);
    }
    counted.retain(|path, count| count.reloads > 0 || changed.contains_key(path));
}

fn folder(file: &Path) -> &Path {
    file.parent().unwrap_or(file)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// These files, with how many tenths of a second workers had been ready.
    fn round(changed: &[(&str, u64)]) -> Round {
        let mut round = Round::default();
        changed.iter().for_each(|(file, age)| round.add(file.into(), Duration::from_millis(age * 100)));
        round
    }

    /// How many seconds each of these reloads waits.
    fn delays(rounds: &[&[(&str, u64)]]) -> Vec<u64> {
        let mut recurrence = Recurrence::default();
        let noted = rounds.iter().map(|changed| recurrence.note(&round(changed)));
        noted.map(|feedback| feedback.map_or(0, |feedback| feedback.delay.as_secs())).collect()
    }

    #[test]
    fn a_file_that_changes_whenever_workers_are_new_is_the_apps_own() {
        let own: &[(&str, u64)] = &[("/app/state.json", 0)];
        assert_eq!(delays(&[own; 10]), [0, 0, 1, 2, 4, 8, 16, 32, 60, 60]);
        let mut recurrence = Recurrence::default();
        let noted: Vec<_> = (0..4).map(|_| recurrence.note(&round(own))).collect();
        let expected = Feedback { path: "/app/state.json".into(), delay: Duration::from_secs(2) };
        assert_eq!(noted[3], Some(expected));
    }

    #[test]
    fn so_is_one_that_changes_as_long_after_each_start() {
        let after = |tenths: [u64; 6]| {
            let rounds = tenths.map(|age| [("/app/state.json", age)]);
            delays(&rounds.each_ref().map(|round| &round[..]))
        };
        assert_eq!(after([50, 51, 49, 50, 51, 50]), [0, 0, 0, 1, 2, 4]);
        assert_eq!(after([600; 6]), [0, 0, 0, 1, 2, 4]);
        assert_eq!(after([50, 55, 60, 65, 70, 75]), [0; 6]);
        assert_eq!(after([50, 51, 50, 80, 81, 80]), [0; 6]);
    }

    #[test]
    fn what_somebody_saves_is_reloaded_at_once() {
        let saved = [100, 200, 400, 800].map(|age| [("/app/server.js", age)]);
        let saved: Vec<&[_]> = saved.iter().map(|round| &round[..]).collect();
        let own: &[(&str, u64)] = &[("/app/tmp/state.json", 1)];
        let both: &[(&str, u64)] = &[("/app/tmp/state.json", 1), ("/app/server.js", 1)];
        assert_eq!(delays(&saved), [0; 4]);
        assert_eq!(delays(&[own, own, own, both, own]), [0, 0, 1, 0, 4]);
        // It is known for some time, and not for ever.
        assert_eq!(delays(&[own, own, own, own, saved[0], own]), [0, 0, 1, 2, 0, 2]);
        assert_eq!(delays(&[own, own, own, saved[0], saved[1], saved[2], own]), [0, 0, 1, 0, 0, 0, 0]);
        // The file is the app's no more once it changes while no worker is new.
        let later: &[(&str, u64)] = &[("/app/tmp/state.json", 300)];
        assert_eq!(delays(&[own, own, own, later, own, own]), [0, 0, 1, 0, 0, 0]);
    }

    #[test]
    fn a_temporary_file_beside_it_is_the_apps_own_too() {
        let names = ["a", "b", "c", "d"].map(|name| format!("/app/tmp/state.{name}"));
        let rounds = names.each_ref().map(|name| [("/app/tmp/state.json", 0), (name.as_str(), 0)]);
        assert_eq!(delays(&rounds.each_ref().map(|round| &round[..])), [0, 0, 1, 2]);
    }

    #[test]
    fn files_that_have_other_names_each_time_are_told_by_their_folder() {
        let names: Vec<String> = (0..8).map(|number| format!("/app/uploads/{number}")).collect();
        let mut recurrence = Recurrence::default();
        let noted: Vec<_> = names.iter().map(|name| recurrence.note(&round(&[(name, 0)]))).collect();
        assert!(noted[..5].iter().all(Option::is_none), "{noted:?}");
        let delay = Duration::from_secs(1);
        assert_eq!(noted[5], Some(Feedback { path: "/app/uploads".into(), delay }));
        assert!(recurrence.explains(Path::new("/app/uploads/9")));
        assert!(!recurrence.explains(Path::new("/app/server.js")));
    }

    #[test]
    fn more_than_is_remembered_is_nobodys_in_particular() {
        let mut recurrence = Recurrence::default();
        for _ in 0..10 {
            let mut many = Round::default();
            (0..=MOST).for_each(|number| many.add(format!("/app/{number}").into(), Duration::ZERO));
            assert_eq!(recurrence.note(&many), None);
        }
    }

    proptest! {
        #[test]
        fn it_remembers_little_and_waits_no_longer_than_a_minute(
            rounds in prop::collection::vec(prop::collection::vec((0..600u32, 0..4u64), 0..300), 0..20),
        ) {
            let mut recurrence = Recurrence::default();
            for changes in rounds {
                let mut round = Round::default();
                changes.iter().for_each(|(file, age)| {
                    round.add(format!("/{}/{file}", file % 7).into(), Duration::from_secs(*age));
                });
                let feedback = recurrence.note(&round);
                prop_assert!(feedback.is_none_or(|feedback| feedback.delay <= LONGEST_DELAY));
                prop_assert!(recurrence.folders.len() <= 7);
                prop_assert!(recurrence.files.len() <= MOST * (MOST_RELOADS as usize + 1));
            }
        }
    }
}
