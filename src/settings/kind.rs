//! What the values of a setting may be: how one is read, shown, and described to people.
//!
//! The kinds that settings share are here; those of one setting or two are in [`super::parse`].

use std::fmt::{self, Display};
use std::marker::PhantomData;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;
use clap::ValueEnum;
use clap::builder::PossibleValue;
use serde_json::json;

use super::error::Reason;
use super::parse::is_digits;

/// What the words `max` and `auto` stand for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Automatic {
    /// The number of workers.
    pub workers: NonZeroU32,
    /// The name of the app.
    pub name: String,
}

/// How many values a setting may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arity {
    /// Just one.
    One,
    /// One, `true` or `false`; the flag alone stands for `true`.
    Switch,
    /// Several: a repeated flag, a list in the file, commas in the environment.
    List {
        /// A valid list, as the file has it.
        example: &'static str,
    },
    /// Several with a name each, of all sources together: a repeated flag, a table in the file, commas in the environment.
    Map {
        /// A valid table, as the file has it on one line.
        example: &'static str,
    },
}

/// The values of a setting, as far as people are concerned.
pub(crate) trait Values: Sync {
    /// Stands for a value in the help.
    fn placeholder(&self) -> String;

    /// Which values there are, to follow "use": `a number from 1 to 1024`.
    fn accepts(&self) -> String;

    /// The least and the greatest, if there are bounds.
    fn range(&self) -> Option<String> {
        None
    }

    /// The words, if only a few are accepted.
    fn words(&self) -> Vec<PossibleValue> {
        Vec::new()
    }

    /// How many there may be.
    fn arity(&self) -> Arity {
        Arity::One
    }

    /// Whether the file has to have it in quotes: a number or a truth is not meant.
    fn is_text(&self) -> bool {
        false
    }

    /// One value as the file may have it, for JSON Schema: not narrower than what is read.
    fn schema(&self) -> serde_json::Value {
        if self.is_text() { json!({ "type": "string" }) } else { json!({ "type": ["string", "integer"] }) }
    }
}

/// The same, and what each of them means.
pub(crate) trait Kind<T>: Values {
    /// Reads one value.
    fn read(&self, text: &str, automatic: &Automatic) -> Result<T, Reason>;

    /// The value as [`read`](Kind::read) takes it.
    fn show(&self, value: &T) -> String;

    /// All values that were read as one; `None` if there has to be one and is not.
    fn join(&self, mut values: Vec<T>) -> Option<T> {
        values.pop()
    }
}

/// A whole number within bounds.
#[derive(Debug)]
pub(crate) struct Number {
    min: i64,
    max: i64,
}

/// From `min` to `max`, both of which the setting's type can hold.
pub(crate) const fn number(min: i64, max: i64) -> Number {
    Number { min, max }
}

impl Values for Number {
    fn placeholder(&self) -> String {
        "N".to_owned()
    }

    fn accepts(&self) -> String {
        format!("a number from {} to {}", self.min, self.max)
    }

    fn range(&self) -> Option<String> {
        Some(format!("{} to {}", self.min, self.max))
    }

    fn schema(&self) -> serde_json::Value {
        let digits = json!({ "type": "string", "pattern": "^-?[0-9]+$" });
        json!({ "anyOf": [{ "type": "integer", "minimum": self.min, "maximum": self.max }, digits] })
    }
}

impl<T: FromStr + Display> Kind<T> for Number {
    fn read(&self, text: &str, _: &Automatic) -> Result<T, Reason> {
        // The standard library's numbers may have a plus sign as well.
        if !is_digits(text.strip_prefix('-').unwrap_or(text)) {
            return Err(Reason::new("not a whole number"));
        }
        let is_within = text.parse().is_ok_and(|number| (self.min..=self.max).contains(&number));
        text.parse().ok().filter(|_| is_within).ok_or_else(|| Reason::new("out of range"))
    }

    fn show(&self, value: &T) -> String {
        value.to_string()
    }
}

/// A duration within bounds.
#[derive(Debug)]
pub(crate) struct Span {
    min: &'static str,
    max: &'static str,
}

/// From `min` to `max`, each with its unit.
pub(crate) const fn duration(min: &'static str, max: &'static str) -> Span {
    Span { min, max }
}

