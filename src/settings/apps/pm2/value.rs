//! How a value of PM2's is written here.
//!
//! Only types are judged, and said in PM2's terms; bounds are those of the setting.

use super::super::super::error::Reason;
use super::super::tree::{Data, Tree};
use super::super::words;
use super::cron;

/// What a value may be, and what becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// `true` or `false`.
    Truth,
    /// A whole number.
    Count,
    /// One, or a list of them.
    Counts,
    /// A number of milliseconds.
    Milliseconds,
    /// The same, or `2s`, `1m`, `1h`.
    Time,
    /// Bytes, or `300M`.
    Size,
    /// A text.
    Text,
    /// One, or a list of them.
    Texts,
    /// A name or a number.
    Account,
    /// A number, `max`, 0 for the same, or how many fewer.
    Workers,
    /// A cron expression; 0 for none.
    Cron,
    /// Names of variables.
    Variables,
    /// Paths; `true` for the app's folder.
    Paths,
    /// Patterns of paths.
    Patterns,
    /// A path, `NULL` for none.
    LogFile,
}

impl Shape {
    /// Whether it takes numbers, if not every one.
    fn is_amount(self) -> bool {
        matches!(self, Self::Count | Self::Milliseconds | Self::Time | Self::Size | Self::Workers)
    }
}

/// A value as the setting has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Written {
    /// None if the setting stays at its default.
    pub texts: Vec<String>,
    /// What is not the same as it was.
    pub warnings: Vec<Said>,
}

/// What is said of a value, and what would help.
pub(super) type Said = (String, Option<String>);

impl Written {
    fn one(text: impl Into<String>) -> Self {
        Self { texts: vec![text.into()], warnings: Vec::new() }
    }

    fn none() -> Self {
        Self::default()
    }

    fn warn(mut self, what: impl Into<String>, hint: impl Into<String>) -> Self {
        self.warnings.push((what.into(), Some(hint.into())));
        self
    }
}

