//! OpenAI's own API with model groups as models, so that OpenAI's SDKs work unchanged, with credits and fallbacks.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::too_many_lines
)]

mod completions;
mod models;

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use shared::{
    error::Error,
    http::{Api, openai::ErrorBody},
};
use std::sync::LazyLock;

/// The routes of this component.
pub static API: LazyLock<Api> = LazyLock::new(|| {
    shared::api![
        Team: completions::create,
        Team: models::list,
        Team: models::get,
    ]
});

#[cfg(target_family = "wasm")]
#[spin_sdk::http_service]
async fn handle(request: spin_sdk::http::Request) -> impl spin_sdk::http::IntoResponse {
    API.answer(request).await.map(in_openai_form)
}

/// The response, with OpenAI's error body if it is an error.
pub fn in_openai_form(response: Response) -> Response {
    let Some(error) = response.extensions().get::<Error>() else { return response };
    let body = Json(ErrorBody::of(error)).into_response().into_body();
    let (mut parts, _) = response.into_parts();
    parts.headers.remove(axum::http::header::CONTENT_LENGTH);
    Response::from_parts(parts, body)
}
