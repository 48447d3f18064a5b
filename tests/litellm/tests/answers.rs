//! What models answer: buffered, streamed, with tools and formats; and what it costs.

mod world;

use serde_json::json;
use world::{prompt, stream, world};

#[tokio::test]
async fn a_buffered_answer_echoes_the_prompt_and_tells_its_cost_in_headers() {
    let world = world().await;
    let key = world.key(json!({})).await;
    let answer = world.chat(&key, prompt("gpt-4o", "hi there")).await;
    assert_eq!((answer.status, answer.content().as_str()), (200, "You said: hi there"));
    assert_eq!(answer.header("x-litellm-response-cost"), "4.5e-05");
    assert_eq!(answer.header("x-litellm-response-cost-original"), "4.5e-05");
    assert_eq!(answer.header("x-litellm-response-cost-input"), "5e-06");
    assert_eq!(answer.header("x-litellm-response-cost-output"), "4e-05");
    assert_eq!(answer.header("x-litellm-model-name"), "openai/gpt-4o");
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.header("x-litellm-call-id").len(), 36);
    let usage = &answer.json()["usage"];
    assert_eq!((usage["prompt_tokens"].as_u64(), usage["completion_tokens"].as_u64()), (Some(2), Some(4)));
    assert!(usage.get("cost").is_none());
    assert_eq!(world.key_info(&key).await["spend"].as_f64(), Some(4.5e-5));
}

#[tokio::test]
async fn costs_have_the_digits_that_python_prints() {
    let world = world().await;
    let master = world.litellm.master_key();
    let answer = world.chat(master, prompt("early-end", "hi there")).await;
    assert_eq!(answer.header("x-litellm-response-cost"), "1.3000000000000001e-05");
    let answer =
        world.chat(master, prompt("gpt-4o", "[[prompt_tokens=1000]] [[completion_tokens=5000]]")).await;
    assert_eq!(answer.header("x-litellm-response-cost"), "0.052500000000000005");
}

#[tokio::test]
async fn a_call_without_cost_has_no_cost_header_but_its_parts() {
    let world = world().await;
    for model in ["unpriced", "no-usage"] {
        let answer = world.chat(world.litellm.master_key(), prompt(model, "hi")).await;
        assert!(!answer.headers.contains_key("x-litellm-response-cost"), "{model}");
        assert_eq!(answer.header("x-litellm-response-cost-original"), "0.0", "{model}");
    }
    let answer = world.chat(world.litellm.master_key(), prompt("no-usage", "hi")).await;
    let zero = json!({"completion_tokens": 0, "prompt_tokens": 0, "total_tokens": 0});
    assert_eq!(answer.json()["usage"], zero);
}

#[tokio::test]
async fn a_stream_tells_usage_and_cost_in_the_last_event_before_done() {
    let world = world().await;
    let key = world.key(json!({})).await;
    let answer = world.chat(&key, stream("gpt-4o", "hi there")).await;
    assert_eq!(answer.header("content-type"), "text/event-stream; charset=utf-8");
    assert!(!answer.headers.contains_key("x-litellm-response-cost"));
    assert_eq!(answer.header("x-litellm-response-cost-original"), "0.0");
    let events = answer.events();
    assert_eq!(answer.streamed(), "You said: hi there");
    assert_eq!(events[0]["choices"], json!([{"index": 0, "delta": {"content": "", "role": "assistant"}}]));
    let [.., finish, last, done] = events.as_slice() else { panic!("too short") };
    assert_eq!(finish["choices"][0]["finish_reason"], "stop");
    assert_eq!(last["choices"], json!([{"index": 0, "delta": {}}]));
    assert_eq!(last["usage"]["cost"].as_f64(), Some(4.5e-5));
    assert_eq!(last["usage"]["total_tokens"].as_u64(), Some(6));
    assert_eq!(*done, "[DONE]");
    assert_eq!(world.key_info(&key).await["spend"].as_f64(), Some(4.5e-5));
}

