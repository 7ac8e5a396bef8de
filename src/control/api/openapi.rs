//! The description of the API for programs: `docs/openapi.json`, OpenAPI 3.1, with the schemas of the types that are sent.
//!
//! It writes no file: `cargo xtask generate` does, and a test fails where that was forgotten. What a path answers is the
//! router's and the handlers' concern; tests ask them for each path that stands here.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::command::{ReloadBody, ResetBody, ScaleBody, SignalBody, StartBody, StopBody, UpgradeBody};
use super::{App, Apps, Connection, JSON_LINES, Live, Outcome, PORT_HEADER, Refusal, Verb, WORKER_HEADER};
use crate::supervisor::events::Event;

const JSON: &str = "application/json";
const EVENT_STREAM: &str = "text/event-stream";

/// The text of `docs/openapi.json`.
pub fn json() -> String {
    let mut text = serde_json::to_string_pretty(&document()).expect("a tree of texts");
    text.push('\n');
    text
}

fn document() -> Value {
    let mut schemas = Schemas::new();
    let mut paths = Map::new();
    for operation in operations(&mut schemas) {
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        path[operation.method] = operation.described;
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "clusterd",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "What a clusterd answers at its control socket: HTTP/1.1, one request a connection. \
                A client at the socket is known by its user, and needs no token.",
            "license": { "name": "MIT OR Apache-2.0" },
        },
        "servers": [{ "url": "http://localhost", "description": "Any host name will do." }],
        "paths": paths,
        "components": {
            "parameters": parameters(),
            "schemas": schemas.definitions(),
        },
    })
}

/// The schemas of types, each as it is on its way: what is sent always has more than what has to be there to be read.
struct Schemas {
    sent: SchemaGenerator,
    received: SchemaGenerator,
}

impl Schemas {
    fn new() -> Self {
        let settings = SchemaSettings::draft2020_12()
            .with(|settings| settings.definitions_path = "/components/schemas".into());
        Self { sent: settings.clone().for_serialize().into_generator(), received: settings.into_generator() }
    }

    /// A reference to what clusterd sends.
    fn sent<T: JsonSchema>(&mut self) -> Value {
        self.sent.subschema_for::<T>().to_value()
    }

    /// A reference to what clusterd takes.
    fn received<T: JsonSchema>(&mut self) -> Value {
        self.received.subschema_for::<T>().to_value()
    }

    /// No type is both sent and received.
    fn definitions(&mut self) -> Map<String, Value> {
        let mut definitions = self.sent.take_definitions(true);
        definitions.extend(self.received.take_definitions(true));
        definitions
    }
}

/// What can be asked of one path with one method.
struct Operation {
    method: &'static str,
    path: String,
    described: Value,
}

fn operations(schemas: &mut Schemas) -> Vec<Operation> {
    let mut operations = vec![
        get("/v1/apps", "listApps", "Every app of this clusterd", &["traffic"], one::<Apps>(schemas), &[400]),
        get(
            "/v1/apps/{app}",
            "showApp",
            "One app and its workers",
            &["app", "environment"],
            one::<App>(schemas),
            &[400, 404],
        ),
        get(
            "/v1/apps/{app}/live",
            "followApp",
            "One app as it lives: its state, its counts and its events, until the client leaves",
            &["app"],
            several::<Live>(schemas),
            &[404],
        ),
        get(
            "/v1/apps/{app}/connections",
            "listConnections",
            "The open connections of its clients",
            &["app", "worker"],
            several::<Connection>(schemas),
            &[400, 404, 500],
        ),
        get(
            "/v1/events",
            "followEvents",
            "What happens from now on, until the client leaves",
            &["appOfEvents", "past"],
            several::<Event>(schemas),
            &[400, 404],
        ),
        exchange(),
    ];
    operations.extend(Verb::ALL.map(|verb| command(verb, schemas)));
    for operation in &mut operations {
        // Its reference is the same everywhere.
        let refusal = schemas.sent::<Refusal>();
        let answers = operation.described["responses"].as_object_mut().into_iter().flatten();
        for (_, answer) in answers.filter(|(_, answer)| answer.get("content").is_none()) {
            answer["content"] = json!({ JSON: { "schema": refusal } });
        }
    }
    operations
}

