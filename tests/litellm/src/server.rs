//! Routes, and the loop that accepts connections.

use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router, middleware};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::error::ApiError;
use crate::state::App;
use crate::{chat, journal, keys, spend, teams};

/// All routes.
pub(crate) fn router(app: App) -> Router {
    Router::new()
        .route("/", get(about))
        .route("/health/liveliness", get(alive))
        .route("/health/liveness", get(alive))
        .route("/health/readiness", get(ready))
        .route("/team/new", post(teams::create))
        .route("/team/info", get(teams::info))
        .route("/team/update", post(teams::update))
        .route("/team/delete", post(teams::delete))
        .route("/team/block", post(teams::block))
        .route("/team/unblock", post(teams::unblock))
        .route("/key/generate", post(keys::generate))
        .route("/key/info", get(keys::info))
        .route("/key/update", post(keys::update))
        .route("/key/delete", post(keys::delete))
        .route("/key/block", post(keys::block))
        .route("/key/unblock", post(keys::unblock))
        .route("/spend/logs", get(spend::logs))
        .route("/models", get(chat::list_models))
        .route("/v1/models", get(chat::list_models))
        .route("/models/{id}", get(chat::show_model))
        .route("/v1/models/{id}", get(chat::show_model))
        .route("/chat/completions", post(chat::completions))
        .route("/v1/chat/completions", post(chat::completions))
        .fallback(not_found)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::disable())
        .layer(middleware::from_fn_with_state(app.clone(), journal::keep))
        .with_state(app)
}

async fn about() -> Json<Value> {
    Json(json!({
        "name": "litellm-stand-in",
        "is": "a stand-in with the wire behaviour of the LiteLLM proxy 1.106.2, for tests and a first start; it is \
               not LiteLLM",
        "version": env!("CARGO_PKG_VERSION"),
    }))
}

async fn alive() -> Json<&'static str> {
    Json("I'm alive!")
}

async fn ready() -> Json<Value> {
    Json(json!({"status": "healthy", "db": "connected"}))
}

async fn not_found() -> ApiError {
    ApiError::detail(404, json!("Not Found"))
}

async fn wrong_method() -> (StatusCode, Json<Value>) {
    (StatusCode::METHOD_NOT_ALLOWED, Json(json!({"detail": "Method Not Allowed"})))
}

/// Serves connections until the future is dropped, which cuts them all.
pub(crate) async fn serve(listener: TcpListener, app: App) {
    let router = router(app.clone());
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                // Accepting fails when files run out; the next try may work once others are closed.
                let Ok((stream, _)) = accepted else {
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                    continue;
                };
                connections.spawn(connection(stream, router.clone(), app.clone()));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// One connection, which is dropped without an answer as soon as the server is down.
async fn connection(stream: TcpStream, router: Router, app: App) {
    let mut down = app.down.subscribe();
    // Without this a stream's small events would wait for each other's acknowledgements.
    let _ = stream.set_nodelay(true);
    let service = TowerToHyperService::new(router);
    let serving =
        http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        biased;
        _ = down.wait_for(|down| *down) => {}
        // A connection that its client breaks is no error of the server's.
        _ = serving => {}
    }
}
