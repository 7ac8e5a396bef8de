//! What must hold of the merged metrics whatever workers tell: shared by the fuzz target and the property test of
//! `tests/`.
//!
//! The page is read by a parser of its own, as strict as the strictest of Prometheus' own: `expfmt`, which promtool
//! uses, and the lexer of the server. Sources: prometheus/common `expfmt/text_parse.go`, prometheus/prometheus
//! `model/textparse/promlex.l`.

use std::collections::{HashMap, HashSet};

use clusterd::internal::ids::Slot;
use clusterd::internal::private::{Exposition, Format};

/// Joins the pages of workers, which `data` holds one after the other, each ended by the byte 0xff.
pub fn check(data: &[u8]) {
    for format in [Format::Text, Format::OpenMetrics] {
        let mut exposition = Exposition::default();
        for (worker, page) in (1..).map(Slot).zip(data.split(|&byte| byte == 0xff)) {
            let left_out = exposition.add(worker, page, format);
            assert_eq!(left_out.lines > 0, left_out.first.is_some());
            assert!(left_out.lines <= page.split(|&byte| byte == b'\n').count() as u64);
        }
        let text = exposition.into_text();
        if let Err(reason) = Parser::default().read(&text) {
            panic!("{reason}, in the page:\n{text}");
        }
    }
}

/// What the lines so far have said.
#[derive(Default)]
struct Parser<'a> {
    helps: HashSet<&'a str>,
    types: HashMap<&'a str, &'a str>,
    /// Families that have samples.
    begun: HashSet<&'a str>,
    series: HashSet<String>,
}

type Read<T = ()> = Result<T, String>;

impl<'a> Parser<'a> {
    fn read(&mut self, page: &'a str) -> Read {
        if page.contains(['\0', '\r']) || !(page.is_empty() || page.ends_with('\n')) {
            return Err("a NUL, a carriage return or an unfinished line".into());
        }
        for line in page.lines() {
            let read = match line.strip_prefix("# ") {
                Some(comment) => self.comment(comment),
                None => self.sample(line),
            };
            read.map_err(|reason| format!("{reason}: {line:?}"))?;
        }
        Ok(())
    }

    fn comment(&mut self, comment: &'a str) -> Read {
        let mut words = comment.splitn(3, ' ');
        let (keyword, name, rest) = (words.next(), words.next().unwrap_or(""), words.next().unwrap_or(""));
        is_name(name, ":").then_some(()).ok_or("no name")?;
        // With TYPE or HELP, too, the family is one that is there already if a sample of the name belonged to it.
        (self.family(name) == name).then_some(()).ok_or("it is of another family")?;
        (!self.begun.contains(name)).then_some(()).ok_or("it comes after samples")?;
        match (keyword, rest) {
            (Some("HELP"), text) => {
                escapes(text, "\\n")?;
                self.helps.insert(name).then_some(()).ok_or("a second HELP")?;
            }
            (Some("TYPE"), "counter" | "gauge" | "histogram" | "summary" | "untyped") => {
                self.types.insert(name, rest).is_none().then_some(()).ok_or("a second TYPE")?;
            }
            _ => return Err("neither HELP nor a known TYPE".into()),
        }
        Ok(())
    }

    /// The family that a name belongs to: itself, or the summary or histogram before it.
    fn family(&self, name: &'a str) -> &'a str {
        let known = |name| self.types.contains_key(name) || self.begun.contains(name);
        if known(name) {
            return name;
        }
        let of = |suffixes: &[&str], kind| {
            let mut bases = suffixes.iter().filter_map(|suffix| name.strip_suffix(suffix));
            bases.find(|&base| self.types.get(base) == Some(&kind))
        };
        of(&["_count", "_sum"], "summary")
            .or_else(|| of(&["_count", "_sum", "_bucket"], "histogram"))
            .unwrap_or(name)
    }

    fn sample(&mut self, line: &'a str) -> Read {
        let (name, rest) = line.split_once('{').ok_or("no labels")?;
        is_name(name, ":").then_some(()).ok_or("no name")?;
        let family = self.family(name);
        self.begun.insert(family);
        let bound = match self.types.get(family) {
            Some(&"histogram") => "le",
            Some(&"summary") => "quantile",
            Some(_) => "",
            None => return Err("it has no type".into()),
        };
        let (mut labels, rest) = labels(rest)?;
        for &mut (name, ref mut value) in &mut labels {
            if name == bound {
                *value = number(value)?.to_string();
            }
        }
        let is_of_worker =
            labels.first().is_some_and(|(name, value)| *name == "worker" && value.parse::<u32>().is_ok());
        is_of_worker.then_some(()).ok_or("it names no worker")?;
        labels.retain(|(_, value)| !value.is_empty());
        labels.sort_unstable();
        labels.is_sorted_by(|one, next| one.0 < next.0).then_some(()).ok_or("a label twice")?;
        self.series.insert(format!("{name}{labels:?}")).then_some(()).ok_or("a series twice")?;
        let mut words = rest.strip_prefix(' ').ok_or("no blank")?.split(' ');
        number(words.next().unwrap_or(""))?;
        let is_time =
            |word: &str| word.bytes().all(|byte| byte.is_ascii_digit()) && word.parse::<i64>().is_ok();
        words.next().is_none_or(is_time).then_some(()).ok_or("no timestamp")?;
        words.next().is_none().then_some(()).ok_or("more than a timestamp")?;
        Ok(())
    }
}

/// The labels up to the closing brace, and what follows it.
fn labels(mut rest: &str) -> Read<(Vec<(&str, String)>, &str)> {
    let mut labels = Vec::new();
    loop {
        let (name, value) = rest.split_once("=\"").ok_or("no label")?;
        (is_name(name, "") && name != "__name__").then_some(()).ok_or("no name of a label")?;
        let end = end_of_quotes(value).ok_or("no end of a value")?;
        escapes(&value[..end], "\\n\"")?;
        labels.push((name, value[..end].to_owned()));
        match value[end + 1..].split_at_checked(1) {
            Some((",", more)) => rest = more,
            Some(("}", after)) => return Ok((labels, after)),
            _ => return Err("neither a comma nor a brace".into()),
        }
    }
}

fn end_of_quotes(text: &str) -> Option<usize> {
    let mut is_escaped = false;
    text.bytes().position(|byte| {
        let ends = byte == b'"' && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        ends
    })
}

/// After a backslash come only these.
fn escapes(text: &str, known: &str) -> Read {
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character == '\\' && !characters.next().is_some_and(|escaped| known.contains(escaped)) {
            return Err("an escape that is none".into());
        }
    }
    Ok(())
}

/// As Go's ParseFloat: no sign before NaN, and out of range is an error.
fn number(text: &str) -> Read<f64> {
    let lower = text.to_ascii_lowercase();
    let special = ["nan", "inf", "+inf", "-inf", "infinity", "+infinity", "-infinity"];
    let number = text.parse::<f64>().map_err(|error| error.to_string())?;
    match number.is_finite() || special.contains(&lower.as_str()) {
        true => Ok(number),
        false => Err("a number out of range".into()),
    }
}

fn is_name(name: &str, more: &str) -> bool {
    let is_of_name =
        |character: char| character.is_ascii_alphanumeric() || character == '_' || more.contains(character);
    name.chars().all(is_of_name) && name.chars().next().is_some_and(|first| !first.is_ascii_digit())
}
