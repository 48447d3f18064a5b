//! The OpenAPI document: what stands around the operations.

use crate::{
    operation::{
        ADMIN_KEY, EVENT, IDEMPOTENCY_KEY, REPLAYED, REQUEST_ID, RETRY_AFTER, VIRTUAL_KEY, complete,
    },
    routes,
};
use shared::error::{Code, ErrorBody};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        Components, Header, HeaderBuilder, Info, LicenseBuilder, ObjectBuilder, OpenApi, Paths, RefOr,
        Required, Schema, Server, Tag, Type,
        info::InfoBuilder,
        path::{Parameter, ParameterBuilder, ParameterIn},
        schema::AnyOfBuilder,
        security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme},
        tag::TagBuilder,
    },
};

/// What a newcomer has to know before the first request.
const ORIENTATION: &str = include_str!("orientation.md");

/// The groups of operations, in reading order.
const TAGS: [(&str, &str); 11] = [
    (
        "Jobs",
        "A job is one business operation: it holds a credit when it opens, and is charged when it completes.",
    ),
    ("Calls", "Calls to models, buffered or streamed, in a job or with one of their own."),
    ("OpenAI", "OpenAI's own API, so that its SDKs work unchanged; model groups stand for models."),
    ("Credits", "Balances, the ledger, top-ups, corrections and automatic refills."),
    ("Organizations", "The customers that teams belong to."),
    ("Teams", "Who has credits, keys and model groups."),
    ("Keys", "The virtual keys of a team."),
    ("Model groups", "What teams see in place of models: a name, and models that are tried in order."),
    ("Access groups", "Named sets of model groups, to be assigned to teams."),
    ("Reports", "Usage, alerts, the audit log, and metrics."),
    ("Service", "Health."),
];

/// The document, as `docs/openapi.json` has it.
///
/// # Panics
///
/// When components contradict each other: a route or a schema with the same name twice, an unknown tag or code of an
/// error.
pub fn spec() -> OpenApi {
    let mut components = shared_components();
    let mut paths = Paths::new();
    for (component, route) in routes() {
        for (name, schema) in &route.schemas {
            let schema = any_of(schema.clone());
            let known = components.schemas.entry(name.clone()).or_insert_with(|| schema.clone());
            assert!(*known == schema, "{component} has another schema with the name {name}");
        }
    }
    for (_, route) in routes() {
        assert!(
            paths.get_path_operation(&route.path, route.method.clone()).is_none(),
            "two routes {}",
            crate::name(&route)
        );
        for tag in route.operation.tags.iter().flatten() {
            assert!(TAGS.iter().any(|(name, _)| name == tag), "{}: unknown tag {tag}", crate::name(&route));
        }
        let operation = complete(&route, &mut components);
        paths.add_path_operation(&route.path, vec![route.method.clone()], operation);
    }
    let mut document = OpenApi::new(info(), paths);
    document.servers = Some(vec![Server::new("/")]);
    document.tags = Some(TAGS.map(tag).to_vec());
    document.components = Some(components);
    document
}

/// An untagged enum is any of its variants, one of which may fit what another fits. utoipa says that it is exactly one.
fn any_of(schema: RefOr<Schema>) -> RefOr<Schema> {
    match schema {
        RefOr::T(Schema::OneOf(variants)) if variants.discriminator.is_none() => {
            let any = variants.items.into_iter().fold(AnyOfBuilder::new(), AnyOfBuilder::item);
            any.description(variants.description).into()
        }
        other => other,
    }
}

fn info() -> Info {
    InfoBuilder::new()
        .title("llm-jobs")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(ORIENTATION))
        .license(Some(
            LicenseBuilder::new()
                .name("Apache License 2.0")
                .identifier(Some(env!("CARGO_PKG_LICENSE")))
                .build(),
        ))
        .build()
}

fn tag((name, description): (&str, &str)) -> Tag {
    TagBuilder::new().name(name).description(Some(description)).build()
}

fn shared_components() -> Components {
    let mut components = Components::new();
    components.schemas.insert(ErrorBody::name().into(), error());
    components.schemas.insert(EVENT.into(), event().into());
    components.add_security_scheme(ADMIN_KEY, {
        let mut key = ApiKeyValue::new("X-Admin-Key");
        key.description = Some("The admin's key, a variable of the deployment.".into());
        SecurityScheme::ApiKey(ApiKey::Header(key))
    });
    components.add_security_scheme(
        VIRTUAL_KEY,
        SecurityScheme::Http(
            HttpBuilder::new()
                .scheme(HttpAuthScheme::Bearer)
                .description(Some("A team's virtual key, `sk-…`, shown once when it is made."))
                .build(),
        ),
    );
    components.parameters.insert(IDEMPOTENCY_KEY.into(), idempotency_key().into());
    let headers = [
        (
            REQUEST_ID,
            "The caller's id for the request, if it was sane, or a new one. It is also in the log.",
            Type::String,
        ),
        (
            REPLAYED,
            "`true`: this is the answer that the first request with the same `Idempotency-Key` got.",
            Type::Boolean,
        ),
        (RETRY_AFTER, "Seconds after which to try again.", Type::String),
    ];
    for (name, description, kind) in headers {
        components.headers.insert(name.into(), header(description, kind).into());
    }
    components
}

/// The schema of errors, with the words that its `code` may be.
fn error() -> RefOr<Schema> {
    let mut schema = ErrorBody::schema();
    let RefOr::T(Schema::Object(body)) = &mut schema else { panic!("errors are objects") };
    let Some(RefOr::T(Schema::Object(code))) = body.properties.get_mut("code") else {
        panic!("errors have a code")
    };
    code.enum_values = Some(Code::ALL.iter().map(|code| code.answer().1.into()).collect());
    schema
}

/// The schema of a server-sent event.
fn event() -> ObjectBuilder {
    let text = |description| ObjectBuilder::new().schema_type(Type::String).description(Some(description));
    ObjectBuilder::new()
        .schema_type(Type::Object)
        .description(Some(
            "A server-sent event. Most are chunks of the answer as the model makes them; the last of a complete answer \
             has the data `[DONE]`. Lines that begin with a colon are comments, sent while the model is silent.",
        ))
        .property(
            "data",
            text("JSON, or `[DONE]`. A chunk is OpenAI's; outside `/v1/` its text is also at top level as `content`, \
                  and the last but one event has `call_id`, `finish_reason`, `usage` and `metadata`."),
        )
        .property("event", text("`error` for a failure in the middle of an answer, whose data is the error; no \
                                 `[DONE]` comes then."))
        .required("data")
}

fn idempotency_key() -> Parameter {
    let schema = ObjectBuilder::new()
        .schema_type(Type::String)
        .min_length(Some(1))
        .max_length(Some(255))
        .pattern(Some("^[ -~]*$"));
    ParameterBuilder::new()
        .name("Idempotency-Key")
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(
            "Makes repeating the request safe: for 24 hours the same request with the same key gets the first answer \
             again. A new random one for each operation.",
        ))
        .schema(Some(schema))
        .build()
}

fn header(description: &str, kind: Type) -> Header {
    HeaderBuilder::new()
        .schema(Some(ObjectBuilder::new().schema_type(kind)))
        .description(Some(description))
        .build()
}