/// Writes the value.
///
/// # Errors
/// It is of another type; the reason says which is right.
pub(super) fn write(value: &Tree, shape: Shape) -> Result<Written, Reason> {
    let wrong = |accepts: &str| {
        let odd = shape.is_amount().then(|| odd_number(value)).flatten();
        let what = odd.unwrap_or_else(|| value.what());
        Reason::new(format!("{what} is not accepted")).hint(format!("use {accepts}"))
    };
    let amount = || whole(value).filter(|number| !number.starts_with('-'));
    match (shape, &value.data) {
        (Shape::Truth, Data::Truth(truth)) => Ok(Written::one(truth.to_string())),
        (Shape::Truth, Data::Text(text)) if matches!(text.as_str(), "true" | "false") => {
            Err(Reason::new("a text is not accepted").hint(format!("use {text} without quotes")))
        }
        (Shape::Truth, _) => Err(wrong("true or false")),
        (Shape::Count, _) => {
            whole(value).map(Written::one).ok_or_else(|| wrong("a whole number, such as 10"))
        }
        (Shape::Counts, _) => match several(value, &whole) {
            Some(texts) => Ok(Written { texts, ..Written::none() }),
            None => Err(wrong("a whole number or a list of them, such as [0, 3]")),
        },
        (Shape::Milliseconds, _) => match amount() {
            Some(zero) if zero == "0" => Ok(Written::none()),
            Some(number) => Ok(Written::one(duration(&number))),
            None => Err(wrong("a number of milliseconds, such as 3000")),
        },
        (Shape::Time, Data::Text(text)) if is_time(text) => Ok(Written::one(text)),
        (Shape::Time, _) => match amount() {
            Some(number) => Ok(Written::one(duration(&number))),
            None => Err(wrong("a number of milliseconds, such as 5000, or \"5s\", \"1m\", \"1h\"")),
        },
        (Shape::Size, Data::Text(text)) if !text.is_empty() && whole(value).is_none() => {
            Ok(Written::one(text))
        }
        (Shape::Size, _) => match whole(value).and_then(|bytes| bytes.parse::<u64>().ok()) {
            Some(0) => Ok(Written::none()),
            Some(bytes) => Ok(Written::one(size(bytes))),
            None => Err(wrong("a number of bytes, or a size such as \"300M\"")),
        },
        (Shape::Text, Data::Text(text)) => Ok(Written::one(text)),
        (Shape::Text, _) => Err(wrong("a text")),
        (Shape::Texts, _) => match several(value, &text) {
            Some(texts) => Ok(Written { texts, ..Written::none() }),
            None => Err(wrong("a text or a list of texts")),
        },
        (Shape::Account, Data::Text(text)) if !text.is_empty() => Ok(Written::one(text)),
        (Shape::Account, _) => whole(value).map(Written::one).ok_or_else(|| wrong("a name or a number")),
        (Shape::Workers, _) => workers(value).ok_or_else(|| wrong("a whole number or \"max\"")),
        (Shape::Cron, _) => match (&value.data, whole(value)) {
            (_, Some(zero)) if zero == "0" => Ok(Written::none()),
            (Data::Text(text), None) => {
                let (text, warnings) = cron::as_here(text);
                Ok(Written { texts: vec![text], warnings })
            }
            _ => Err(wrong("a cron expression, such as \"0 3 * * *\"")),
        },
        (Shape::Variables, Data::Truth(false)) => Ok(Written::none()),
        (Shape::Variables, Data::Truth(true)) => Ok(Written::none().warn(
            "does nothing in PM2, and nothing here",
            "name the variables that workers are not to have, as a list",
        )),
        (Shape::Variables, _) => match several(value, &text) {
            Some(texts) => Ok(Written { texts, ..Written::none() }.warn(
                "PM2 drops every variable that has such a word in its name; here it is the whole name",
                "list the names",
            )),
            None => Err(wrong("a list of names of variables")),
        },
        (Shape::Paths, Data::Truth(true)) => Ok(Written::one(".")),
        (Shape::Paths, Data::Truth(false)) => Ok(Written::none()),
        (Shape::Paths, _) => match several(value, &text) {
            Some(texts) => Ok(paths(texts)),
            None => Err(wrong("true, a path or a list of paths")),
        },
        (Shape::Patterns, _) => {
            patterns(value).ok_or_else(|| wrong("a pattern or a list of patterns, such as [\"*.log\"]"))
        }
        (Shape::LogFile, Data::Text(text)) if text == "NULL" => Ok(Written::one("/dev/null")),
        (Shape::LogFile, Data::Text(text)) => Ok(Written::one(text)),
        (Shape::LogFile, Data::Truth(false)) => Ok(Written::none()),
        (Shape::LogFile, Data::Truth(true)) => {
            Ok(Written::none().warn("the file has no name", "name the file"))
        }
        (Shape::LogFile, _) => Err(wrong("the path of a file")),
    }
}

/// The digits of a whole number, also of one in quotes, as PM2 takes it.
pub(super) fn whole(value: &Tree) -> Option<String> {
    let (Data::Number(text) | Data::Text(text)) = &value.data else { return None };
    let text = text.trim();
    text.parse::<i64>().ok().map(|number| number.to_string())
}

/// What is wrong with a number where not every one is accepted.
fn odd_number(value: &Tree) -> Option<&'static str> {
    if whole(value).is_some_and(|number| number.starts_with('-')) {
        return Some("a negative number");
    }
    let Data::Number(text) = &value.data else { return None };
    let is_whole = text.trim().trim_start_matches(['-', '+']).bytes().all(|byte| byte.is_ascii_digit());
    Some(if is_whole { "so large a number" } else { "a number that is not whole" })
}

fn text(value: &Tree) -> Option<String> {
    let Data::Text(text) = &value.data else { return None };
    Some(text.clone())
}

fn several(value: &Tree, read: &dyn Fn(&Tree) -> Option<String>) -> Option<Vec<String>> {
    match &value.data {
        Data::List(list) => list.iter().map(read).collect(),
        _ => read(value).map(|text| vec![text]),
    }
}

/// Arguments: a list as it is, numbers as text; a line as its words.
///
/// # Errors
/// It is neither.
pub(super) fn arguments(value: &Tree) -> Result<Vec<String>, Reason> {
    let scalar = |value: &Tree| match &value.data {
        Data::Text(text) | Data::Number(text) => Some(text.clone()),
        Data::Truth(truth) => Some(truth.to_string()),
        _ => None,
    };
    let words = match &value.data {
        Data::Text(line) => Some(words::split(line)),
        _ => several(value, &scalar),
    };
    let otherwise = || Reason::new(format!("{} is not accepted", value.what()));
    words.ok_or_else(|| otherwise().hint("use a list of texts, or a text such as \"--port 3000\""))
}

