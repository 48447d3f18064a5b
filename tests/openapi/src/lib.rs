//! The API's documentation, made from the code: every component lists its routes, and every handler says what it takes
//! and answers.
//!
//! * [`spec`] is the OpenAPI document, committed as `docs/openapi.json` and served by the component `docs`.
//! * [`table`] is `docs/api.md`: for every route who may call it, its SQL statements, and the test that shows it.
//!
//! `cargo run -p openapi` writes both. Tests fail when they are not what the code says, when two components have the
//! same route, and when `spin.toml` leads a path elsewhere.

mod demonstrations;
mod document;
mod errors;
mod operation;
mod table;

pub use demonstrations::{Demonstration, demonstrations};
pub use document::spec;
pub use table::table;

use anyhow::{Context, Result};
use shared::http::api::{Api, Route};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::LazyLock,
};
use utoipa::openapi::HttpMethod;

/// The components with a documented API, in reading order, by their name in `spin.toml`.
static COMPONENTS: [(&str, &LazyLock<Api>); 11] = [
    ("tenancy", &tenancy::API),
    ("model-groups", &model_groups::API),
    ("credits", &credits::API),
    ("jobs", &jobs::API),
    ("llm-call", &llm_call::API),
    ("llm-call-stream", &llm_call_stream::API),
    ("openai", &openai::API),
    ("reports", &reports::API),
    ("upkeep", &upkeep::API),
    ("docs", &docs::API),
    ("service", &service::API),
];

/// Every route of the application with the component that has it, in reading order.
pub fn routes() -> Vec<(&'static str, Route)> {
    let of = |(component, api): &(&'static str, &LazyLock<Api>)| {
        let component = *component;
        api.routes().to_vec().into_iter().map(move |route| (component, route))
    };
    COMPONENTS.iter().flat_map(of).collect()
}

/// How a route is called everywhere: `POST /api/teams/create`.
pub fn name(route: &Route) -> String {
    format!("{} {}", verb(&route.method), route.path)
}

/// The method as it stands in a request.
pub fn verb(method: &HttpMethod) -> &'static str {
    match method {
        HttpMethod::Get => "GET",
        HttpMethod::Post => "POST",
        HttpMethod::Put => "PUT",
        HttpMethod::Patch => "PATCH",
        HttpMethod::Delete => "DELETE",
        HttpMethod::Head => "HEAD",
        HttpMethod::Options => "OPTIONS",
        HttpMethod::Trace => "TRACE",
    }
}

/// The functions of `migrations/` that a successful request to each route calls, by who makes it, with a known key, in
/// alphabetical order. The black-box tests measure them and write the file.
pub type Statements = BTreeMap<String, BTreeMap<String, Vec<String>>>;

/// The file with the measured [`Statements`].
pub fn statements_file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("statements.json")
}

/// The measured statements.
pub fn statements() -> Result<Statements> {
    let text =
        std::fs::read_to_string(statements_file()).context("can't read tests/openapi/statements.json")?;
    serde_json::from_str(&text).context("tests/openapi/statements.json is not what the tests write")
}

/// The generated files, relative to the repository, with the content that they should have.
pub fn files() -> Result<[(&'static str, String); 2]> {
    let mut document = serde_json::to_string_pretty(&spec()).context("the OpenAPI document is no JSON")?;
    document.push('\n');
    Ok([("docs/openapi.json", document), ("docs/api.md", table()?)])
}

/// The root of the repository.
pub fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}
