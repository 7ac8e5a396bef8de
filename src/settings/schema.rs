//! The JSON Schema of the configuration file, for editors: `docs/clusterd.schema.json`.
//!
//! It is not what the file is judged by, and allows nothing less. It writes no file: `cargo xtask generate` does, and a test
//! fails where that was forgotten.

use serde_json::{Map, Value, json};

use super::apps::own_keys::{self, Form};
use super::kind::Arity;
use super::setting::Key;
use super::table::{self, keys};

/// The text of `docs/clusterd.schema.json`.
pub fn json() -> String {
    let mut text = serde_json::to_string_pretty(&document()).expect("a tree of texts");
    text.push('\n');
    text
}

/// One app with flat keys, or a table for each app.
fn document() -> Value {
    let mut defs: Map<String, Value> = table::all().map(|key| (key.name.to_owned(), setting(key))).collect();
    defs.insert("command".to_owned(), command());
    defs.insert("app".to_owned(), app());
    let mut flat = references(table::all().map(|key| key.name));
    flat.insert("command".to_owned(), reference("command"));
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Configuration of clusterd",
        "type": "object",
        "if": { "required": ["app"] },
        "then": {
            "properties": {
                "app": {
                    "description": "Each app by its name.",
                    "type": "object",
                    "minProperties": 1,
                    "additionalProperties": reference("app"),
                },
            },
            "additionalProperties": false,
        },
        "else": { "properties": flat, "additionalProperties": false },
        "$defs": defs,
    })
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/$defs/{name}") })
}

fn references<'a>(names: impl Iterator<Item = &'a str>) -> Map<String, Value> {
    names.map(|name| (name.to_owned(), reference(name))).collect()
}

fn setting(key: &Key) -> Value {
    let one = key.values.schema();
    let schema = match key.values.arity() {
        Arity::One | Arity::Switch => one,
        Arity::List { .. } => several(&one),
        Arity::Map { .. } => json!({ "anyOf": [variables(), several(&json!({ "type": "string" }))] }),
    };
    described(schema, &format!("{}.", key.doc.sentence()), key.default)
}

/// With what an editor shows.
fn described(mut schema: Value, description: &str, default: Option<&str>) -> Value {
    schema["description"] = json!(description);
    if let Some(default) = default {
        schema["default"] = match (default.parse::<i64>(), default.parse::<bool>()) {
            (Ok(number), _) => json!(number),
            (_, Ok(truth)) => json!(truth),
            _ => json!(default),
        };
    }
    schema
}

fn several(one: &Value) -> Value {
    json!({ "anyOf": [one, { "type": "array", "items": one }] })
}

fn scalar() -> Value {
    json!({ "type": ["string", "number", "boolean"] })
}

fn variables() -> Value {
    json!({ "type": "object", "additionalProperties": scalar() })
}

fn command() -> Value {
    let words = json!({ "type": "array", "items": { "type": "string" }, "minItems": 1 });
    let doc = table::COMMAND_DOC.paragraphs();
    described(words, doc.first().map_or("", String::as_str), None)
}

/// An app's table: its command or script, its settings, its variables with their profiles.
fn app() -> Value {
    let mut properties =
        references(table::all().map(|key| key.name).filter(|name| *name != keys::name.key.name));
    properties.insert("command".to_owned(), reference("command"));
    let profiles = json!({ "type": "object", "additionalProperties": { "anyOf": [scalar(), variables()] } });
    let env = json!({ "anyOf": [profiles, several(&json!({ "type": "string" }))] });
    let doc = "Variables of the workers; a table in it is a profile, in force with `--env NAME`.";
    properties.insert(keys::env.key.name.to_owned(), described(env, doc, None));
    for own in &own_keys::OWN {
        let schema = match own.form {
            Form::Text => json!({ "type": "string" }),
            Form::Texts => several(&json!({ "type": "string" })),
            Form::Truth => json!({ "type": "boolean" }),
        };
        properties.insert(own.name.to_owned(), described(schema, own.doc, None));
    }
    json!({
        "type": "object",
        "oneOf": [{ "required": ["command"] }, { "required": [own_keys::SCRIPT] }],
        "properties": properties,
        "additionalProperties": false,
    })
}

#[cfg(test)]
mod tests;