/// Milliseconds, or seconds where they are whole.
fn duration(milliseconds: &str) -> String {
    match milliseconds.strip_suffix("000") {
        Some(seconds) if seconds.bytes().all(|byte| byte.is_ascii_digit()) && !seconds.is_empty() => {
            format!("{seconds}s")
        }
        _ => format!("{milliseconds}ms"),
    }
}

fn is_time(text: &str) -> bool {
    let digits = text.strip_suffix(['s', 'm', 'h']).unwrap_or_default();
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// In the largest unit that has no remainder, at least in KiB, rounded up.
fn size(bytes: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "G"), (1 << 20, "M"), (1 << 10, "K")];
    let whole = UNITS.iter().find(|(unit, _)| bytes.is_multiple_of(*unit));
    match whole {
        Some((unit, name)) => format!("{}{name}", bytes / unit),
        None => format!("{}K", bytes.div_ceil(1 << 10)),
    }
}

fn workers(value: &Tree) -> Option<Written> {
    if matches!(&value.data, Data::Text(text) if text == "max") {
        return Some(Written::one("max"));
    }
    Some(match whole(value)?.parse::<i64>().ok()? {
        0 => Written::one("max"),
        fewer if fewer < 0 => Written::one(format!("max{fewer}")),
        number => Written::one(number.to_string()),
    })
}

/// The folders of patterns: paths are watched here, with all below.
fn paths(texts: Vec<String>) -> Written {
    let mut written = Written::none();
    for text in texts {
        let is_glob = |part: &str| part.contains(['*', '?', '[', '{', '!']);
        let folder: Vec<_> = text.split('/').take_while(|part| !is_glob(part)).collect();
        let folder = folder.join("/");
        if folder.len() == text.len() {
            written.texts.push(text);
            continue;
        }
        let folder = if folder.is_empty() { ".".to_owned() } else { folder };
        written.warnings.push((
            format!("{text} is a pattern: {folder} is watched with all below"),
            Some("use ignore_watch for what does not matter".to_owned()),
        ));
        if !written.texts.contains(&folder) {
            written.texts.push(folder);
        }
    }
    written
}

fn patterns(value: &Tree) -> Option<Written> {
    let each = match &value.data {
        Data::List(list) => list.iter().collect(),
        _ => vec![value],
    };
    let mut written = Written::none();
    for pattern in each {
        match &pattern.data {
            Data::Text(text) if is_pattern(text) => written.texts.push(text.clone()),
            Data::Text(text) => written.warnings.push(not_a_pattern(text)),
            Data::Code { what, source } if what == "a regular expression" => {
                written.warnings.push(not_a_pattern(source));
            }
            _ => return None,
        }
    }
    Some(written)
}

/// A backslash is of a regular expression.
fn is_pattern(text: &str) -> bool {
    use super::super::super::kind::Kind as _;
    let automatic =
        super::super::super::kind::Automatic { workers: std::num::NonZeroU32::MIN, name: String::new() };
    !text.contains('\\') && super::super::super::parse::PATTERN.read(text, &automatic).is_ok()
}

