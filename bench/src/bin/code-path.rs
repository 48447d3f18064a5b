//! What our own code does for a buffered call, natively built and without a host: reading the request, writing
//! LiteLLM's, reading its answer, writing ours. `code-path N` does it N times and prints how often it allocated.

use axum::http::{HeaderMap, StatusCode};
use serde_json::{json, value::RawValue};
use shared::{
    calls::{CallRequest, Streaming},
    litellm::{Answer, chat::completion},
};
use std::{
    alloc::{GlobalAlloc, Layout, System},
    collections::BTreeMap,
    hint::black_box,
    sync::atomic::{AtomicU64, Ordering},
};

/// The system's allocator, counted.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: everything is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() {
    let times = std::env::args().nth(1).and_then(|times| times.parse().ok()).unwrap_or(1);
    let text = "Summarise the attached minutes of the meeting for somebody who was not there. ".repeat(10);
    let request =
        json!({"messages": [{"role": "user", "content": text}], "temperature": 0.2, "max_tokens": 200});
    let request = request.to_string();
    let answer = json!({
        "id": "chatcmpl-1", "created": 1_700_000_000, "model": "gpt-4o-mini", "object": "chat.completion",
        "choices": [{"finish_reason": "stop", "index": 0, "message": {"role": "assistant", "content": text}}],
        "usage": {"completion_tokens": 50, "prompt_tokens": 100, "total_tokens": 150},
    });
    let mut headers = HeaderMap::new();
    headers.insert("x-litellm-response-cost", "0.000045".parse().expect("a header"));
    let answer = Answer { status: StatusCode::OK, headers, body: answer.to_string().into() };
    let config: BTreeMap<String, Box<RawValue>> = BTreeMap::new();

    for _ in 0..times {
        let request = CallRequest::parse(black_box(request.as_bytes()), Streaming::Never).expect("a request");
        black_box(request.body_for("gpt-4o-mini", &config).expect("a body"));
        let completion = completion(black_box(&answer)).expect("a completion");
        black_box(serde_json::to_vec(&completion).expect("JSON"));
    }
    println!("{}", ALLOCATIONS.load(Ordering::Relaxed));
}
