use std::path::Path;

use super::super::apps::{self, file::Format};
use super::super::{file, reference as written};
use super::*;

/// Why a value is not as the schema has it. It knows the words that the schema uses, and no others.
fn wrong(root: &Value, schema: &Value, value: &Value) -> Option<String> {
    let words = schema.as_object().expect("an object");
    let each = |schemas: &Value| schemas.as_array().expect("a list").clone();
    let fits = |schema: &Value| wrong(root, schema, value).is_none();
    for (word, says) in words {
        let is_wrong = match word.as_str() {
            "$schema" | "title" | "description" | "default" | "$defs" | "then" | "else" => false,
            "$ref" => {
                let pointer = says.as_str().expect("a text").trim_start_matches('#');
                let schema = root.pointer(pointer).unwrap_or_else(|| panic!("no {pointer}"));
                if let Some(wrong) = wrong(root, schema, value) {
                    return Some(wrong);
                }
                false
            }
            "if" => {
                let next = if fits(says) { "then" } else { "else" };
                if let Some(wrong) = words.get(next).and_then(|schema| wrong(root, schema, value)) {
                    return Some(wrong);
                }
                false
            }
            "anyOf" => !each(says).iter().any(fits),
            "oneOf" => each(says).iter().filter(|schema| fits(schema)).count() != 1,
            "const" => value != says,
            "enum" => !each(says).contains(value),
            "type" => {
                let types = if says.is_array() { each(says) } else { vec![says.clone()] };
                let has = |name: &Value| match name.as_str().expect("a text") {
                    "object" => value.is_object(),
                    "array" => value.is_array(),
                    "string" => value.is_string(),
                    "boolean" => value.is_boolean(),
                    "integer" => value.is_i64() || value.is_u64(),
                    "number" => value.is_number(),
                    other => panic!("type {other}"),
                };
                !types.iter().any(has)
            }
            "minimum" => value.as_f64() < says.as_f64(),
            "maximum" => value.as_f64() > says.as_f64(),
            "pattern" => {
                let pattern = regex_lite::Regex::new(says.as_str().expect("a text")).expect("a pattern");
                value.as_str().is_some_and(|text| !pattern.is_match(text))
            }
            "minItems" => {
                value.as_array().is_some_and(|list| (list.len() as u64) < says.as_u64().expect("a number"))
            }
            "minProperties" => {
                value.as_object().is_some_and(|map| (map.len() as u64) < says.as_u64().expect("a number"))
            }
            "required" => value.as_object().is_some_and(|map| {
                !each(says).iter().all(|name| map.contains_key(name.as_str().expect("a text")))
            }),
            "items" => {
                let inner = value.as_array().into_iter().flatten().find_map(|item| wrong(root, says, item));
                if inner.is_some() {
                    return inner;
                }
                false
            }
            "properties" | "additionalProperties" => {
                let named = words.get("properties").and_then(Value::as_object);
                for (name, value) in value.as_object().into_iter().flatten() {
                    let is_named = named.is_some_and(|named| named.contains_key(name));
                    let schema = match (word.as_str(), is_named, says) {
                        ("properties", true, _) => &says[name],
                        ("additionalProperties", false, Value::Bool(false)) => {
                            return Some(format!("{name}: no such key"));
                        }
                        ("additionalProperties", false, _) => says,
                        _ => continue,
                    };
                    if let Some(wrong) = wrong(root, schema, value) {
                        return Some(format!("{name}.{wrong}"));
                    }
                }
                false
            }
            other => panic!("the schema has {other}, which this test does not know"),
        };
        if is_wrong {
            return Some(format!("{word} {says}: {value}"));
        }
    }
    None
}

fn judged(text: &str) -> Option<String> {
    let value: Value = toml::from_str(text).expect("TOML");
    let root = document();
    wrong(&root, &root, &value)
}

#[test]
fn the_file_in_the_tree_is_that_of_the_table() {
    let is_fresh = include_str!("../../../docs/clusterd.schema.json") == json();
    assert!(is_fresh, "docs/clusterd.schema.json is stale: run cargo xtask generate");
}

#[test]
fn what_is_written_fits() {
    // A setting has no space behind its `#`, prose has one.
    let is_setting = |line: &str| line.starts_with('#') && !line.starts_with("# ") && line.len() > 1;
    let reference = written::toml();
    let uncommented: String =
        reference.lines().flat_map(|line| [if is_setting(line) { &line[1..] } else { line }, "\n"]).collect();
    assert!(uncommented.contains("\nworkers = \"max\"\n"));
    assert_eq!(judged(&reference), None);
    assert_eq!(judged(&uncommented), None);
    let every_key = include_str!("../apps/pm2/every_key.yaml");
    let apps = apps::file::read(Path::new("eco.yaml"), every_key, Format::Yaml).expect("valid");
    assert_eq!(judged(&apps::toml::write(&apps)), None);
}

/// What every setting says of its own values fits, too.
#[test]
fn what_is_read_fits() {
    for key in table::all() {
        let mut texts: Vec<String> = key.default.map(|default| format!("{default:?}")).into_iter().collect();
        texts.extend(key.values.words().iter().map(|word| format!("{:?}", word.get_name())));
        if let Arity::List { example } | Arity::Map { example } = key.values.arity() {
            texts.push(example.to_owned());
        }
        for text in texts {
            let file = format!("{} = {text}", key.name);
            assert!(file::read(Path::new("clusterd.toml"), &file).problems.is_empty(), "{file}");
            assert_eq!(judged(&file), None, "{file}");
        }
    }
    let others = [
        "workers = 4",
        "workers = '4'",
        "workers = 'max-1'",
        "policy = 'rr'",
        "kill-timeout = '1m 30s'",
        "kill-timeout = '1.5s'",
        "max-memory = '1.5GiB'",
        "port = 80",
        "metrics = 9090",
        "user = 33",
        "autorestart = 'false'",
        "env = { A = 1, B = true, C = 1.5 }",
        "[app.a]\ncommand = ['x']\nenv = { A = 1, p = { B = 2 } }",
        "[app.a]\nscript = 'x'\nargs = '--y'\ndepends-on = ['b']\n[app.b]\nscript = 'y'",
    ];
    for file in others {
        assert_eq!(judged(file), None, "{file}");
    }
}

#[test]
fn what_is_a_mistake_does_not_fit() {
    let mistakes = [
        "wrokers = 4",
        "workers = 0",
        "workers = true",
        "kill-timeout = 8",
        "cwd = 5",
        "command = 'x'",
        "command = []",
        "policy = 'none'",
        "env = { a = { b = 1 } }",
        "workers = 1\n[app.a]\nscript = 'x'",
        "[app]",
        "[app.a]\nworkers = 1",
        "[app.a]\nscript = 'x'\ncommand = ['x']",
        "[app.a]\nscript = 'x'\nname = 'b'",
        "[app.a]\nscript = 'x'\nrestart-delay = 5",
    ];
    for file in mistakes {
        assert!(judged(file).is_some(), "{file}");
    }
}