/// An answer that is one object.
fn one<T: JsonSchema>(schemas: &mut Schemas) -> Value {
    json!({ JSON: { "schema": schemas.sent::<T>() } })
}

/// An answer that is a stream of objects: lines, or the data of server-sent events.
fn several<T: JsonSchema>(schemas: &mut Schemas) -> Value {
    stream(schemas.sent::<T>())
}

/// OpenAPI 3.1 has no word for the items of a stream.
fn stream(item: Value) -> Value {
    let what = json!({ "type": "string", "description": "A stream of objects.", "x-item": item });
    json!({ JSON_LINES: { "schema": what }, EVENT_STREAM: { "schema": what } })
}

fn get(
    path: &str,
    id: &str,
    summary: &str,
    parameters: &[&str],
    content: Value,
    refusals: &[u16],
) -> Operation {
    let described = json!({
        "operationId": id,
        "summary": summary,
        "parameters": references(parameters),
        "responses": responses(json!({ "description": summary, "content": content }), refusals),
    });
    Operation { method: "get", path: path.to_owned(), described }
}

fn exchange() -> Operation {
    let summary = "Pass a request on to one worker, whichever its method, query, headers and body are";
    let answer = json!({
        "description": "What the worker answers, whichever its status is",
        "headers": { WORKER_HEADER: { "description": "The number of the worker; an answer without it is clusterd's", "schema": { "type": "integer" } } },
        "content": { "*/*": {} },
    });
    let port = json!({
        "name": PORT_HEADER,
        "in": "header",
        "description": "The worker port that is meant; without it, the first",
        "schema": { "type": "integer", "minimum": 1, "maximum": 65535 },
    });
    let path = json!({
        "name": "path",
        "in": "path",
        "required": true,
        "description": "What the worker is asked for; it may have slashes",
        "schema": { "type": "string" },
    });
    let mut parameters = references(&["app", "workerOfPath"]);
    parameters.extend([path, port]);
    let described = json!({
        "operationId": "askWorker",
        "summary": summary,
        "parameters": parameters,
        "responses": responses(answer, &[400, 404, 502]),
    });
    Operation { method: "get", path: "/v1/apps/{app}/workers/{worker}/http/{path}".to_owned(), described }
}

fn command(verb: Verb, schemas: &mut Schemas) -> Operation {
    let (summary, body, is_required) = match verb {
        Verb::Reload => {
            ("Replace every worker by a new one that is ready first", schemas.received::<ReloadBody>(), false)
        }
        Verb::Restart => ("End workers and start them again", schemas.received::<StartBody>(), false),
        Verb::Start => ("Start what is stopped", schemas.received::<StartBody>(), false),
        Verb::Scale => ("Have more or fewer workers", schemas.received::<ScaleBody>(), true),
        Verb::Stop => ("End workers", schemas.received::<StopBody>(), false),
        Verb::Signal => ("Send workers a signal", schemas.received::<SignalBody>(), true),
        Verb::Reset => ("Count their restarts from 0", schemas.received::<ResetBody>(), false),
        Verb::Upgrade => {
            ("Replace clusterd itself, while it serves", schemas.received::<UpgradeBody>(), false)
        }
    };
    let item = json!({ "anyOf": [schemas.sent::<Event>(), schemas.sent::<Outcome>()] });
    let answer = json!({
        "description": "It has begun: its progress, event by event, and the outcome as the last object",
        "content": stream(item),
    });
    let described = json!({
        "operationId": verb.name(),
        "summary": summary,
        "parameters": references(&["app"]),
        "requestBody": { "required": is_required, "content": { JSON: { "schema": body } } },
        "responses": responses(answer, &[400, 404, 409, 415, 422]),
    });
    Operation { method: "post", path: format!("/v1/apps/{{app}}/{}", verb.name()), described }
}

