//! The log: one JSON object a line on the component's standard error, for what somebody should know: requests that
//! failed for a reason of ours, and failures outside of any request. No key, prompt or `Idempotency-Key` may get into
//! it.

use serde::Serialize;
use std::time::{Duration, SystemTime};

/// A line of the log.
#[serde_with::skip_serializing_none]
#[derive(Default, Serialize)]
pub struct Line<'a> {
    /// What was done, of a failure outside of any request.
    pub task: Option<&'a str>,
    /// The `x-request-id` of the answer.
    pub request_id: Option<&'a str>,
    /// The method of the request.
    pub method: Option<&'a str>,
    /// The route, with the names of its parameters; not the path, which may hold anything.
    pub route: Option<&'a str>,
    /// The team whose key the request has shown.
    pub team_id: Option<&'a str>,
    /// The status of the answer.
    pub status: Option<u16>,
    /// How long the answer took, up to its head.
    #[serde(serialize_with = "milliseconds")]
    pub duration_ms: Option<Duration>,
    /// What is behind the failure.
    pub cause: Option<&'a str>,
}

fn milliseconds<S: serde::Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    duration.unwrap_or_default().as_millis().serialize(serializer)
}

impl Line<'_> {
    /// Writes it, whatever it quotes: what could end a line in some reader's eyes becomes a space.
    pub fn write(&self) {
        #[derive(Serialize)]
        struct Timed<'a> {
            /// Milliseconds since 1970.
            time_ms: u128,
            #[serde(flatten)]
            line: &'a Line<'a>,
        }
        let time_ms =
            SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
        let text = serde_json::to_string(&Timed { time_ms, line: self }).unwrap_or_default();
        eprintln!("{}", text.replace(|c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}'), " "));
    }
}
