//! What a setting is, and the macro that declares them all.
//!
//! It knows no setting by name: those are in [`super::table`].

use std::fmt;

use super::Config;
use super::error::Reason;
use super::kind::{Arity, Automatic, Kind, Values};

/// What is declared of a setting, but for the type of its values.
pub(crate) struct Key {
    /// In the file, and after `--` as a flag.
    pub name: &'static str,
    /// What it is for: the lines of its doc comment.
    pub doc: Doc,
    /// Which values it may have.
    pub values: &'static dyn Values,
    /// When a change takes effect.
    pub in_force: InForce,
    /// Its value where no source names one; `None` stands for an empty list.
    pub default: Option<&'static str>,
    /// Stands for a value in the help, where its values' own placeholder says too little.
    pub placeholder: Option<&'static str>,
    /// The variable that hosting platforms set for it; its own goes before.
    pub platform_variable: Option<&'static str>,
    /// Its short flag.
    pub short: Option<char>,
    /// Another name of its flag.
    pub alias: Option<&'static str>,
    /// Another short flag.
    pub short_alias: Option<char>,
    /// The flag that stands for `false`.
    pub negation: Option<&'static str>,
    /// The key with which it is one matter: the highest source that names either decides both.
    pub decided_with: Option<&'static str>,
    /// The key without which it has no effect.
    pub needs: Option<&'static str>,
    /// The key, and its value, with which it cannot be used.
    pub not_with: Option<(&'static str, &'static str)>,
    /// Its value in force, as `--show-config` has it.
    pub show: fn(&Config) -> String,
}

impl Key {
    /// What a declaration may leave out.
    pub(crate) const UNDECLARED: Key = Key {
        name: "",
        doc: Doc(&[]),
        values: &super::kind::Truth,
        in_force: InForce::AtNextStart,
        default: None,
        placeholder: None,
        platform_variable: None,
        short: None,
        alias: None,
        short_alias: None,
        negation: None,
        decided_with: None,
        needs: None,
        not_with: None,
        show: |_| String::new(),
    };

    /// Its own environment variable: `CLUSTERD_QUEUE_TIMEOUT` for `queue-timeout`.
    pub(crate) fn variable(&self) -> String {
        format!("CLUSTERD_{}", self.name.replace('-', "_").to_ascii_uppercase())
    }

    /// Its own variable, and the platform's if there is one.
    pub(crate) fn variables(&self) -> Vec<String> {
        let platform = self.platform_variable.map(str::to_owned);
        std::iter::once(self.variable()).chain(platform).collect()
    }

    /// Stands for a value in the help.
    pub(crate) fn placeholder(&self) -> String {
        self.placeholder.map_or_else(|| self.values.placeholder(), str::to_owned)
    }

    /// Whether it may have several values.
    pub(crate) fn is_list(&self) -> bool {
        matches!(self.values.arity(), Arity::List { .. } | Arity::Map { .. })
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// When a change of a setting takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InForce {
    /// A reload is enough.
    AtReload,
    /// It was bound, opened or started once, and stays until clusterd is started again.
    AtNextStart,
}

/// The lines of a doc comment: one sentence, then paragraphs, with an empty line between them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Doc(pub &'static [&'static str]);

impl Doc {
    /// What it is for, in one sentence without its full stop.
    pub(crate) fn sentence(self) -> String {
        let sentence = self.paragraphs().into_iter().next().unwrap_or_default();
        sentence.strip_suffix('.').map(str::to_owned).unwrap_or(sentence)
    }

    /// Everything, the sentence first.
    pub(crate) fn paragraphs(self) -> Vec<String> {
        let lines: Vec<_> = self.0.iter().map(|line| line.trim()).collect();
        lines
            .split(|line| line.is_empty())
            .map(|lines| lines.join(" "))
            .filter(|text| !text.is_empty())
            .collect()
    }
}

/// A setting whose values are `T`.
pub(crate) struct Setting<T: 'static> {
    /// What it is called, and so on.
    pub key: Key,
    /// How its values are read and shown.
    pub kind: &'static dyn Kind<T>,
}