/// The answer, and those with which it may be refused. A client that is not trusted, and one too many, are refused
/// everywhere.
fn responses(answer: Value, refusals: &[u16]) -> Value {
    let mut responses = Map::from_iter([("200".to_owned(), answer)]);
    for status in refusals.iter().chain(&[403, 503]) {
        responses.insert(status.to_string(), json!({ "description": "Refused; the code says why" }));
    }
    Value::Object(responses)
}

fn references(names: &[&str]) -> Vec<Value> {
    names.iter().map(|name| json!({ "$ref": format!("#/components/parameters/{name}") })).collect()
}

fn parameters() -> Value {
    let truth = json!({ "type": "boolean", "default": false });
    let number = json!({ "type": "integer", "minimum": 1, "maximum": u32::MAX });
    json!({
        "app": { "name": "app", "in": "path", "required": true, "description": "The name of the app", "schema": { "type": "string" } },
        "appOfEvents": { "name": "app", "in": "query", "description": "Only events of this app", "schema": { "type": "string" } },
        "past": { "name": "past", "in": "query", "description": "First the last events of before", "schema": truth },
        "traffic": { "name": "traffic", "in": "query", "description": "Tell what passes through each, too", "schema": truth },
        "environment": { "name": "environment", "in": "query", "description": "Tell what workers were given, which may hold secrets", "schema": truth },
        "worker": { "name": "worker", "in": "query", "description": "Only those of this worker", "schema": number },
        "workerOfPath": { "name": "worker", "in": "path", "required": true, "description": "The number of the worker", "schema": number },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::api::Path;
    use crate::ids::Slot;

    #[test]
    fn the_file_is_fresh() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openapi.json");
        let is_fresh = std::fs::read_to_string(file).is_ok_and(|text| text == json());
        assert!(is_fresh, "docs/openapi.json is stale: run cargo xtask generate");
    }

    /// Each segment of a path is the same, or stands for a name.
    fn is_described(paths: &Map<String, Value>, path: &str) -> bool {
        let path = path.split('?').next().unwrap_or_default();
        paths.keys().any(|described| {
            let (described, path) = (described.split('/'), path.split('/'));
            described.clone().count() == path.clone().count()
                && described
                    .zip(path)
                    .all(|(described, segment)| described == segment || described.starts_with('{'))
        })
    }

    #[test]
    fn every_path_that_the_client_asks_for_is_described() {
        let document = document();
        let paths = document["paths"].as_object().unwrap();
        let asked = [
            Path::Apps,
            Path::AppsWithTraffic,
            Path::App("web"),
            Path::AppWithEnvironment("web"),
            Path::Connections("web", Some(Slot(1))),
            Path::Events(Some("web")),
            Path::EventsWithPast("web"),
            Path::Live("web"),
            Path::Exchange { app: "web", worker: Slot(1), path: "/x" },
        ];
        for path in asked.into_iter().chain(Verb::ALL.map(|verb| Path::Command("web", verb))) {
            assert!(is_described(paths, &path.to_string()), "{path}");
        }
        assert!(!is_described(paths, "/v1/nothing"));
    }

    #[test]
    fn every_reference_leads_somewhere() {
        fn references(value: &Value, found: &mut Vec<String>) {
            match value {
                Value::Object(fields) => {
                    found.extend(fields.get("$ref").and_then(Value::as_str).map(str::to_owned));
                    fields.values().for_each(|value| references(value, found));
                }
                Value::Array(items) => items.iter().for_each(|value| references(value, found)),
                _ => {}
            }
        }
        let (document, mut found) = (document(), Vec::new());
        references(&document, &mut found);
        assert!(found.len() > 20, "{found:?}");
        for reference in found {
            assert!(document.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
        }
    }
}