impl Span {
    fn with_unit(&self, text: &str) -> Result<Duration, Reason> {
        let outside = || Reason::new("out of range");
        // humantime panics where the sum of several parts overflows; no accepted duration needs that many digits.
        if text.bytes().filter(u8::is_ascii_digit).count() > 18 {
            return Err(outside());
        }
        let read = |text| humantime::parse_duration(text).map_err(|_| Reason::new("not a duration"));
        match humantime::parse_duration(text) {
            Ok(duration) if (read(self.min)?..=read(self.max)?).contains(&duration) => Ok(duration),
            Ok(_) | Err(humantime::DurationError::NumberOverflow) => Err(outside()),
            Err(_) => Err(Reason::new("not a duration")),
        }
    }
}

impl Values for Span {
    fn placeholder(&self) -> String {
        "DURATION".to_owned()
    }

    fn accepts(&self) -> String {
        format!("a duration from {} to {}, such as 500ms, 8s or 2m", self.min, self.max)
    }

    fn range(&self) -> Option<String> {
        Some(format!("{} to {}", self.min, self.max))
    }

    fn schema(&self) -> serde_json::Value {
        json!({ "type": "string", "pattern": "^([0-9]+(\\.[0-9]+)? *[a-zA-Zµ]+ *)+$" })
    }
}

impl Kind<Duration> for Span {
    fn read(&self, text: &str, _: &Automatic) -> Result<Duration, Reason> {
        if !is_digits(text) {
            return self.with_unit(text);
        }
        let units =
            [("s", "seconds"), ("ms", "milliseconds")].map(|(unit, name)| (format!("{text}{unit}"), name));
        let fits = units.into_iter().filter(|(duration, _)| self.with_unit(duration).is_ok());
        let right: Vec<_> = fits.map(|(duration, name)| format!("{duration} for {name}")).collect();
        Err(match right.is_empty() {
            true => Reason::new("out of range"),
            false => Reason::new("a duration needs a unit").hint(format!("use {}", right.join(", "))),
        })
    }

    fn show(&self, value: &Duration) -> String {
        humantime::format_duration(*value).to_string()
    }
}

/// An amount of memory. Every unit is of 1024, as in PM2 and Docker: 1K, 1KB and 1KiB are the same. (The crate takes
/// the first two for 1000.)
#[derive(Debug)]
pub(crate) struct Memory;

impl Memory {
    const MIN: ByteSize = ByteSize::mib(1);
    const MAX: ByteSize = ByteSize::tib(1024);
}

impl Values for Memory {
    fn placeholder(&self) -> String {
        "SIZE".to_owned()
    }

    fn accepts(&self) -> String {
        "a size from 1M to 1024T, such as 512M or 1.5G".to_owned()
    }

    fn range(&self) -> Option<String> {
        Some("1M to 1024T".to_owned())
    }

    fn schema(&self) -> serde_json::Value {
        json!({ "type": "string", "pattern": "^[0-9.]+ *[kKmMgGtT]([iI]?[bB])?$" })
    }
}

impl Kind<ByteSize> for Memory {
    fn read(&self, text: &str, _: &Automatic) -> Result<ByteSize, Reason> {
        let not_a_size = || Reason::new("not a size");
        let lower = text.to_ascii_lowercase();
        let stem = lower.strip_suffix('b').unwrap_or(&lower);
        let stem = stem.strip_suffix('i').unwrap_or(stem);
        if !stem.ends_with(['k', 'm', 'g', 't']) {
            return Err(not_a_size());
        }
        let size = format!("{stem}ib").parse().map_err(|_| not_a_size())?;
        (Self::MIN..=Self::MAX).contains(&size).then_some(size).ok_or_else(|| Reason::new("out of range"))
    }

    fn show(&self, value: &ByteSize) -> String {
        value.to_string()
    }
}

/// One of a few words: those of an enum, with their aliases and documentation.
pub(crate) struct Choice<E>(PhantomData<fn() -> E>);

/// The words of `E`.
pub(crate) const fn choice<E: ValueEnum>() -> Choice<E> {
    Choice(PhantomData)
}

impl<E: ValueEnum> Values for Choice<E> {
    fn placeholder(&self) -> String {
        names::<E>().join("|")
    }