#[tokio::test]
async fn a_stream_that_asks_for_no_usage_gets_none_and_is_billed_all_the_same() {
    let world = world().await;
    let key = world.key(json!({})).await;
    let mut body = stream("gpt-4o", "hi there");
    body["stream_options"].take();
    let answer = world.chat(&key, body).await;
    assert!(answer.events().iter().all(|event| event.get("usage").is_none()));
    assert_eq!(answer.events().last(), Some(&json!("[DONE]")));
    assert_eq!(world.key_info(&key).await["spend"].as_f64(), Some(4.5e-5));
}

#[tokio::test]
async fn an_unpriced_stream_has_usage_without_cost() {
    let world = world().await;
    let answer = world.chat(world.litellm.master_key(), stream("unpriced", "hi there")).await;
    let events = answer.events();
    let usage = &events[events.len() - 2]["usage"];
    assert_eq!(usage["total_tokens"].as_u64(), Some(6));
    assert!(usage.get("cost").is_none());
}

#[tokio::test]
async fn without_the_upstreams_usage_litellm_counts_a_streams_tokens_itself() {
    let world = world().await;
    let answer = world.chat(world.litellm.master_key(), stream("no-usage", "hi there")).await;
    let events = answer.events();
    let usage = &events[events.len() - 2]["usage"];
    let counted = (usage["prompt_tokens"].as_u64(), usage["completion_tokens"].as_u64());
    assert_eq!(counted, (Some(9), Some(5)));
    assert_eq!(usage["cost"].as_f64(), Some(0.000012));
}

#[tokio::test]
async fn marks_choose_length_and_finish_and_max_tokens_cuts() {
    let world = world().await;
    let master = world.litellm.master_key();
    let answer = world.chat(master, stream("gpt-4o", "[[chunks=3]] [[finish=content_filter]]")).await;
    assert_eq!(answer.streamed(), "word0 word1 word2 ");
    assert_eq!(answer.events()[4]["choices"][0]["finish_reason"], "content_filter");
    let mut body = prompt("gpt-4o", "one two three");
    body["max_tokens"] = json!(3);
    let answer = world.chat(master, body).await;
    assert_eq!(answer.content(), "You said: one");
    assert_eq!(answer.json()["choices"][0]["finish_reason"], "length");
}

#[tokio::test]
async fn content_may_be_a_list_of_parts_and_n_gives_several_choices() {
    let world = world().await;
    let parts = json!([{"type": "text", "text": "part one"}, {"type": "text", "text": "two"}]);
    let body = json!({"model": "gpt-4o", "messages": [{"role": "user", "content": parts}], "n": 2});
    let answer = world.chat(world.litellm.master_key(), body).await;
    assert_eq!(answer.content(), "You said: part one two");
    assert_eq!(answer.json()["choices"].as_array().map(Vec::len), Some(2));
    assert_eq!(answer.json()["usage"]["completion_tokens"].as_u64(), Some(10));
}

