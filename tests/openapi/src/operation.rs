//! What holds for every operation: added here, so that the handlers' annotations say only what is special.

use crate::errors::{Form, meaning};
use shared::{
    error::Code,
    http::{Access, api::Route},
};
use std::collections::BTreeMap;
use utoipa::openapi::{
    Components, Content, HttpMethod, Ref, RefOr, Required, Response, Schema, content::ContentBuilder,
    example::ExampleBuilder, extensions::Extensions, path::Operation, request_body::RequestBody,
    security::SecurityRequirement,
};

/// The name of the security scheme for the admin.
pub const ADMIN_KEY: &str = "adminKey";
/// The name of the security scheme for teams.
pub const VIRTUAL_KEY: &str = "virtualKey";
/// The shared parameter `Idempotency-Key`.
pub const IDEMPOTENCY_KEY: &str = "IdempotencyKey";
/// The shared header `x-request-id`.
pub const REQUEST_ID: &str = "RequestId";
/// The shared header `idempotent-replayed`.
pub const REPLAYED: &str = "IdempotentReplayed";
/// The shared header `retry-after`.
pub const RETRY_AFTER: &str = "RetryAfter";

/// The shared schema of a stream's events.
pub const EVENT: &str = "Event";

/// A stream's content type. Before OpenAPI 3.2 the schema that goes with it is that of each event.
const EVENT_STREAM: &str = "text/event-stream";

/// The operation as it is documented. Answers that several operations have in the same words become shared
/// `components`.
pub fn complete(route: &Route, components: &mut Components) -> Operation {
    let mut operation = route.operation.clone();
    let tag = operation.tags.iter().flatten().next().cloned().unwrap_or_default();
    let function = operation.operation_id.unwrap_or_default();
    operation.operation_id = Some(format!("{}_{function}", tag.to_lowercase().replace(' ', "_")));
    let (principal, security) = who(route.access);
    operation.security = Some(security);
    operation.extensions = Some(Extensions::from_iter([("x-access", principal)]));
    if changes(route) {
        let parameter = Ref::new(format!("#/components/parameters/{IDEMPOTENCY_KEY}"));
        operation.parameters.get_or_insert_default().push(RefOr::Ref(parameter));
    }
    if let Some(RefOr::T(body)) = &mut operation.request_body
        && may_be_left_out(body, components)
    {
        body.required = Some(Required::False);
    }
    let form = form(&operation);
    let mut added = added(route, &operation);
    // What an annotation gives only to say its form is what holds for every operation.
    operation.responses.responses.retain(|status, response| {
        let status: u16 = status.parse().unwrap_or_default();
        let RefOr::T(response) = response else { return true };
        !(added.contains_key(&status) && is_error(response) && codes_in(&response.description).is_empty())
    });
    for (status, response) in &mut operation.responses.responses {
        let RefOr::T(response) = response else { continue };
        let status: u16 = status.parse().unwrap_or_default();
        if status >= 400 && is_error(response) {
            let mut codes = codes_in(&response.description);
            codes.extend(added.remove(&status).into_iter().flatten());
            *response = failure(form, status, &codes);
        }
        if let Some(RefOr::T(stream)) = response.content.get_mut(EVENT_STREAM) {
            stream.schema = Some(Ref::from_schema_name(EVENT).into());
        }
        if response.description.is_empty() {
            response.description = described(response, components);
        }
        header(response, "x-request-id", REQUEST_ID);
        if changes(route) {
            header(response, "idempotent-replayed", REPLAYED);
        }
    }
    for (status, codes) in added {
        if operation.responses.responses.contains_key(&status.to_string()) {
            continue;
        }
        let mut response = failure(form, status, &codes);
        header(&mut response, "x-request-id", REQUEST_ID);
        let prefix = if form == Form::OpenAi { "OpenAi" } else { "" };
        let names: Vec<String> = codes.iter().map(|code| format!("{code:?}")).collect();
        let name = format!("{prefix}{}", names.join("Or"));
        operation.responses.responses.insert(status.to_string(), Ref::from_response_name(&name).into());
        components.responses.insert(name, response.into());
    }
    operation
}

/// Whether requests to the route may change something, and so may carry an `Idempotency-Key`.
pub fn changes(route: &Route) -> bool {
    !matches!(route.method, HttpMethod::Get | HttpMethod::Head) && route.access != Access::Public
}

/// Who may call, in a word, and as OpenAPI says it.
fn who(access: Access) -> (&'static str, Vec<SecurityRequirement>) {
    let scheme = |name| SecurityRequirement::new::<_, [&str; 0], &str>(name, []);
    match access {
        Access::Public => ("anybody", vec![]),
        Access::Admin => ("admin", vec![scheme(ADMIN_KEY)]),
        Access::Team => ("team", vec![scheme(VIRTUAL_KEY)]),
        Access::AdminOrTeam => ("admin or team", vec![scheme(ADMIN_KEY), scheme(VIRTUAL_KEY)]),
    }
}

