//! The OpenAPI schemas of the bodies that [`super::request`] parses.

use super::request::{PASSED_THROUGH, ROLES};
use crate::values::{GroupName, Label, Metadata, TeamId};
use serde_json::json;
use std::borrow::Cow;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        ArrayBuilder, ObjectBuilder, OneOfBuilder, RefOr, Schema,
        schema::{AdditionalProperties, SchemaType, Type},
    },
};

/// The schema of the body of a call.
pub struct CallBody;

impl CallBody {
    fn members() -> ObjectBuilder {
        let include_usage = ObjectBuilder::new().schema_type(Type::Boolean).description(Some(
            "Whether a stream in OpenAI's form ends with an event that has its token counts.",
        ));
        let stream =
            "Whether the answer is a stream. A route that answers in one way only takes no other value.";
        let messages = ArrayBuilder::new()
            .items(message())
            .min_items(Some(1))
            .description(Some("The conversation so far, in OpenAI's form. It goes to the model as it came."));
        let mut body = ObjectBuilder::new()
            .schema_type(Type::Object)
            .property(
                "model_group",
                nullable(GroupName::schema(), "The model group; without it, the team's default."),
            )
            .property("model", or_null(Type::String).description(Some("Another name of `model_group`.")))
            .property("messages", messages)
            .property("purpose", nullable(Label::schema(), "What the call is for, in the caller's words."))
            .property("call_metadata", nullable(Metadata::schema(), "The caller's own data about the call."))
            .property("stream", or_null(Type::Boolean).description(Some(stream)))
            .property("stream_options", or_null(Type::Object).property("include_usage", include_usage))
            .required("messages")
            .additional_properties(Some(AdditionalProperties::FreeForm(false)));
        for name in PASSED_THROUGH {
            body = body.property(*name, parameter(name));
        }
        body
    }
}

/// A chat message in OpenAI's form.
fn message() -> ObjectBuilder {
    let parts = ArrayBuilder::new().items(ObjectBuilder::new().schema_type(Type::Object)).min_items(Some(1));
    let content = OneOfBuilder::new()
        .item(ObjectBuilder::new().schema_type(Type::String))
        .item(parts)
        // Allowed for an assistant's message with tool calls.
        .item(ObjectBuilder::new().schema_type(Type::Null));
    ObjectBuilder::new()
        .schema_type(Type::Object)
        .description(Some("An OpenAI chat message."))
        .property("role", ObjectBuilder::new().schema_type(Type::String).enum_values(Some(ROLES)))
        .property("content", content)
        .required("role")
}

/// The schema of one of OpenAI's parameters that are passed through.
fn parameter(name: &str) -> ObjectBuilder {
    let number = |kind, min: f64, max: f64| or_null(kind).minimum(Some(min)).maximum(Some(max));
    match name {
        // OpenAI describes them.
        "temperature" => number(Type::Number, 0.0, 2.0),
        "top_p" => number(Type::Number, 0.0, 1.0),
        "max_tokens" | "max_completion_tokens" => number(Type::Integer, 1.0, 10_000_000.0),
        "n" => number(Type::Integer, 1.0, 1.0),
        _ => ObjectBuilder::new().schema_type(SchemaType::AnyValue),
    }
}

fn or_null(kind: Type) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(SchemaType::from_iter([kind, Type::Null]))
}

fn nullable(schema: RefOr<Schema>, description: &str) -> Schema {
    OneOfBuilder::new()
        .item(schema)
        .item(ObjectBuilder::new().schema_type(Type::Null))
        .description(Some(description))
        .into()
}

impl PartialSchema for CallBody {
    fn schema() -> RefOr<Schema> {
        let example = json!({
            "model_group": "ChatAgent", "messages": [{"role": "user", "content": "Hello!"}], "temperature": 0.7
        });
        CallBody::members().examples([example]).into()
    }
}

impl ToSchema for CallBody {
    fn name() -> Cow<'static, str> {
        "CallRequest".into()
    }
}

/// The schema of the body of a call with a job of its own.
pub struct NewJobBody;

impl PartialSchema for NewJobBody {
    fn schema() -> RefOr<Schema> {
        CallBody::members()
            .property("team_id", nullable(TeamId::schema(), "The key's team; any other is refused."))
            .property("user_id", nullable(Label::schema(), "The caller's name for the user that the job is done for."))
            .property("job_type", Label::schema())
            .property("job_metadata", nullable(Metadata::schema(), "The caller's own data about the job."))
            .required("job_type")
            .examples([json!({
                "job_type": "chat", "model_group": "ChatAgent", "messages": [{"role": "user", "content": "Hello!"}]
            })])
            .into()
    }
}

impl ToSchema for NewJobBody {
    fn name() -> Cow<'static, str> {
        "JobWithCallRequest".into()
    }
}
