//! Streamed answers: server-sent events as LiteLLM passes them on, with its end, its failures and its bill.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::HeaderMap;
use axum::response::Response;
use chrono::Utc;
use http_body::Frame;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};

use crate::call::Call;
use crate::chat::{Order, begin};
use crate::cost::{Cost, Usage};
use crate::error::ApiError;
use crate::reply::{Reply, prompt_tokens};
use crate::upstream::{CUT, ERROR_EVENT, Failure, SILENT};

/// Starts the stream on a task of its own, which bills the call even when the client leaves. The answer comes as soon
/// as the model begins.
///
/// # Errors
/// A failure before the first event is an ordinary error.
pub(crate) async fn start(call: Call, order: Order) -> Result<Response, ApiError> {
    let (events, body) = mpsc::channel(16);
    let (head, opened) = oneshot::channel();
    tokio::spawn(run(call, order, head, events));
    match opened.await {
        Ok(Ok(headers)) => {
            let mut response = Response::new(Body::new(Events(body)));
            *response.headers_mut() = headers;
            Ok(response)
        }
        Ok(Err(error)) => Err(error),
        Err(_) => Err(ApiError::new(500, "internal_server_error", "stand-in: the call broke off")),
    }
}

type Head = oneshot::Sender<Result<HeaderMap, ApiError>>;

async fn run(call: Call, order: Order, head: Head, events: mpsc::Sender<Bytes>) {
    let model = order.model;
    let begun = tokio::select! {
        () = events.closed() => {
            let none_sent = Usage { prompt: prompt_tokens(&order.body).into(), ..Usage::default() };
            return call.end_left(model, none_sent);
        }
        begun = timeout(order.timeout, begin(&order)) => begun,
    };
    // Below nobody may listen to `head`, because the client has left; that changes nothing about the bill.
    let reply = match begun.unwrap_or(Err(Failure::Timeout { after: order.timeout, streamed: true })) {
        Ok(reply) => reply,
        Err(failure) => {
            let error = call.end_failed(failure.to_error(model));
            let _ = head.send(Err(error));
            return;
        }
    };
    if lost_at_once(&order) {
        let mut headers = call.stream_headers(model);
        headers.remove("content-type");
        call.end_broken(model, reply.counted(&order.body, 0), CUT);
        let error = ApiError::new(500, "", CUT).member("type", Value::Null);
        let _ = head.send(Err(error.with_headers(headers)));
        return;
    }
    let _ = head.send(Ok(call.stream_headers(model)));
    Stream { call: &call, order: &order, reply: &reply, events: &events }
        .play()
        .await
        .settle(call, &order, &reply);
}

/// A connection that breaks without a pause takes with it what LiteLLM had not read yet, which is everything.
fn lost_at_once(order: &Order) -> bool {
    order.behaviour.cut_after.is_some() && order.behaviour.delay_ms == 0
}

/// How a stream came to its end.
enum End {
    Complete(Usage),
    Broken { sent: usize, message: &'static str },
    Left { sent: usize },
}

impl End {
    fn settle(self, call: Call, order: &Order, reply: &Reply) {
        match self {
            End::Complete(usage) => call.end_streamed(order.model, usage),
            End::Broken { sent, message } => {
                call.end_broken(order.model, reply.counted(&order.body, sent), message);
            }
            End::Left { sent } => call.end_left(order.model, reply.counted(&order.body, sent)),
        }
    }
}

/// Nobody reads the events any more.
struct ClientLeft;

struct Stream<'a> {
    call: &'a Call,
    order: &'a Order,
    reply: &'a Reply,
    events: &'a mpsc::Sender<Bytes>,
}

