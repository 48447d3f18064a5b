//! What the fuzz targets have in common: what holds for every refusal, and a second reading of event streams.
//!
//! Each target in `fuzz_targets/` states properties, not only that nothing panics: a component that panics traps, and
//! takes every other request of its instance along.

use axum::{http::StatusCode, response::IntoResponse};
use shared::error::{Code, Error};

/// Bad input is a 400 that names what is at fault.
pub fn assert_refusal(error: Error) {
    assert_eq!(error.code, Code::InvalidRequest, "{}", error.detail);
    assert!(error.detail.contains(": "), "a refusal that names no field: {}", error.detail);
    assert_eq!(error.into_response().status(), StatusCode::BAD_REQUEST);
}

/// The data of each event of a complete stream, read from the specification (HTML, 9.2.6) as simply as possible.
pub fn events(stream: &str) -> Vec<String> {
    let stream = stream.strip_prefix('\u{feff}').unwrap_or(stream).replace("\r\n", "\n").replace('\r', "\n");
    let (mut events, mut data) = (vec![], String::new());
    let mut lines: Vec<&str> = stream.split('\n').collect();
    // What follows the last end of a line is no line.
    lines.pop();
    for line in lines {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        if line.is_empty() && !data.is_empty() {
            data.pop();
            events.push(std::mem::take(&mut data));
        } else if field == "data" {
            data.push_str(value.strip_prefix(' ').unwrap_or(value));
            data.push('\n');
        }
    }
    events
}