/// The codes that the framework answers with on this route, by status.
fn added(route: &Route, operation: &Operation) -> BTreeMap<u16, Vec<Code>> {
    let known = route.access != Access::Public;
    let by_team = matches!(route.access, Access::Team | Access::AdminOrTeam);
    let has_parameters = operation.parameters.as_ref().is_some_and(|parameters| !parameters.is_empty());
    let in_path = route.path.contains('{');
    let rules = [
        (Code::InvalidRequest, has_parameters || operation.request_body.is_some()),
        (Code::Unauthenticated, known),
        (Code::WrongTeam, by_team),
        (Code::TeamSuspended, by_team),
        (Code::NotFound, in_path),
        (Code::RequestTimeout, changes(route)),
        (Code::IdempotencyInProgress, changes(route)),
        (Code::TooLarge, changes(route)),
        (Code::UnsupportedMediaType, changes(route)),
        (Code::IdempotencyMismatch, changes(route)),
        (Code::Internal, true),
        (Code::Unavailable, true),
    ];
    let mut by_status: BTreeMap<u16, Vec<Code>> = BTreeMap::new();
    for (code, _) in rules.into_iter().filter(|(_, applies)| *applies) {
        by_status.entry(code.answer().0.as_u16()).or_default().push(code);
    }
    by_status
}

/// The form of an operation's errors: the one that its annotation shows.
fn form(operation: &Operation) -> Form {
    let is_openai = |response: &RefOr<Response>| match response {
        RefOr::T(response) => refers_to(response, Form::OpenAi.schema()),
        RefOr::Ref(_) => false,
    };
    if operation.responses.responses.values().any(is_openai) { Form::OpenAi } else { Form::Own }
}

/// Whether an answer has a body that is an error's, or none that the annotation tells of.
fn is_error(response: &Response) -> bool {
    response.content.is_empty() || refers_to(response, Form::OpenAi.schema())
}

/// Whether the body of an answer is the named schema.
fn refers_to(response: &Response, schema: &str) -> bool {
    response.content.values().any(|content| body_schema(content) == Some(schema))
}

/// The name of a body's schema.
fn body_schema(content: &RefOr<Content>) -> Option<&str> {
    match content {
        RefOr::T(Content { schema: Some(RefOr::Ref(schema)), .. }) => schema.ref_location.rsplit('/').next(),
        _ => None,
    }
}

/// A body may be left out where nothing in it is required: none is read as `{}`.
fn may_be_left_out(body: &RequestBody, components: &Components) -> bool {
    let schema = body.content.values().find_map(body_schema).and_then(|name| components.schemas.get(name));
    matches!(schema, Some(RefOr::T(Schema::Object(schema))) if schema.required.is_empty())
}

/// The codes that an annotation names, each in backticks.
fn codes_in(description: &str) -> Vec<Code> {
    let words = description.split('`').skip(1).step_by(2);
    let known = |word: &str| Code::ALL.into_iter().find(|code| code.answer().1 == word);
    words.map(|word| known(word).unwrap_or_else(|| panic!("`{word}` is no code of an error"))).collect()
}

/// An error answer with one of these codes.
fn failure(form: Form, status: u16, codes: &[Code]) -> Response {
    let sentence = |code: &Code| format!("`{}`: {}", code.answer().1, meaning(*code));
    let sentences: Vec<String> = codes.iter().map(sentence).collect();
    let examples = codes.iter().map(|code| {
        assert_eq!(code.answer().0.as_u16(), status, "{code:?} is documented with another status");
        (code.answer().1, ExampleBuilder::new().value(Some(form.example(*code))).build())
    });
    let content = ContentBuilder::new()
        .schema(Some(Ref::from_schema_name(form.schema())))
        .examples_from_iter(examples)
        .build();
    let mut response = Response::new(sentences.join("  \n"));
    response.content.insert("application/json".into(), content.into());
    if matches!(status, 429 | 503) {
        header(&mut response, "retry-after", RETRY_AFTER);
    }
    response
}

/// What a successful answer is: the words of its body's schema.
fn described(response: &Response, components: &Components) -> String {
    let name = response.content.values().find_map(body_schema);
    let description = match name.and_then(|name| components.schemas.get(name)) {
        Some(RefOr::T(Schema::Object(schema))) => schema.description.clone(),
        Some(RefOr::T(Schema::AllOf(schema))) => schema.description.clone(),
        Some(RefOr::T(Schema::OneOf(schema))) => schema.description.clone(),
        Some(RefOr::T(Schema::AnyOf(schema))) => schema.description.clone(),
        _ => None,
    };
    description.unwrap_or_else(|| "OK".into())
}

fn header(response: &mut Response, name: &str, shared: &str) {
    let header = Ref::new(format!("#/components/headers/{shared}"));
    response.headers.insert(name.into(), RefOr::Ref(header));
}
