//! The OpenAPI document.

use openapi::{name, routes, spec};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// The document as its readers get it.
fn document() -> Value {
    serde_json::to_value(spec()).expect("JSON")
}

/// Every operation with its name.
fn operations(document: &Value) -> Vec<(String, &Value)> {
    let name = |method: &str, path: &str| format!("{} {path}", method.to_uppercase());
    let paths = document["paths"].as_object().expect("paths");
    let operations = paths.iter().flat_map(|(path, item)| {
        let item = item.as_object().expect("a path's operations");
        item.iter().map(move |(method, operation)| (name(method, path), operation))
    });
    operations.collect()
}

/// What a reference leads to; the value itself if it is none.
fn resolved<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    match value["$ref"].as_str() {
        None => value,
        Some(reference) => {
            let target = document.pointer(reference.trim_start_matches('#'));
            target.unwrap_or_else(|| panic!("{reference} leads nowhere"))
        }
    }
}

/// Every value of the document, from the outside in.
fn all(value: &Value) -> Vec<&Value> {
    let inner: Vec<&Value> = match value {
        Value::Array(items) => items.iter().collect(),
        Value::Object(members) => members.values().collect(),
        _ => vec![],
    };
    std::iter::once(value).chain(inner.into_iter().flat_map(all)).collect()
}

#[test]
fn it_has_every_route_and_no_other() {
    let document = document();
    let documented: BTreeSet<String> = operations(&document).into_iter().map(|(name, _)| name).collect();
    let listed: Vec<String> = routes().iter().map(|(_, route)| name(route)).collect();
    assert_eq!(documented, listed.iter().cloned().collect());
    assert_eq!(documented.len(), listed.len(), "two components have the same route");
    assert_eq!(document["openapi"], "3.1.0");
}

#[test]
fn every_reference_leads_somewhere() {
    let document = document();
    for value in all(&document) {
        resolved(&document, value);
    }
}

#[test]
fn every_operation_has_a_tag_a_summary_and_an_id_of_its_own() {
    let document = document();
    let mut ids = BTreeSet::new();
    for (name, operation) in operations(&document) {
        assert_eq!(operation["tags"].as_array().map(Vec::len), Some(1), "{name}: one tag");
        assert!(operation["summary"].as_str().is_some_and(|text| !text.is_empty()), "{name}: a summary");
        let id = operation["operationId"].as_str().expect("an id");
        assert!(ids.insert(id), "{name}: another operation is {id}");
    }
}

#[test]
fn every_request_body_has_an_example() {
    let document = document();
    for (name, operation) in operations(&document) {
        for content in
            operation["requestBody"]["content"].as_object().iter().flat_map(|content| content.values())
        {
            let schema = resolved(&document, &content["schema"]);
            let shown = [&content["example"], &content["examples"], &schema["example"], &schema["examples"]];
            assert!(
                shown.iter().any(|example| !example.is_null()),
                "{name}: give its schema `#[schema(example = json!(…))]`, or its request body an `example`"
            );
        }
    }
}

#[test]
fn every_answer_is_described_and_names_the_request_id() {
    let document = document();
    for (name, operation) in operations(&document) {
        for (status, response) in operation["responses"].as_object().expect("responses") {
            let response = resolved(&document, response);
            assert!(response["description"].as_str().is_some_and(|text| !text.is_empty()), "{name} {status}");
            assert!(response["headers"]["x-request-id"].is_object(), "{name} {status}");
            assert!(response["content"].is_object(), "{name} {status}");
        }
    }
}

#[test]
fn who_may_call_is_said_of_every_operation() {
    let document = document();
    for (name, operation) in operations(&document) {
        let security = match operation["x-access"].as_str() {
            Some("anybody") => json!([]),
            Some("admin") => json!([{"adminKey": []}]),
            Some("team") => json!([{"virtualKey": []}]),
            Some("admin or team") => json!([{"adminKey": []}, {"virtualKey": []}]),
            other => panic!("{name}: {other:?}"),
        };
        assert_eq!(operation["security"], security, "{name}");
        let answers_401 = operation["responses"].get("401").is_some();
        assert_eq!(answers_401, security != json!([]), "{name}");
    }
}
