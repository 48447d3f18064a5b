//! The event stream of a model, from LiteLLM's bytes to the caller's.
//!
//! * However the bytes are cut into chunks, the events are the same, and they are those of the specification; none is
//!   lost.
//! * Each piece of an answer becomes one event for the caller, in either form: JSON on one line, which names the group
//!   as the model and brings the members of the delta as they came.
#![no_main]

use bytes::Bytes;
use futures::{executor::block_on, stream};
use libfuzzer_sys::fuzz_target;
use serde::Deserialize;
use serde_json::value::RawValue;
use shared::{
    calls::Form,
    litellm::chat::{Chunk, Event, Events},
    values::{CallId, GroupName},
};
use std::{collections::BTreeMap, convert::Infallible};
use uuid::Uuid;

fuzz_target!(|input: &[u8]| {
    let Some((&length, body)) = input.split_first() else { return };
    let whole = read(vec![Bytes::copy_from_slice(body)]);
    let length = usize::from(length).max(1);
    let cut = read(body.chunks(length).map(Bytes::copy_from_slice).collect());
    assert_eq!(format!("{whole:?}"), format!("{cut:?}"), "in chunks of {length}");
    if let Ok(text) = std::str::from_utf8(body) {
        compare(&whole, &fuzz::events(text));
    }
    for event in &whole {
        if let Event::Chunk(chunk) = event {
            for form in [Form::Own, Form::OpenAi { include_usage: true }] {
                pass_on(chunk, form);
            }
        }
    }
});

/// The events up to `[DONE]`, the first failure, or the end.
fn read(chunks: Vec<Bytes>) -> Vec<Event> {
    let mut events = Events::of(stream::iter(chunks.into_iter().map(Ok::<_, Infallible>)));
    let mut read = vec![];
    while let Ok(event) = block_on(events.next()) {
        let done = matches!(event, Event::Done);
        read.push(event);
        if done {
            break;
        }
    }
    read
}

fn compare(read: &[Event], expected: &[String]) {
    for (index, data) in expected.iter().enumerate() {
        match read.get(index) {
            Some(Event::Done) => return assert_eq!(data, "[DONE]"),
            Some(Event::Chunk(_)) => assert!(serde_json::from_str::<Chunk>(data).is_ok(), "{data}"),
            None => {
                // A list of a chunk's members is none, though what serde derives would take it.
                let members = serde_json::from_str::<BTreeMap<String, &RawValue>>(data);
                let is_chunk = members.is_ok_and(|members| !members.contains_key("error"))
                    && serde_json::from_str::<Chunk>(data).is_ok();
                return assert!(data != "[DONE]" && !is_chunk, "lost: {data}");
            }
        }
    }
    assert!(read.len() <= expected.len(), "{read:?}, but {expected:?}");
}

fn pass_on(chunk: &Chunk, form: Form) {
    #[derive(Deserialize)]
    struct Piece {
        model: String,
        choices: [Choice; 1],
        content: Option<Box<RawValue>>,
    }
    #[derive(Deserialize)]
    struct Choice {
        delta: BTreeMap<String, Box<RawValue>>,
        finish_reason: Option<String>,
    }
    let group = GroupName::try_from("Group".to_owned()).expect("a name");
    let Some(event) = form.chunk(CallId(Uuid::nil()), &group, 1, chunk) else { return };
    let event = std::str::from_utf8(&event).expect("UTF-8");
    let data = fuzz::events(event);
    let [data] = data.as_slice() else { panic!("not one event: {event:?}") };
    assert_eq!(event, format!("data: {data}\n\n"), "more than its data");
    assert!(!data.contains(['\n', '\r']), "more than one line: {data:?}");
    let piece: Piece = serde_json::from_str(data).expect("a piece");
    let [Choice { delta, finish_reason }] = piece.choices;
    let original = &chunk.choices[0];
    assert_eq!(piece.model, "Group");
    assert_eq!(finish_reason, original.finish_reason);
    for (name, value) in &delta {
        assert_eq!(on_one_line(value), on_one_line(&original.delta[name]));
    }
    let content = delta.get("content").filter(|_| form == Form::Own);
    assert_eq!(piece.content.map(|text| on_one_line(&text)), content.map(|text| on_one_line(text)));
}

/// JSON without the ends of lines that may stand between its tokens.
fn on_one_line(value: &RawValue) -> String {
    value.get().replace(['\n', '\r'], " ")
}
