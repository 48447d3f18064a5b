//! What a model has to say: an echo of the prompt, the arguments of a function call, or what a response format asks
//! for.

use std::io;
use std::sync::LazyLock;

use regex::Regex;
use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};
use serde_json::{Map, Value, json};

use crate::behaviour::{Behaviour, without_marks};
use crate::cost::{Usage, count_tokens};

/// A reply, cut into the pieces in which a stream carries it.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub pieces: Vec<String>,
    /// The function that is called; then the pieces are its arguments.
    pub function: Option<String>,
    pub finish: String,
    /// What the upstream says about tokens; it may say nothing.
    pub usage: Option<Usage>,
    /// How many choices there are, at least 1.
    pub choices: usize,
}

static PIECE: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"\s*\S+|\s+$").expect("the pattern is a constant"));

impl Reply {
    /// The reply to a chat request.
    ///
    /// # Errors
    /// The upstream's complaint about a request that it can't follow.
    pub fn to(body: &Value, behaviour: &Behaviour) -> Result<Reply, String> {
        let messages = body["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
        let (text, function) = content(body, messages)
            .map_err(|missing| format!("cannot follow this request: KeyError('{missing}')"))?;
        let mut pieces: Vec<String> = match behaviour.chunks {
            Some(count) => {
                (0..count).map(|at| padded(&format!("word{at} "), behaviour.chunk_bytes)).collect()
            }
            None => PIECE.find_iter(&text).map(|piece| piece.as_str().to_owned()).collect(),
        };
        let mut finish = if function.is_some() { "tool_calls" } else { "stop" };
        let limit = max_tokens(body).and_then(|limit| usize::try_from(limit).ok());
        if let Some(limit) = limit.filter(|limit| *limit < pieces.len() && function.is_none()) {
            pieces.truncate(limit);
            finish = "length";
        }
        let choices = body["n"].as_u64().filter(|n| *n > 0).unwrap_or(1) as usize;
        let usage = behaviour.usage.then(|| Usage {
            prompt: behaviour.prompt_tokens.unwrap_or_else(|| letters(messages).div_ceil(4).into()),
            completion: behaviour.completion_tokens.unwrap_or((pieces.len() * choices) as i128),
            counted_by_litellm: false,
        });
        let finish = behaviour.finish.clone().unwrap_or_else(|| finish.to_owned());
        Ok(Reply { pieces, function, finish, usage, choices })
    }

    /// One choice of a buffered answer.
    pub fn choice(&self, ident: &str, index: usize) -> Value {
        let text = self.pieces.concat();
        let mut message =
            json!({"role": "assistant", "provider_specific_fields": {"refusal": null}, "content": null});
        match &self.function {
            Some(name) => {
                let call = json!({"function": {"arguments": text, "name": name}, "id": format!("call_{ident}_{index}"),
                    "type": "function"});
                message["tool_calls"] = json!([call]);
            }
            None => message["content"] = json!(text),
        }
        json!({"finish_reason": self.finish, "index": index, "message": message, "provider_specific_fields": {}})
    }

    /// The delta that opens a stream.
    pub fn opening(&self, ident: &str) -> Value {
        match &self.function {
            Some(name) => {
                let call = json!({"id": format!("call_{ident}_0"), "function": {"arguments": "", "name": name},
                    "type": "function", "index": 0});
                json!({"role": "assistant", "tool_calls": [call]})
            }
            None => json!({"content": "", "role": "assistant"}),
        }
    }

    /// The delta that carries one piece.
    pub fn delta(&self, piece: &str) -> Value {
        match &self.function {
            Some(_) => {
                json!({"tool_calls": [{"function": {"arguments": piece}, "type": "function", "index": 0}]})
            }
            None => json!({"content": piece}),
        }
    }

    /// The tokens of the prompt and of the first `sent` pieces as LiteLLM counts them itself.
    pub fn counted(&self, body: &Value, sent: usize) -> Usage {
        let text = self.pieces.get(..sent).unwrap_or(&self.pieces).concat();
        let completion = count_tokens(&text) * self.choices as u64;
        Usage { prompt: prompt_tokens(body).into(), completion: completion.into(), counted_by_litellm: true }
    }
}

/// The tokens of a request's messages as LiteLLM counts them itself: some for each message besides its text.
pub(crate) fn prompt_tokens(body: &Value) -> u64 {
    let messages = body["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
    messages.iter().map(|message| 4 + count_tokens(&text_of(&message["content"]))).sum::<u64>() + 3
}

/// The tokens of a request's texts alone, which is what LiteLLM's rate limiter looks at.
pub(crate) fn text_tokens(body: &Value) -> u64 {
    let messages = body["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
    messages.iter().map(|message| count_tokens(&text_of(&message["content"]))).sum()
}

/// The request's own limit on the length of the answer.
pub(crate) fn max_tokens(body: &Value) -> Option<u64> {
    let of = |name: &str| body[name].as_u64().filter(|limit| *limit > 0);
    of("max_completion_tokens").or_else(|| of("max_tokens"))
}

/// The last message of the user, in which marks are looked for.
pub(crate) fn last_prompt(body: &Value) -> String {
    let messages = body["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
    let last = messages.iter().rev().find(|message| message["role"] == "user");
    last.map(|message| text_of(&message["content"])).unwrap_or_default()
}

/// The text of a message, whose content is a string, a list of parts, or nothing.
fn text_of(content: &Value) -> String {
    match content {
        Value::Array(parts) => {
            let texts: Vec<&str> =
                parts.iter().map(|part| part["text"].as_str().unwrap_or_default()).collect();
            texts.join(" ")
        }
        other => other.as_str().unwrap_or_default().to_owned(),
    }
}

fn letters(messages: &[Value]) -> u64 {
    messages.iter().map(|message| text_of(&message["content"]).chars().count() as u64).sum()
}

fn padded(word: &str, bytes: usize) -> String {
    format!("{word:.<bytes$}")
}

/// The text of the reply and the function that is called; or the name of what the request lacks.
fn content(body: &Value, messages: &[Value]) -> Result<(String, Option<String>), &'static str> {
    let last = messages.last().unwrap_or(&Value::Null);
    let heard = without_marks(&text_of(&last["content"])).trim().to_owned();
    let tools = body["tools"].as_array().map(Vec::as_slice).unwrap_or_default();
    if !tools.is_empty() && body["tool_choice"] != "none" && last["role"] != "tool" {
        let function = chosen(tools, &body["tool_choice"])?;
        let name = function["name"].as_str().ok_or("name")?.to_owned();
        let schema = &function["parameters"];
        return Ok((python_json(&sample(schema, schema, 0)), Some(name)));
    }
    let wanted = &body["response_format"];
    match wanted["type"].as_str() {
        Some("json_schema") => {
            let schema = &wanted["json_schema"]["schema"];
            Ok((python_json(&sample(schema, schema, 0)), None))
        }
        Some("json_object") => Ok((python_json(&json!({"heard": heard})), None)),
        _ => Ok((format!("You said: {heard}"), None)),
    }
}

fn chosen<'a>(tools: &'a [Value], choice: &Value) -> Result<&'a Value, &'static str> {
    let wanted =
        if choice.is_object() { Some(choice["function"]["name"].as_str().ok_or("function")?) } else { None };
    let mut functions = tools.iter().map(|tool| &tool["function"]);
    let found = functions.find(|function| wanted.is_none_or(|name| function["name"] == name));
    found.filter(|function| function.is_object()).ok_or("function")
}

/// A value that a JSON schema allows; enough for the schemas of function parameters and response formats.
/// `depth` bounds schemas that contain themselves.
fn sample(schema: &Value, root: &Value, depth: u8) -> Value {
    if depth > 16 {
        return Value::Null;
    }
    let sample = |inner: &Value| sample(inner, root, depth + 1);
    if let Some(path) = schema["$ref"].as_str() {
        return root.pointer(path.trim_start_matches('#')).map_or(Value::Null, sample);
    }
    if let Some(value) = schema.get("const") {
        return value.clone();
    }
    if let Some(value) = schema["enum"].get(0) {
        return value.clone();
    }
    if let Some(inner) = ["anyOf", "oneOf", "allOf"].iter().find_map(|choice| schema[choice].get(0)) {
        return sample(inner);
    }
    let kind = schema["type"].get(0).unwrap_or(&schema["type"]).as_str().unwrap_or("object");
    match kind {
        "object" => {
            let properties = schema["properties"].as_object().into_iter().flatten();
            Value::Object(
                properties.map(|(name, inner)| (name.clone(), sample(inner))).collect::<Map<_, _>>(),
            )
        }
        "array" => match schema.get("items") {
            Some(items) => json!([sample(items)]),
            None => json!(["sample"]),
        },
        "string" => json!("sample"),
        "integer" => json!(1),
        "number" => json!(1.5),
        "boolean" => json!(true),
        _ => Value::Null,
    }
}

/// JSON with Python's spaces after `,` and `:`, at which a reply is cut into pieces.
fn python_json(value: &Value) -> String {
    let mut text = Vec::new();
    let written = value.serialize(&mut Serializer::with_formatter(&mut text, Spaced));
    debug_assert!(written.is_ok(), "a JSON value is always written to memory");
    String::from_utf8_lossy(&text).into_owned()
}

struct Spaced;

impl Formatter for Spaced {
    fn begin_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        writer.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        writer.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }
}