impl Stream<'_> {
    async fn play(&self) -> End {
        let mut sent = 0;
        match self.pieces(&mut sent).await {
            Ok(end) => end,
            Err(ClientLeft) => End::Left { sent },
        }
    }

    async fn pieces(&self, sent: &mut usize) -> Result<End, ClientLeft> {
        let behaviour = &self.order.behaviour;
        self.chunk(0, self.reply.opening(&self.call.ident), None).await?;
        for at in 0..=self.reply.pieces.len() {
            *sent = at;
            let broken = |message| End::Broken { sent: at, message };
            if behaviour.cut_after == Some(at) {
                return self.fail(CUT).await.map(|()| broken(CUT));
            }
            if behaviour.end_after == Some(at) {
                let usage = self.reply.counted(&self.order.body, at);
                return self.finish("stop", usage).await;
            }
            if behaviour.error_after == Some(at) {
                return self.fail(ERROR_EVENT).await.map(|()| broken(ERROR_EVENT));
            }
            if behaviour.stall_after == Some(at) {
                self.wait(self.order.timeout).await?;
                return self.fail(SILENT).await.map(|()| broken(SILENT));
            }
            let Some(piece) = self.reply.pieces.get(at) else { break };
            self.wait(behaviour.delay().min(self.order.timeout)).await?;
            if behaviour.delay() >= self.order.timeout {
                return self.fail(SILENT).await.map(|()| broken(SILENT));
            }
            let now = behaviour.clock.then(|| format!("{} ", Utc::now().timestamp_micros()));
            for index in 0..self.reply.choices {
                self.chunk(index, self.reply.delta(now.as_ref().unwrap_or(piece)), None).await?;
            }
        }
        let counted = || self.reply.counted(&self.order.body, self.reply.pieces.len());
        self.finish(&self.reply.finish, self.reply.usage.unwrap_or_else(counted)).await
    }

    /// The end of a stream that LiteLLM takes for complete.
    async fn finish(&self, reason: &str, usage: Usage) -> Result<End, ClientLeft> {
        self.chunk(0, json!({}), Some(reason)).await?;
        if self.order.body["stream_options"]["include_usage"] == true {
            let mut said = usage.to_json();
            if self.order.model.prices.is_some() {
                said["cost"] = json!(Cost::of(self.order.model, usage).total());
            }
            if let Some(cost) = &self.order.behaviour.cost {
                said["cost"] = serde_json::from_str(cost).unwrap_or_else(|_| json!(cost));
            }
            let mut event = self.envelope(json!({"index": 0, "delta": {}}));
            event["usage"] = said;
            self.send(event.to_string()).await?;
        }
        // A client that leaves with everything but the end mark has had the whole answer.
        let _ = self.send("[DONE]".to_owned()).await;
        Ok(End::Complete(usage))
    }

    async fn fail(&self, message: &str) -> Result<(), ClientLeft> {
        let error = json!({"message": message, "type": null, "param": null, "code": "500"});
        self.send(json!({"error": error}).to_string()).await
    }

    async fn chunk(&self, index: usize, delta: Value, finish: Option<&str>) -> Result<(), ClientLeft> {
        let mut choice = json!({"index": index, "delta": delta});
        if let Some(reason) = finish {
            choice["finish_reason"] = json!(reason);
        }
        self.send(self.envelope(choice).to_string()).await
    }

    fn envelope(&self, choice: Value) -> Value {
        json!({
            "id": self.call.answer_id(), "created": Utc::now().timestamp(), "model": self.order.model.name,
            "object": "chat.completion.chunk", "system_fingerprint": "fp_fake", "choices": [choice],
        })
    }

    async fn send(&self, data: String) -> Result<(), ClientLeft> {
        self.events.send(Bytes::from(format!("data: {data}\n\n"))).await.map_err(|_| ClientLeft)
    }

    async fn wait(&self, time: Duration) -> Result<(), ClientLeft> {
        // Even no time at all would be a millisecond.
        if time.is_zero() {
            return Ok(());
        }
        tokio::select! {
            () = self.events.closed() => Err(ClientLeft),
            () = sleep(time) => Ok(()),
        }
    }
}

/// The events as a body. Dropping it, which happens when the client leaves, closes the channel.
struct Events(mpsc::Receiver<Bytes>);

impl http_body::Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|data| data.map(|data| Ok(Frame::data(data))))
    }
}
