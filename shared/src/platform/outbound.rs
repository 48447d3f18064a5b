//! Requests to other servers: to LiteLLM and to webhooks.

use axum::http;
use bytes::Bytes;
use futures::poll;
use http_body_util::Full;
use spin_sdk::{
    http::Response,
    wasip3::{
        http::{
            client,
            types::{ErrorCode, Fields, Request},
        },
        http_compat::{BodyWriter, RequestOptionsExtension, http_from_wasi_response},
        spawn,
    },
};
use std::{pin::pin, task::Poll};

/// Sends a request and waits for the head of its answer. Head and body leave together, as a rule in one segment.
///
/// In place of `spin_sdk::http::send`, whose task writes the body some time after the host has sent the head. Spin
/// leaves Nagle's algorithm on: on a kept connection the second segment then waits until the peer has acknowledged the
/// first, which the peer puts off for about 40 ms, since it has no answer to send with it.
///
/// Here the body is written as soon as the host has taken the request, before this component gives up control. By then
/// the host reads the body's stream, so that the write goes through at once, while its task that owns the connection
/// is only about to run. A write before that, into a stream that nobody reads yet, is carried out later: measured,
/// head and body then left apart twice as often.
pub async fn send(request: http::Request<Bytes>) -> Result<Response, ErrorCode> {
    let (parts, body) = request.into_parts();
    let headers = Fields::try_from(parts.headers)
        .map_err(|error| ErrorCode::InternalError(Some(format!("a header: {error:?}"))))?;
    let options = parts.extensions.get::<RequestOptionsExtension>().cloned().map(|options| options.0);
    let (writer, contents, trailers) = BodyWriter::new();
    let (request, _) = Request::new(headers, Some(contents), trailers, options);
    request.set_method(&parts.method.into()).map_err(|()| ErrorCode::HttpRequestMethodInvalid)?;
    let invalid = |()| ErrorCode::HttpRequestUriInvalid;
    request.set_scheme(parts.uri.scheme().map(Into::into).as_ref()).map_err(invalid)?;
    request.set_authority(parts.uri.authority().map(http::uri::Authority::as_str)).map_err(invalid)?;
    let path = parts.uri.path_and_query().map(http::uri::PathAndQuery::as_str);
    request.set_path_with_query(path).map_err(invalid)?;

    let mut writing = Box::pin(async move { writer.send_http_body(&mut Full::new(body)).await });
    let mut sending = pin!(client::send(request));
    let sent = poll!(&mut sending);
    if poll!(&mut writing).is_pending() {
        // Not waited for: a peer may answer before it has read everything, and then the answer says what is wrong.
        spawn(async { _ = writing.await });
    }
    let response = match sent {
        Poll::Ready(sent) => sent,
        Poll::Pending => sending.await,
    };
    http_from_wasi_response(response?)
}