impl<T> Setting<T> {
    /// Reads one value; a refusal says what is accepted.
    ///
    /// # Errors
    /// It is not accepted.
    pub(crate) fn read(&self, text: &str, automatic: &Automatic) -> Result<T, Reason> {
        let read = self.kind.read(text, automatic);
        read.map_err(|reason| reason.or_hint(|| format!("use {}", self.kind.accepts())))
    }
}

/// Settings that belong together, under one heading of the help.
#[derive(Debug)]
pub(crate) struct Section {
    /// The heading.
    pub title: &'static str,
    /// What they have in common, if that needs saying.
    pub doc: Doc,
    /// In the order in which people see them.
    pub keys: &'static [&'static Key],
}

/// `queue-timeout` from `queue_timeout`.
pub(crate) const fn dashed<const LEN: usize>(field: &str) -> [u8; LEN] {
    let mut name = [0; LEN];
    let mut at = 0;
    while at < LEN {
        let byte = field.as_bytes()[at];
        name[at] = if byte == b'_' { b'-' } else { byte };
        at += 1;
    }
    name
}

/// Bytes as the text that they are.
pub(crate) const fn text(bytes: &'static [u8]) -> &'static str {
    match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(_) => panic!("a field's name is ASCII"),
    }
}

/// Declares the settings, section by section: [`Config`] with its fields, [`keys`](super::table::keys) with a static for
/// each, [`SECTIONS`](super::table::SECTIONS), and what has to be done for each field when sources meet or change.
macro_rules! settings {
    ($(
        $(#[doc = $section_doc:literal])*
        $title:literal {$(
            $(#[doc = $doc:literal])*
            $field:ident: $type:ty {
                values: $kind:expr,
                in_force: $in_force:ident,
                $($option:ident: $value:expr,)*
            }
        )*}
    )*) => {
        /// Every setting, checked and with its default filled in.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub(crate) struct Config {
            /// What the workers run.
            pub command: WorkerCommand,
            /// Whether nobody has named a port or an address.
            pub listen_is_default: bool,
            /// The folder in which clusterd was started, if a name leads there (see
            /// [`start_folder`](super::start_folder)).
            pub start_folder: Option<PathBuf>,
            $($($(#[doc = $doc])* pub $field: $type,)*)*
        }

        /// Each setting by its field's name.
        #[allow(non_upper_case_globals)]
        pub(crate) mod keys {
            use super::*;

            $($(
                #[doc = concat!("`--`, `", stringify!($field), "`")]
                pub(crate) static $field: Setting<$type> = Setting {
                    key: Key {
                        name: {
                            const FIELD: &str = stringify!($field);
                            const NAME: [u8; FIELD.len()] = dashed(FIELD);
                            text(&NAME)
                        },
                        doc: Doc(&[$($doc),*]),
                        values: &$kind,
                        in_force: InForce::$in_force,
                        show: |config| $field.kind.show(&config.$field),
                        $($option: Some($value),)*
                        ..Key::UNDECLARED
                    },
                    kind: &$kind,
                };
            )*)*
        }

        /// Every setting, in the order in which people see them.
        pub(crate) static SECTIONS: &[Section] = &[$(
            Section {
                title: $title,
                doc: Doc(&[$($section_doc),*]),
                keys: &[$(&keys::$field.key),*],
            },
        )*];

        impl Config {
            /// Reads every setting. `listen_is_default` and `start_folder` are for the caller to fill in.
            pub(super) fn read(command: WorkerCommand, reading: &mut Reading) -> Self {
                Self {
                    command,
                    listen_is_default: false,
                    start_folder: None,
                    $($($field: reading.value(&keys::$field),)*)*
                }
            }

            /// This configuration with what a reload takes from another one.
            pub(super) fn reloaded(&self, new: &Self) -> Self {
                Self {
                    command: new.command.clone(),
                    listen_is_default: self.listen_is_default,
                    start_folder: self.start_folder.clone(),
                    $($($field: match InForce::$in_force {
                        InForce::AtReload => new.$field.clone(),
                        InForce::AtNextStart => self.$field.clone(),
                    },)*)*
                }
            }
        }
    };
}
pub(super) use settings;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_doc_comment_is_a_sentence_and_paragraphs() {
        let doc = Doc(&[" One", " sentence.", "", " More", " to say.", ""]);
        assert_eq!(doc.sentence(), "One sentence");
        assert_eq!(doc.paragraphs(), ["One sentence.", "More to say."]);
    }
}
