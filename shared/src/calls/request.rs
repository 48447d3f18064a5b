//! A caller's request for a call.
//!
//! The body is parsed only as far as necessary: `messages` and OpenAI's other parameters go to LiteLLM as the text in
//! which they arrived. Fields that are not on the list of OpenAI's parameters are refused, and with them everything by
//! which a caller could control LiteLLM itself (`api_base`, `api_key`, `metadata`, `fallbacks`, `user_config` …).

use crate::{
    error::{Error, Result},
    http::{Fields, Object, parse_body},
    values::{GroupName, Label, Metadata, TeamId, check_storable},
};
use serde::Deserialize;
use serde_json::{
    Value,
    value::{RawValue, to_raw_value},
};
use std::collections::{BTreeMap, HashSet};

/// OpenAI's parameters of a chat completion that are passed through. `model`, `messages` and `stream` are set here.
pub(super) const PASSED_THROUGH: &[&str] = &[
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
    "stop",
    "temperature",
    "tool_choice",
    "tools",
    "top_logprobs",
    "top_p",
    "user",
    "verbosity",
    "web_search_options",
];

/// Whether a route answers as a stream.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Streaming {
    /// Always; a `stream` with another value is refused.
    Always,
    /// Never; a `stream` with another value is refused.
    Never,
    /// As the field `stream` says; without it, not.
    AsAsked,
}

/// A valid request for a call.
pub struct CallRequest<'a> {
    /// The requested model group; `None`: the team's default.
    pub model_group: Option<GroupName>,
    /// The purpose of the call, in the caller's words.
    pub purpose: Option<Label>,
    /// The caller's own data about the call.
    pub call_metadata: Metadata,
    /// Whether the answer is a stream.
    pub streamed: bool,
    /// Whether a stream in OpenAI's form ends with its usage.
    pub include_usage: bool,
    messages: &'a RawValue,
    parameters: BTreeMap<String, &'a RawValue>,
}

/// A job to create for one call.
pub struct NewJob {
    /// `None`: the key's team.
    pub team_id: Option<TeamId>,
    /// The user for whom the job is done, as the caller knows them.
    pub user_id: Option<Label>,
    /// The kind of job.
    pub job_type: Label,
    /// The caller's own data about the job.
    pub metadata: Metadata,
}

impl NewJob {
    /// Removes the fields of a job from those of a request.
    fn take(fields: &mut BTreeMap<String, &RawValue>) -> Result<Self> {
        Ok(Self {
            team_id: optional("team_id", fields.remove("team_id"))?,
            user_id: optional("user_id", fields.remove("user_id"))?,
            job_type: optional("job_type", fields.remove("job_type"))?
                .ok_or_else(|| Error::invalid("job_type", "required"))?,
            metadata: optional("job_metadata", fields.remove("job_metadata"))?.unwrap_or_default(),
        })
    }
}

impl<'a> CallRequest<'a> {
    /// Reads the body of a call in an existing job.
    pub fn parse(body: &'a [u8], streaming: Streaming) -> Result<Self> {
        let Fields(fields) = parse_body(body)?;
        Self::from_fields(fields, streaming)
    }

    /// Reads the body of a call with a job to create for it.
    pub fn parse_with_job(body: &'a [u8], streaming: Streaming) -> Result<(NewJob, Self)> {
        let Fields(mut fields) = parse_body(body)?;
        Ok((NewJob::take(&mut fields)?, Self::from_fields(fields, streaming)?))
    }

    fn from_fields(mut fields: BTreeMap<String, &'a RawValue>, streaming: Streaming) -> Result<Self> {
        let model_group = match (fields.remove("model_group"), fields.remove("model")) {
            (Some(_), Some(_)) => {
                return Err(Error::invalid("model", "given beside model_group, for which it stands"));
            }
            (Some(group), None) => optional("model_group", Some(group))?,
            (None, group) => optional("model", group)?,
        };
        let purpose = optional("purpose", fields.remove("purpose"))?;
        let call_metadata = optional("call_metadata", fields.remove("call_metadata"))?.unwrap_or_default();
        let messages = fields.remove("messages").ok_or_else(|| Error::invalid("messages", "required"))?;
        check_messages(messages)?;
        let asked: Option<bool> = optional("stream", fields.remove("stream"))?;
        let streamed = match streaming {
            Streaming::Always => true,
            Streaming::Never => false,
            Streaming::AsAsked => asked.unwrap_or(false),
        };
        if asked.is_some_and(|asked| asked != streamed) {
            return Err(Error::invalid(
                "stream",
                format!("this route answers with stream = {streamed}; expected that or none"),
            ));
        }
        let options: Option<Object<StreamOptions>> =
            optional("stream_options", fields.remove("stream_options"))?;
        fields.retain(|_, value| value.get() != "null");
        for (name, value) in &fields {
            check_parameter(name, value)?;
        }
        let include_usage = options.is_some_and(|Object(options)| options.include_usage);
        Ok(Self {
            model_group,
            purpose,
            call_metadata,
            streamed,
            include_usage,
            messages,
            parameters: fields,
        })
    }