fn not_a_pattern(text: &str) -> Said {
    let hint = "use a pattern such as \"*.log\" or \"public/**\"; hidden files of editors, .git and node_modules are ignored anyway";
    (format!("{text} is left out: a regular expression, and no pattern"), Some(hint.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::super::super::tree;
    use super::*;

    fn written(shape: Shape, json: &str) -> String {
        match write(&tree::json(json).expect("JSON"), shape) {
            Ok(Written { texts, warnings }) => {
                let warned = if warnings.is_empty() { "" } else { " !" };
                format!("{}{warned}", texts.join(" "))
            }
            Err(reason) => format!("{reason}").replace('\n', "; "),
        }
    }

    #[test]
    fn values_are_written_in_our_words() {
        let cases = [
            (Shape::Truth, "true", "true"),
            (Shape::Count, "16", "16"),
            (Shape::Count, "\"16\"", "16"),
            (Shape::Counts, "[0, \"3\"]", "0 3"),
            (Shape::Counts, "143", "143"),
            (Shape::Milliseconds, "3000", "3s"),
            (Shape::Milliseconds, "\"500\"", "500ms"),
            (Shape::Milliseconds, "0", ""),
            (Shape::Time, "5000", "5s"),
            (Shape::Time, "\"5s\"", "5s"),
            (Shape::Time, "\"1h\"", "1h"),
            (Shape::Size, "\"300M\"", "300M"),
            (Shape::Size, "314572800", "300M"),
            (Shape::Size, "1073741824", "1G"),
            (Shape::Size, "1500000", "1465K"),
            (Shape::Size, "\"1.5G\"", "1.5G"),
            (Shape::Account, "1000", "1000"),
            (Shape::Account, "\"www\"", "www"),
            (Shape::Workers, "4", "4"),
            (Shape::Workers, "\"4\"", "4"),
            (Shape::Workers, "\"max\"", "max"),
            (Shape::Workers, "0", "max"),
            (Shape::Workers, "-1", "max-1"),
            (Shape::Cron, "\"0 3 * * *\"", "0 3 * * *"),
            (Shape::Cron, "0", ""),
            (Shape::Cron, "\"0\"", ""),
            (Shape::Paths, "true", "."),
            (Shape::Paths, "false", ""),
            (Shape::Paths, "[\"src\", \"lib\"]", "src lib"),
            (Shape::Paths, "[\"src/**/*.js\", \"src/*.ts\", \"*.js\"]", "src . !"),
            (Shape::Patterns, "[\"node_modules\", \"*.log\"]", "node_modules *.log"),
            (Shape::Patterns, "\"[\\\\/\\\\\\\\]\\\\./\"", " !"),
            (Shape::LogFile, "\"NULL\"", "/dev/null"),
            (Shape::LogFile, "\"a.log\"", "a.log"),
            (Shape::Variables, "true", " !"),
            (Shape::Variables, "[\"AWS\"]", "AWS !"),
        ];
        for (shape, json, expected) in cases {
            assert_eq!(written(shape, json), expected, "{shape:?} {json}");
        }
    }

    #[test]
    fn a_wrong_type_says_what_is_right() {
        let cases = [
            (Shape::Truth, "\"false\"", "a text is not accepted; hint: use false without quotes"),
            (Shape::Truth, "1", "a number is not accepted; hint: use true or false"),
            (
                Shape::Milliseconds,
                "\"3s\"",
                "a text is not accepted; hint: use a number of milliseconds, such as 3000",
            ),
            (
                Shape::Milliseconds,
                "1.5",
                "a number that is not whole is not accepted; hint: use a number of milliseconds, such as 3000",
            ),
            (
                Shape::Milliseconds,
                "\"-5\"",
                "a negative number is not accepted; hint: use a number of milliseconds, such as 3000",
            ),
            (
                Shape::Workers,
                "-1.5",
                "a number that is not whole is not accepted; hint: use a whole number or \"max\"",
            ),
            (
                Shape::Count,
                "99999999999999999999",
                "so large a number is not accepted; hint: use a whole number, such as 10",
            ),
            (Shape::Workers, "\"two\"", "a text is not accepted; hint: use a whole number or \"max\""),
            (Shape::Text, "5", "a number is not accepted; hint: use a text"),
            (Shape::Paths, "[1]", "a list is not accepted; hint: use true, a path or a list of paths"),
            (
                Shape::Size,
                "true",
                "true or false is not accepted; hint: use a number of bytes, or a size such as \"300M\"",
            ),
        ];
        for (shape, json, expected) in cases {
            assert_eq!(written(shape, json), expected, "{shape:?} {json}");
        }
        let refused = arguments(&tree::json("{}").expect("JSON")).expect_err("no list").to_string();
        assert_eq!(
            refused,
            "an object is not accepted\nhint: use a list of texts, or a text such as \"--port 3000\""
        );
        assert_eq!(arguments(&tree::json("[\"-p\", 80]").expect("JSON")).expect("words"), ["-p", "80"]);
    }
}