    fn accepts(&self) -> String {
        or(&names::<E>())
    }

    fn words(&self) -> Vec<PossibleValue> {
        E::value_variants().iter().filter_map(ValueEnum::to_possible_value).collect()
    }

    fn schema(&self) -> serde_json::Value {
        let words = self.words();
        let names = words.iter().flat_map(|word| word.get_name_and_aliases().map(str::to_owned));
        json!({ "enum": names.collect::<Vec<_>>() })
    }
}

impl<E: ValueEnum> Kind<E> for Choice<E> {
    fn read(&self, text: &str, _: &Automatic) -> Result<E, Reason> {
        E::from_str(text, false).map_err(|_| Reason::new("not a known word"))
    }

    fn show(&self, value: &E) -> String {
        word(value)
    }
}

/// The word for this value.
pub(crate) fn word<E: ValueEnum>(value: &E) -> String {
    value.to_possible_value().map(|word| word.get_name().to_owned()).unwrap_or_default()
}

fn names<E: ValueEnum>() -> Vec<String> {
    E::value_variants().iter().map(word).collect()
}

/// `a, b or c`.
pub(crate) fn or(words: &[String]) -> String {
    match words.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
        None => String::new(),
    }
}

/// `true` or `false`.
#[derive(Debug)]
pub(crate) struct Truth;

impl Values for Truth {
    fn placeholder(&self) -> String {
        "true|false".to_owned()
    }

    fn accepts(&self) -> String {
        "true or false".to_owned()
    }

    fn words(&self) -> Vec<PossibleValue> {
        ["true", "false"].map(PossibleValue::new).into()
    }

    fn arity(&self) -> Arity {
        Arity::Switch
    }

    fn schema(&self) -> serde_json::Value {
        json!({ "enum": [true, false, "true", "false"] })
    }
}

impl Kind<bool> for Truth {
    fn read(&self, text: &str, _: &Automatic) -> Result<bool, Reason> {
        text.parse().map_err(|_| Reason::new("neither true nor false"))
    }

    fn show(&self, value: &bool) -> String {
        value.to_string()
    }
}

/// Whatever one function reads: the kind of a single setting, or of two.
pub(crate) struct Parsed<T> {
    /// Stands for a value in the help.
    pub placeholder: &'static str,
    /// Which values there are, to follow "use".
    pub accepts: &'static str,
    /// Reads one.
    pub read: fn(&str) -> Result<T, Reason>,
    /// Shows one.
    pub show: fn(&T) -> String,
}

impl<T> Values for Parsed<T> {
    fn placeholder(&self) -> String {
        self.placeholder.to_owned()
    }

    fn accepts(&self) -> String {
        self.accepts.to_owned()
    }
}

impl<T> Kind<T> for Parsed<T> {
    fn read(&self, text: &str, _: &Automatic) -> Result<T, Reason> {
        (self.read)(text)
    }

    fn show(&self, value: &T) -> String {
        (self.show)(value)
    }
}

/// Another kind, or the word `off`.
#[derive(Debug)]
pub(crate) struct OrOff<K>(pub K);

/// The word that switches a setting off.
pub(crate) const OFF: &str = "off";

impl<K: Values> Values for OrOff<K> {
    fn placeholder(&self) -> String {
        self.0.placeholder()
    }

    fn accepts(&self) -> String {
        format!("{}, or \"{OFF}\"", self.0.accepts())
    }

    fn range(&self) -> Option<String> {
        self.0.range()
    }

    fn is_text(&self) -> bool {
        self.0.is_text()
    }

    fn schema(&self) -> serde_json::Value {
        json!({ "anyOf": [self.0.schema(), { "const": OFF }] })
    }
}

impl<T, K: Kind<T>> Kind<Option<T>> for OrOff<K> {
    fn read(&self, text: &str, automatic: &Automatic) -> Result<Option<T>, Reason> {
        if text == OFF { Ok(None) } else { self.0.read(text, automatic).map(Some) }
    }

    fn show(&self, value: &Option<T>) -> String {
        value.as_ref().map_or_else(|| OFF.to_owned(), |value| self.0.show(value))
    }
}

