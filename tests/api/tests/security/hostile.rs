//! Texts by which databases, shells, formats and parsers have been fooled, and the places of a request where they can
//! stand.

use crate::recipes::Recipe;
use openapi::{name, verb};
use reqwest::Method;
use serde_json::Value;
use shared::http::api::Route;
use std::sync::LazyLock;

/// Texts that are valid JSON strings and that PostgreSQL can hold. A statement that runs one of the sleeps ends at the
/// statement timeout, which is a 5xx.
pub const TEXTS: [&str; 14] = [
    "'",
    "\"",
    "\\",
    "x'); DROP TABLE teams CASCADE; --",
    "' OR '1'='1",
    "1; SELECT pg_sleep(60)",
    "' || (SELECT pg_sleep(60)) || '",
    "$1 $2 $$ $body$; DELETE FROM virtual_keys",
    "\\x27 \\' E'\\047' \\",
    "’ʼ＇‘ ؄ \u{202e}txet",
    "%s %n {} {{ litellm_master_key }} ${admin_key}",
    "0x00 -- /* */ # ;",
    "NULL",
    "🦀\u{1F468}\u{200D}\u{1F469}\u{fffd}\u{feff}",
];

/// JSON strings, as they stand in a body, that are none to PostgreSQL or none at all: U+0000, halves of surrogate
/// pairs, control characters, bytes that are not UTF-8.
pub const NO_TEXTS: [&[u8]; 6] = [
    b"\"a\\u0000b\"",
    b"\"\\ud800\"",
    b"\"\\udc00\\ud800\"",
    b"\"a\0b\"",
    b"\"\xff\xfe\"",
    b"\"\xc0\xa7 OR 1=1\"",
];

/// A text that is longer than anything that is stored.
pub fn long() -> String {
    "é'".repeat(100_000)
}

/// Every byte as `%xx`, so that nothing between here and the application normalises it.
pub fn encoded(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("%{byte:02x}")).collect()
}

/// The OpenAPI document.
static SPEC: LazyLock<Value> =
    LazyLock::new(|| serde_json::to_value(openapi::spec()).expect("the document as JSON"));

fn resolved(schema: &Value) -> &Value {
    match schema["$ref"].as_str() {
        Some(reference) => resolved(SPEC.pointer(reference.trim_start_matches('#')).expect("a schema")),
        None => schema,
    }
}

/// The schema itself and those that it is one of.
fn alternatives(schema: &Value) -> Vec<&Value> {
    let schema = resolved(schema);
    let others = ["oneOf", "anyOf", "allOf"].into_iter().filter_map(|word| schema[word].as_array()).flatten();
    std::iter::once(schema).chain(others.flat_map(alternatives)).collect()
}

fn operation(route: &Route) -> &'static Value {
    &SPEC["paths"][&route.path][verb(&route.method).to_lowercase()]
}

/// The parameters of a route's query.
pub fn query_parameters(route: &Route) -> Vec<&'static str> {
    let parameters = operation(route)["parameters"].as_array().map(Vec::as_slice).unwrap_or_default();
    let in_query = parameters.iter().map(resolved).filter(|parameter| parameter["in"] == "query");
    in_query.filter_map(|parameter| parameter["name"].as_str()).collect()
}

/// A step to a place within JSON.
#[derive(Clone, Debug)]
pub enum Step {
    /// This member of an object.
    Member(String),
    /// The first element of a list.
    First,
}

/// OpenAI's parameters that go on to the model as they came: nothing here looks into them, and no statement has them.
const PASSED_ON: [&str; 23] = [
    "audio",
    "frequency_penalty",
    "function_call",
    "functions",
    "logit_bias",
    "logprobs",
    "max_completion_tokens",
    "max_tokens",
    "modalities",
    "n",
    "parallel_tool_calls",
    "prediction",
    "presence_penalty",
    "reasoning_effort",
    "response_format",
    "seed",
    "temperature",
    "tool_choice",
    "tools",
    "top_logprobs",
    "top_p",
    "verbosity",
    "web_search_options",
];

/// Every place in a route's body, without OpenAI's parameters of a call.
pub fn places(route: &Route) -> Vec<Vec<Step>> {
    let schema = &operation(route)["requestBody"]["content"]["application/json"]["schema"];
    let mut places = vec![];
    if !schema.is_null() {
        collect(schema, &[], &mut places);
    }
    places.retain(|place| !matches!(&place[0], Step::Member(name) if PASSED_ON.contains(&name.as_str())));
    places
}

fn collect(schema: &Value, at: &[Step], places: &mut Vec<Vec<Step>>) {
    if at.len() > 3 {
        return;
    }
    for schema in alternatives(schema) {
        let mut go = |step: Step, schema: &Value| {
            let place = [at, &[step]].concat();
            places.push(place.clone());
            collect(schema, &place, places);
        };
        for (name, member) in schema["properties"].as_object().into_iter().flatten() {
            go(Step::Member(name.clone()), member);
        }
        if schema["items"].is_object() {
            go(Step::First, &schema["items"]);
        }
        if schema["type"] == "object" && schema["properties"].is_null() {
            go(Step::Member("any".into()), &Value::Null);
        }
    }
}

/// Puts a value into a place, making what has to be there for it.
pub fn put(into: &mut Value, place: &[Step], value: Value) {
    let Some((step, rest)) = place.split_first() else {
        *into = value;
        return;
    };
    match step {
        Step::Member(name) => {
            if !into.is_object() {
                *into = Value::Object(serde_json::Map::new());
            }
            put(
                into.as_object_mut().expect("an object").entry(name.clone()).or_insert(Value::Null),
                rest,
                value,
            );
        }
        Step::First => {
            if into.as_array().is_none_or(Vec::is_empty) {
                *into = Value::Array(vec![Value::Null]);
            }
            put(&mut into[0], rest, value);
        }
    }
}

/// The body with this text, which need not be JSON, in a place.
pub fn body_with(body: &Value, place: &[Step], raw: &[u8]) -> Vec<u8> {
    const HERE: &str = "here-it-comes";
    let mut body = body.clone();
    put(&mut body, place, HERE.into());
    let text = body.to_string();
    let (before, after) = text.split_once(&format!("\"{HERE}\"")).expect("the place");
    [before.as_bytes(), raw, after.as_bytes()].concat()
}

/// The paths of a request with this in place of each of its parameters, one at a time.
pub fn paths_with(route: &Route, recipe: &Recipe, bytes: &[u8]) -> Vec<String> {
    let (path, query) = recipe.path.split_once('?').unwrap_or((&recipe.path, ""));
    let parameters = route.path.split('/').enumerate().filter(|(_, segment)| segment.starts_with('{'));
    let replaced = |(at, _): (usize, &str)| {
        let mut segments: Vec<String> = path.split('/').map(str::to_owned).collect();
        segments[at] = encoded(bytes);
        format!("{}?{query}", segments.join("/"))
    };
    parameters.map(replaced).collect()
}

/// The method of a route.
pub fn method(route: &Route) -> Method {
    Method::from_bytes(verb(&route.method).as_bytes()).unwrap_or_else(|_| panic!("{}", name(route)))
}