    /// The messages as they arrived.
    pub fn messages(&self) -> &str {
        self.messages.get()
    }

    /// Whether a text quotes the messages. Only letters and digits are compared, so that escapes and punctuation make
    /// no difference.
    pub fn is_quoted_in(&self, text: &str) -> bool {
        let text = letters(text);
        let runs: HashSet<&[char]> = text.windows(QUOTE).collect();
        if runs.is_empty() {
            return false;
        }
        // Messages that are nested too deeply to search count as quoted.
        let Ok(messages) = serde_json::from_str(self.messages.get()) else { return true };
        let mut left = vec![messages];
        while let Some(value) = left.pop() {
            match value {
                Value::String(said) if letters(&said).windows(QUOTE).any(|run| runs.contains(run)) => {
                    return true;
                }
                Value::Array(values) => left.extend(values),
                Value::Object(members) => left.extend(members.into_values()),
                _ => {}
            }
        }
        false
    }

    /// The body for LiteLLM. `config` has the model's defaults for parameters that the caller does not give.
    pub fn body_for(&self, model: &str, config: &BTreeMap<String, Box<RawValue>>) -> Result<Vec<u8>> {
        let model = to_raw_value(model).map_err(Error::internal)?;
        let stream = to_raw_value(&self.streamed).map_err(Error::internal)?;
        let options = RawValue::from_string(r#"{"include_usage":true}"#.into()).map_err(Error::internal)?;
        let mut body: BTreeMap<&str, &RawValue> = config
            .iter()
            .filter(|(name, _)| PASSED_THROUGH.contains(&name.as_str()))
            .map(|(name, value)| (name.as_str(), value.as_ref()))
            .collect();
        body.extend(self.parameters.iter().map(|(name, value)| (name.as_str(), *value)));
        body.extend([("model", &*model), ("messages", self.messages), ("stream", &*stream)]);
        if self.streamed {
            // Without it LiteLLM's stream has neither usage nor cost.
            body.insert("stream_options", &options);
        }
        serde_json::to_vec(&body).map_err(Error::internal)
    }
}

/// The number of consecutive letters and digits of a prompt that count as a quote of it.
const QUOTE: usize = 12;

fn letters(text: &str) -> Vec<char> {
    text.chars().filter(|c| c.is_alphanumeric()).collect()
}

/// The member of OpenAI's `stream_options` that is read here.
#[derive(Deserialize, Default)]
#[serde(default)]
struct StreamOptions {
    include_usage: bool,
}

/// Checks a model's default parameters in a model group: OpenAI's parameters, and `timeout_ms` (1 to 3,600,000).
pub fn check_config(config: &BTreeMap<String, Box<RawValue>>) -> Result<()> {
    for (name, value) in config {
        check_storable(value).map_err(|problem| Error::invalid(name, problem))?;
        if name == "timeout_ms" {
            bounded(name, value, 1.0, 3_600_000.0, true)?;
        } else {
            check_parameter(name, value)?;
        }
    }
    Ok(())
}

fn optional<T: for<'de> Deserialize<'de>>(name: &str, value: Option<&RawValue>) -> Result<Option<T>> {
    let read = |value: &RawValue| {
        serde_json::from_str::<Option<T>>(value.get()).map_err(|error| {
            let message = error.to_string();
            Error::invalid(name, message.split(" at line ").next().unwrap_or_default())
        })
    };
    value.map_or(Ok(None), read)
}

fn check_parameter(name: &str, value: &RawValue) -> Result<()> {
    match name {
        _ if !PASSED_THROUGH.contains(&name) => {
            let allowed = "model_group, messages, purpose, call_metadata";
            Err(Error::invalid(
                name,
                format!("unknown field; expected one of {allowed}, {}", PASSED_THROUGH.join(", ")),
            ))
        }
        "temperature" => bounded(name, value, 0.0, 2.0, false),
        "top_p" => bounded(name, value, 0.0, 1.0, false),
        "max_tokens" | "max_completion_tokens" => bounded(name, value, 1.0, 10_000_000.0, true),
        "n" => bounded(name, value, 1.0, 1.0, true),
        "tools" => check_tools(value),
        _ => Ok(()),
    }
}

/// Only tools that the caller runs are accepted. LiteLLM runs other kinds itself, with its operator's rights: it
/// searches any vector store that it knows, and queries any MCP server (docs.litellm.ai/docs/completion/knowledgebase,
/// /docs/mcp).
fn check_tools(tools: &RawValue) -> Result<()> {
    let Ok(tools) = serde_json::from_str::<Vec<BTreeMap<String, &RawValue>>>(tools.get()) else {
        return Err(Error::invalid("tools", "expected a list of objects"));
    };
    for (index, tool) in tools.iter().enumerate() {
        let kind = tool.get("type").and_then(|kind| serde_json::from_str::<String>(kind.get()).ok());
        if !matches!(kind.as_deref(), Some("function" | "custom")) {
            return Err(Error::invalid(&format!("tools[{index}].type"), "expected function or custom"));
        }
    }
    Ok(())
}

fn bounded(name: &str, value: &RawValue, min: f64, max: f64, whole: bool) -> Result<()> {
    let kind = if whole { "a whole number" } else { "a number" };
    let fits = |number: &f64| (min..=max).contains(number) && (!whole || number.fract() == 0.0);
    match value.get().parse::<f64>().ok().filter(fits) {
        Some(_) => Ok(()),
        None => Err(Error::invalid(name, format!("expected {kind} from {min} to {max}"))),
    }
}

pub(super) const ROLES: [&str; 6] = ["assistant", "developer", "function", "system", "tool", "user"];

fn check_messages(messages: &RawValue) -> Result<()> {
    #[derive(Deserialize)]
    struct Message<'a> {
        role: Option<String>,
        #[serde(borrow)]
        content: Option<&'a RawValue>,
        #[serde(borrow)]
        tool_calls: Option<&'a RawValue>,
        #[serde(borrow)]
        function_call: Option<&'a RawValue>,
    }
    let wrong = |place: &str, problem: &str| Err(Error::invalid(&format!("messages{place}"), problem));
    let Ok(messages) = serde_json::from_str::<Vec<&RawValue>>(messages.get()) else {
        return wrong("", "expected a list of chat messages");
    };
    if messages.is_empty() {
        return wrong("", "expected at least one chat message");
    }
    for (index, message) in messages.iter().enumerate() {
        let place = format!("[{index}]");
        let Ok(Object(message)) = serde_json::from_str::<Object<Message>>(message.get()) else {
            return wrong(&place, "expected an object with role and content");
        };
        if !message.role.as_deref().is_some_and(|role| ROLES.contains(&role)) {
            return wrong(&format!("{place}.role"), &format!("expected one of {}", ROLES.join(", ")));
        }
        let calls_something = message.tool_calls.or(message.function_call).is_some();
        let fits = match message.content.map(RawValue::get) {
            None => calls_something,
            Some(content) if content.starts_with('[') => {
                serde_json::from_str::<Vec<BTreeMap<String, &RawValue>>>(content)
                    .is_ok_and(|parts| !parts.is_empty())
            }
            Some(content) => content.starts_with('"'),
        };
        if !fits {
            return wrong(&format!("{place}.content"), "expected a string or a list of content parts");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const MESSAGES: &str = r#""messages":[{"role":"user","content":"Hi"}]"#;

    fn refusal(body: &str) -> String {
        match CallRequest::parse(body.as_bytes(), Streaming::Never) {
            Ok(_) => panic!("accepted: {body}"),
            Err(error) => error.detail.clone(),
        }
    }

    #[test]
    fn a_quote_of_the_messages_is_recognised_in_another_spelling() {
        let body =
            r#"{"messages":[{"role":"user","content":[{"type":"text","text":"One \"two\"\nthree, four"}]}]}"#;
        let request = CallRequest::parse(body.as_bytes(), Streaming::Never).unwrap();
        assert!(request.is_quoted_in("Invalid content: 'One \\'two\\' three four' is no"));
        for other in ["", "two three", "Invalid role 'user': expected a text"] {
            assert!(!request.is_quoted_in(other), "{other}");
        }
    }

    #[test]
    fn messages_and_parameters_go_on_as_they_came() {
        let body = format!(
            r#"{{"model_group":"Chat",{MESSAGES},"temperature":0.70,"seed":12345678901234567890,"tools":[{{"type":"function","b":1,"a":2}}],"user":null}}"#
        );
        let request = CallRequest::parse(body.as_bytes(), Streaming::Never).unwrap();
        let config = serde_json::from_str(r#"{"temperature":0.1,"max_tokens":7,"timeout_ms":9}"#).unwrap();
        let sent = String::from_utf8(request.body_for("gpt-4o", &config).unwrap()).unwrap();
        assert_eq!(
            sent,
            format!(
                r#"{{"max_tokens":7,{MESSAGES},"model":"gpt-4o","seed":12345678901234567890,"stream":false,"temperature":0.70,"tools":[{{"type":"function","b":1,"a":2}}]}}"#
            )
        );
    }

    #[test]
    fn a_stream_asks_for_its_usage() {
        let body = format!(r#"{{{MESSAGES},"stream":true,"stream_options":{{"include_usage":false}}}}"#);
        let request = CallRequest::parse(body.as_bytes(), Streaming::Always).unwrap();
        let sent: Value = serde_json::from_slice(&request.body_for("m", &BTreeMap::new()).unwrap()).unwrap();
        assert_eq!(sent["stream_options"], json!({"include_usage": true}));
        assert_eq!(sent["stream"], json!(true));
    }

    #[test]
    fn fields_that_steer_litellm_are_refused_by_name() {
        for field in [
            "api_base",
            "base_url",
            "api_key",
            "metadata",
            "fallbacks",
            "user_config",
            "model_list",
            "litellm_params",
            "extra_body",
            "extra_headers",
            "mock_response",
            "custom_llm_provider",
            "tags",
            "num_retries",
            "timeout",
            "guardrails",
            "cache",
            "no-log",
            "service_tier",
            "store",
            "provider_specific_header",
        ] {
            let detail = refusal(&format!(r#"{{{MESSAGES},"{field}":"x"}}"#));
            assert!(
                detail.starts_with(&format!("{field}: unknown field; expected one of model_group,")),
                "{detail}"
            );
        }
    }

    #[test]
    fn bad_values_are_refused_with_what_is_allowed() {
        for (field, expected) in [
            (r#""temperature":3"#, "temperature: expected a number from 0 to 2"),
            (r#""temperature":"0.7""#, "temperature: expected a number from 0 to 2"),
            (r#""max_tokens":0"#, "max_tokens: expected a whole number from 1 to 10000000"),
            (r#""max_tokens":1.5"#, "max_tokens: expected a whole number from 1 to 10000000"),
            (r#""n":2"#, "n: expected a whole number from 1 to 1"),
            (r#""stream":true"#, "stream: this route answers with stream = false; expected that or none"),
            (r#""model_group":"a","model":"a""#, "model: given beside model_group, for which it stands"),
            (r#""model":"a/b""#, "model: expected 1 to 128 of A-Z a-z 0-9 _ . -"),
            (r#""call_metadata":[]"#, "call_metadata: expected a JSON object"),
            (r#""tools":{}"#, "tools: expected a list of objects"),
            (r#""tools":[{"type":"mcp"}]"#, "tools[0].type: expected function or custom"),
        ] {
            assert_eq!(refusal(&format!("{{{MESSAGES},{field}}}")), expected);
        }
    }

    #[test]
    fn messages_are_checked_one_by_one() {
        for (messages, expected) in [
            ("null", "messages: expected a list of chat messages"),
            ("[]", "messages: expected at least one chat message"),
            ("[1]", "messages[0]: expected an object with role and content"),
            (r#"[["user","x",null,null]]"#, "messages[0]: expected an object with role and content"),
            (
                r#"[{"content":"x"}]"#,
                "messages[0].role: expected one of assistant, developer, function, system, tool, user",
            ),
            (
                r#"[{"role":"user","content":"x"},{"role":"user"}]"#,
                "messages[1].content: expected a string or a list of content parts",
            ),
            (
                r#"[{"role":"user","content":[]}]"#,
                "messages[0].content: expected a string or a list of content parts",
            ),
            (
                r#"[{"role":"user","content":5}]"#,
                "messages[0].content: expected a string or a list of content parts",
            ),
        ] {
            assert_eq!(refusal(&format!(r#"{{"messages":{messages}}}"#)), expected);
        }
        assert_eq!(refusal("{}"), "messages: required");
        assert_eq!(refusal(&format!("{{{MESSAGES},{MESSAGES}}}")), "messages: given more than once");
        for message in [
            r#"{"role":"assistant","content":null,"tool_calls":[]}"#,
            r#"{"role":"user","content":[{"type":"text","text":"x"}]}"#,
        ] {
            assert!(
                CallRequest::parse(format!(r#"{{"messages":[{message}]}}"#).as_bytes(), Streaming::Never)
                    .is_ok(),
                "{message}"
            );
        }
    }
}
