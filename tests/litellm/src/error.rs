//! What a refused request is answered with, in LiteLLM's shapes.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// An error answer: status, JSON body and the headers that LiteLLM adds to it.
#[derive(Debug, Clone)]
pub(crate) struct ApiError {
    pub status: StatusCode,
    pub body: Value,
    /// Boxed, because a map of headers is large and errors are passed around.
    pub headers: Box<HeaderMap>,
}

impl ApiError {
    /// The usual envelope, `{"error": {message, type, param: null, code}}`; `code` is the status as a string.
    pub fn new(status: u16, kind: &str, message: impl Into<String>) -> ApiError {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let error = json!({"message": message.into(), "type": kind, "param": null, "code": status.as_str()});
        ApiError { status, body: json!({"error": error}), headers: Box::default() }
    }

    /// A refusal of LiteLLM's authentication, which puts the string `None` into `param`.
    pub fn auth(status: u16, message: impl Into<String>) -> ApiError {
        ApiError::new(status, "auth_error", message).param("None")
    }

    /// An error of LiteLLM's management code, whose message is the Python text of a dictionary.
    pub fn management(status: u16, message: &str) -> ApiError {
        ApiError::new(status, "internal_server_error", python_error(message))
    }

    /// FastAPI's own shape, `{"detail": …}`.
    pub fn detail(status: u16, detail: Value) -> ApiError {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        ApiError { status, body: json!({"detail": detail}), headers: Box::default() }
    }

    /// A field that pydantic does not accept: 422.
    pub fn validation(kind: &str, loc: Value, message: &str) -> ApiError {
        ApiError::detail(422, json!([{"type": kind, "loc": loc, "msg": message}]))
    }

    /// A body that is JSON but no object, on which LiteLLM stumbles.
    pub fn no_object() -> ApiError {
        let error = json!({"message": "Internal server error", "type": "internal_server_error"});
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        ApiError { status, body: json!({"error": error}), headers: Box::default() }
    }

    /// The same error with another `param`.
    pub fn param(mut self, param: &str) -> ApiError {
        self.body["error"]["param"] = json!(param);
        self
    }

    /// The same error with one more member beside `message`.
    pub fn member(mut self, name: &str, value: Value) -> ApiError {
        self.body["error"][name] = value;
        self
    }

    /// The same error with one more header. Values that are no header text are left out.
    pub fn header(mut self, name: &'static str, value: &str) -> ApiError {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(HeaderName::from_static(name), value);
        }
        self
    }

    /// The same error with these headers beside its own.
    pub fn with_headers(mut self, headers: HeaderMap) -> ApiError {
        self.headers.extend(headers);
        self
    }

    /// The error's message, or nothing where the shape has none.
    pub fn message(&self) -> &str {
        self.body["error"]["message"].as_str().unwrap_or_default()
    }
}

/// `{'error': '…'}` as Python prints it: with double quotes around a text that has single ones.
pub(crate) fn python_error(message: &str) -> String {
    let quote = if message.contains('\'') { '"' } else { '\'' };
    format!("{{'error': {quote}{message}{quote}}}")
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.body.to_string()));
        *response.status_mut() = self.status;
        response.headers_mut().insert("content-type", HeaderValue::from_static("application/json"));
        response.headers_mut().extend(*self.headers);
        response
    }
}