/// Another kind, or the word `auto`.
#[derive(Debug)]
pub(crate) struct OrAuto<K>(pub K);

const AUTO: &str = "auto";

impl<K: Values> Values for OrAuto<K> {
    fn placeholder(&self) -> String {
        self.0.placeholder()
    }

    fn accepts(&self) -> String {
        format!("{}, or \"{AUTO}\"", self.0.accepts())
    }

    fn range(&self) -> Option<String> {
        self.0.range()
    }

    fn is_text(&self) -> bool {
        self.0.is_text()
    }

    fn schema(&self) -> serde_json::Value {
        json!({ "anyOf": [self.0.schema(), { "const": AUTO }] })
    }
}

impl<T, K: Kind<T>> Kind<Option<T>> for OrAuto<K> {
    fn read(&self, text: &str, automatic: &Automatic) -> Result<Option<T>, Reason> {
        if text == AUTO { Ok(None) } else { self.0.read(text, automatic).map(Some) }
    }

    fn show(&self, value: &Option<T>) -> String {
        value.as_ref().map_or_else(|| AUTO.to_owned(), |value| self.0.show(value))
    }
}

/// Several of another kind, or none.
#[derive(Debug)]
pub(crate) struct List<K> {
    each: K,
    example: &'static str,
}

/// Values of one kind; the example is a list of them as the file has it.
pub(crate) const fn list<K>(each: K, example: &'static str) -> List<K> {
    List { each, example }
}

/// How an empty list is shown.
pub(crate) const NONE: &str = "none";

impl<K: Values> Values for List<K> {
    fn placeholder(&self) -> String {
        self.each.placeholder()
    }

    fn accepts(&self) -> String {
        self.each.accepts()
    }

    fn range(&self) -> Option<String> {
        self.each.range()
    }

    fn arity(&self) -> Arity {
        Arity::List { example: self.example }
    }

    fn is_text(&self) -> bool {
        self.each.is_text()
    }

    fn schema(&self) -> serde_json::Value {
        self.each.schema()
    }
}

impl<T, K: Kind<T>> Kind<Vec<T>> for List<K> {
    fn read(&self, text: &str, automatic: &Automatic) -> Result<Vec<T>, Reason> {
        Ok(vec![self.each.read(text, automatic)?])
    }

    fn show(&self, values: &Vec<T>) -> String {
        let all: Vec<_> = values.iter().map(|value| self.each.show(value)).collect();
        if all.is_empty() { NONE.to_owned() } else { all.join(", ") }
    }

    fn join(&self, values: Vec<Vec<T>>) -> Option<Vec<T>> {
        Some(values.into_iter().flatten().collect())
    }
}

/// A list, or the word `off` for none, where the default is not none.
#[derive(Debug)]
pub(crate) struct ListOrOff<K>(pub List<K>);

impl<K: Values> Values for ListOrOff<K> {
    fn placeholder(&self) -> String {
        self.0.placeholder()
    }

    fn accepts(&self) -> String {
        format!("{}, or \"{OFF}\"", self.0.accepts())
    }

    fn range(&self) -> Option<String> {
        self.0.range()
    }

    fn arity(&self) -> Arity {
        self.0.arity()
    }

    fn is_text(&self) -> bool {
        self.0.is_text()
    }

    fn schema(&self) -> serde_json::Value {
        json!({ "anyOf": [self.0.schema(), { "const": OFF }] })
    }
}

impl<T, K: Kind<T>> Kind<Vec<T>> for ListOrOff<K> {
    fn read(&self, text: &str, automatic: &Automatic) -> Result<Vec<T>, Reason> {
        if text == OFF { Ok(Vec::new()) } else { self.0.read(text, automatic) }
    }

    fn show(&self, values: &Vec<T>) -> String {
        self.0.show(values)
    }

    fn join(&self, values: Vec<Vec<T>>) -> Option<Vec<T>> {
        self.0.join(values)
    }
}

/// Whether a value that is shown like this stands for none, or for a setting that is not in use.
pub(crate) fn is_none(shown: &str) -> bool {
    shown == OFF || shown == NONE || shown == "false"
}

impl<E> fmt::Debug for Choice<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Choice")
    }
}

#[cfg(test)]
mod tests;
