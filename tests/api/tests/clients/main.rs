//! Clients that others wrote: OpenAI's own SDK against the part of the API that speaks OpenAI's, and Schemathesis,
//! which makes requests out of the application's OpenAPI document and checks the answers against it.

mod openai_sdk;
mod schemathesis;

use api_tests::python::Python;

/// The interpreter with both.
async fn python() -> Python {
    Python::with(env!("CARGO_TARGET_TMPDIR"), &["openai==3.54.0", "schemathesis==4.32.5"]).await
}

/// A file beside this one.
fn beside(name: &str) -> String {
    format!("{}/tests/clients/{name}", env!("CARGO_MANIFEST_DIR"))
}
