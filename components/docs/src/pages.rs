//! The routes of the documentation.

use crate::file::File;
use axum::{extract::Path, http::HeaderMap, response::Response};
use shared::error::{Code, Error, Result};

/// A file that `build.rs` wrote to `OUT_DIR`, with the name under which it is served.
macro_rules! file {
    ($name:literal, $content_type:literal) => {
        File {
            name: $name,
            content_type: $content_type,
            gzip: include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".gz")),
        }
    };
}

static SPEC: File = file!("openapi.json", "application/json");
static SWAGGER: File = file!("swagger.html", "text/html; charset=utf-8");
static REDOC: File = file!("redoc.html", "text/html; charset=utf-8");

/// The scripts and style sheets of the pages.
static ASSETS: [File; 5] = [
    file!("swagger.js", "text/javascript; charset=utf-8"),
    file!("swagger-ui-bundle.js", "text/javascript; charset=utf-8"),
    file!("swagger-ui.css", "text/css; charset=utf-8"),
    file!("redoc.css", "text/css; charset=utf-8"),
    file!("redoc.standalone.js", "text/javascript; charset=utf-8"),
];

/// This document
#[utoipa::path(get, path = "/openapi.json", tag = "Service",
    responses((status = 200, body = Object, content_type = "application/json")))]
pub async fn spec(headers: HeaderMap) -> Result<Response> {
    SPEC.answer(&headers)
}

/// The documentation, to try the API in the browser
#[utoipa::path(get, path = "/docs", tag = "Service",
    responses((status = 200, body = String, content_type = "text/html")))]
pub async fn swagger(headers: HeaderMap) -> Result<Response> {
    SWAGGER.answer(&headers)
}

/// The documentation, to read
#[utoipa::path(get, path = "/redoc", tag = "Service",
    responses((status = 200, body = String, content_type = "text/html")))]
pub async fn redoc(headers: HeaderMap) -> Result<Response> {
    REDOC.answer(&headers)
}

/// A part of those pages
#[utoipa::path(get, path = "/docs/{name}", tag = "Service", params(("name" = String, Path, example = "swagger-ui.css")),
    responses((status = 200, content((String = "text/javascript"), (String = "text/css")))))]
pub async fn asset(Path(name): Path<String>, headers: HeaderMap) -> Result<Response> {
    match ASSETS.iter().find(|file| file.name == name) {
        Some(file) => file.answer(&headers),
        None => Err(Error::new(Code::NotFound, format!("Route '/docs/{name}' not found"))),
    }
}