#[tokio::test]
async fn a_request_with_tools_gets_a_call_of_the_first_one() {
    let world = world().await;
    let schema =
        json!({"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}});
    let tools = json!([{"type": "function", "function": {"name": "weather", "parameters": schema}}]);
    let mut body = stream("gpt-4o", "hi");
    body["tools"] = tools.clone();
    let streamed = world.chat(world.litellm.master_key(), body).await.events();
    let call = |event: &serde_json::Value| event["choices"][0]["delta"]["tool_calls"][0]["function"].clone();
    assert_eq!(call(&streamed[0])["name"], "weather");
    let arguments: String =
        streamed.iter().filter_map(|event| call(event)["arguments"].as_str().map(str::to_owned)).collect();
    assert_eq!(arguments, r#"{"city": "sample", "days": 1}"#);

    let mut body = prompt("gpt-4o", "hi");
    body["tools"] = tools;
    let choice = world.chat(world.litellm.master_key(), body).await.json()["choices"][0].clone();
    assert_eq!(choice["finish_reason"], "tool_calls");
    assert_eq!(
        choice["message"]["tool_calls"][0]["function"]["arguments"],
        r#"{"city": "sample", "days": 1}"#
    );
    assert!(choice["message"]["content"].is_null());
}

#[tokio::test]
async fn a_response_format_is_followed_even_when_its_schema_contains_itself() {
    let world = world().await;
    let master = world.litellm.master_key();
    let mut body = prompt("gpt-4o", "hi");
    body["response_format"] = json!({"type": "json_object"});
    assert_eq!(world.chat(master, body.clone()).await.content(), r#"{"heard": "hi"}"#);
    let schema =
        json!({"type": "object", "properties": {"n": {"type": "number"}, "kind": {"enum": ["b", "a"]}}});
    body["response_format"] = json!({"type": "json_schema", "json_schema": {"name": "x", "schema": schema}});
    assert_eq!(world.chat(master, body.clone()).await.content(), r#"{"kind": "b", "n": 1.5}"#);
    let endless = json!({"type": "array", "items": {"$ref": "#"}});
    body["response_format"]["json_schema"]["schema"] = endless;
    assert_eq!(world.chat(master, body).await.status, 200);
}

#[tokio::test]
async fn a_call_keeps_the_callers_id_and_both_ids_find_it_in_the_spend_log() {
    let world = world().await;
    let team = world.team(json!({})).await;
    let key = world.key(json!({"team_id": team})).await;
    let answer = world
        .send(|client| {
            let request = client.post(world.url("/chat/completions")).bearer_auth(&key);
            request.header("x-litellm-call-id", "mine-1").json(&prompt("gpt-4o", "hi there"))
        })
        .await;
    assert_eq!(answer.header("x-litellm-call-id"), "mine-1");
    let id = answer.json()["id"].as_str().expect("an id").to_owned();
    for asked in ["mine-1", &id] {
        let rows = world.admin_get(&format!("/spend/logs?request_id={asked}")).await.json();
        assert_eq!(rows.as_array().map(Vec::len), Some(1), "{asked}");
        assert_eq!(rows[0]["request_id"], id.as_str());
        assert_eq!(rows[0]["spend"].as_f64(), Some(4.5e-5));
        assert_eq!((&rows[0]["status"], &rows[0]["team_id"]), (&json!("success"), &json!(team)));
    }
    assert_eq!(world.admin_get("/spend/logs?request_id=other").await.json(), json!([]));
}

#[tokio::test]
async fn a_client_that_leaves_a_stream_stops_it_and_pays_for_what_was_made() {
    let world = world().await;
    let team = world.team(json!({})).await;
    let key = world.key(json!({"team_id": team})).await;
    let marks = "[[chunks=40]] [[delay_ms=100]]";
    world.leave_after(&key, stream("gpt-4o", marks), 5).await;
    world::eventually("the partial bill", || world.only_key(&team).spend > 0.0).await;
    let spend = world.only_key(&team).spend;
    let full = world.chat(&key, prompt("gpt-4o", marks)).await;
    let full: f64 = full.header("x-litellm-response-cost").parse().expect("a number");
    assert!(spend < full / 2.0, "{spend} of {full}");
    let rows = world.admin_get("/spend/logs").await.json();
    assert_eq!(rows[0]["status"], "success");
    assert_eq!(rows[0]["metadata"]["error_information"]["error_code"], "499");
    assert_eq!(world.litellm.requests()[2].outcome, litellm_stand_in::Outcome::ClientLeft);
}

#[tokio::test]
async fn a_client_that_leaves_a_buffered_call_pays_for_all_of_it() {
    let world = world().await;
    let team = world.team(json!({})).await;
    let key = world.key(json!({"team_id": team})).await;
    let body = prompt("gpt-4o", "[[first_ms=400]] [[chunks=40]] [[prompt_tokens=8]]");
    let request = world.client.post(world.url("/chat/completions")).bearer_auth(&key).json(&body);
    let left = tokio::time::timeout(std::time::Duration::from_millis(150), request.send()).await;
    assert!(left.is_err());
    world::eventually("the full bill", || world.only_key(&team).spend == 0.00042).await;
    assert_eq!(world.litellm.requests()[2].outcome, litellm_stand_in::Outcome::ClientLeft);
}
