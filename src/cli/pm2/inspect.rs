//! JSON as Node's `util.inspect` writes it: what PM2's `prettylist` prints.
//!
//! Scripts count words in it; nothing is cut, however deep or long it is.

use serde_json::Value;

/// What fits into one line stays in one.
const WIDTH: usize = 72;

/// How many numbers or texts stand in a list on one line.
const IN_ONE_LINE: usize = 6;

/// The text.
pub(crate) fn inspect(value: &Value) -> String {
    written(value, 0)
}

fn written(value: &Value, depth: usize) -> String {
    let entries: Vec<String> = match value {
        Value::String(text) => return quoted(text),
        Value::Array(list) if list.is_empty() => return "[]".to_owned(),
        Value::Object(map) if map.is_empty() => return "{}".to_owned(),
        Value::Array(list) => list.iter().map(|one| written(one, depth + 1)).collect(),
        Value::Object(map) => {
            map.iter().map(|(key, one)| format!("{}: {}", name(key), written(one, depth + 1))).collect()
        }
        other => return other.to_string(),
    };
    let (open, close) = if value.is_array() { ('[', ']') } else { ('{', '}') };
    let length: usize = entries.iter().map(|entry| entry.len() + 2).sum();
    let is_flat = entries.len() <= IN_ONE_LINE && entries.iter().all(|entry| !entry.contains('\n'));
    if is_flat && length + 2 * depth < WIDTH {
        return format!("{open} {} {close}", entries.join(", "));
    }
    let indent = "  ".repeat(depth + 1);
    let lines: Vec<_> = entries.into_iter().map(|entry| format!("{indent}{entry}")).collect();
    format!("{open}\n{}\n{}{close}", lines.join(",\n"), "  ".repeat(depth))
}

/// A key as it is where it is a name in JavaScript, else quoted.
fn name(key: &str) -> String {
    let is_letter = |character: char| character.is_ascii_alphabetic() || matches!(character, '_' | '$');
    let is_name = key.starts_with(is_letter) && key.chars().all(|one| is_letter(one) || one.is_ascii_digit());
    if is_name { key.to_owned() } else { quoted(key) }
}

/// In the first of the three kinds of quotes that is not in it.
fn quoted(text: &str) -> String {
    let quote = ['\'', '"', '`'].into_iter().find(|quote| !text.contains(*quote)).unwrap_or('\'');
    let mut quoted = String::from(quote);
    for character in text.chars() {
        match character {
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            '\r' => quoted.push_str("\\r"),
            '\\' => quoted.push_str("\\\\"),
            one if one == quote => quoted.extend(['\\', one]),
            one if (one as u32) < 0x20 || one as u32 == 0x7f => {
                quoted.push_str(&format!("\\x{:02X}", one as u32));
            }
            one => quoted.push(one),
        }
    }
    quoted.push(quote);
    quoted
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn it_is_as_node_has_it() {
        // Written by `node -e 'console.log(util.inspect(..., {depth: null}))'`.
        let value = json!([{
            "pid": 7,
            "name": "it's",
            "pm2_env": {
                "args": ["--arg"],
                "env": {},
                "HTTP-PROXY": "a\\b\nc\u{1b}",
                "quotes": "it's \"so\"",
                "all": "'\"`",
                "filter_env": [],
                "watch": false,
                "status": "online"
            },
            "monit": { "memory": 55291904, "cpu": 0.5 }
        }]);
        insta::assert_snapshot!(inspect(&value), @r#"
        [
          {
            monit: { cpu: 0.5, memory: 55291904 },
            name: "it's",
            pid: 7,
            pm2_env: {
              'HTTP-PROXY': 'a\\b\nc\x1B',
              all: '\'"`',
              args: [ '--arg' ],
              env: {},
              filter_env: [],
              quotes: `it's "so"`,
              status: 'online',
              watch: false
            }
          }
        ]
        "#);
        assert_eq!((inspect(&json!([])), inspect(&json!(null))), ("[]".to_owned(), "null".to_owned()));
    }
}
