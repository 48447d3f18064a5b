//! Streamed calls: a stream, from its first event to the settled call.

use super::{
    ActiveCall, Begun, End, Form, Outcome, Place, Settled, Streamed, begin, event::PING, outcome::now,
    request::CallRequest, with_ids,
};
use crate::{
    error::{Error, Result},
    http::{Mutation, TeamKey},
    litellm::chat::{Chunk, Class, Event, Events, Failure, Usage},
    platform::{settings, time::within},
};
use axum::{
    body::{Body, Bytes},
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use futures::{
    SinkExt, StreamExt,
    channel::mpsc::{self, Sender},
};
use spin_sdk::wasip3::spawn;
use std::{
    convert::Infallible,
    time::{Duration, Instant},
};

/// The time without an event after which the caller gets a comment that keeps the connection open.
const PING_AFTER: Duration = Duration::from_secs(15);

/// The number of events that may wait for a slow caller before no more are read from the model.
const WAITING_EVENTS: usize = 16;

/// Makes a streamed call.
///
/// Until the first event a failure is an ordinary error response, and other models are tried. From then on a separate
/// task relays the stream. The task outlives the request, so the call is settled even if the caller closes the
/// connection.
pub async fn stream(
    key: &TeamKey,
    mutation: &Mutation,
    place: Place<'_>,
    request: &CallRequest<'_>,
    form: Form,
) -> Result<Response> {
    let lifetime = Duration::from_secs(settings::parsed("llm_stream_seconds").await?);
    let mut call = match begin(key, mutation, place, request, lifetime).await? {
        Begun::Call(call) => call,
        Begun::Repeat(kept) => {
            return Ok(match *kept {
                (Outcome::Streamed(streamed), settled) => again(streamed, settled, form),
                (outcome, _) => outcome.failure(),
            });
        }
    };
    let first = call.first_answer(key, request, async |attempt, body| attempt.stream(body).await).await;
    let events = match first {
        Ok(events) => events,
        Err(failure) => return call.settle_failure(failure).await,
    };
    let (sender, receiver) = mpsc::channel(WAITING_EVENTS);
    let body = Body::from_stream(receiver.map(Ok::<_, Infallible>));
    let response = call.with_headers(event_stream(body));
    spawn(Relay::new(*call, sender, form).run(events));
    Ok(response)
}

/// The stream of an earlier request, for its retry.
fn again(streamed: Streamed, settled: Settled, form: Form) -> Response {
    let (job_id, call_id) = (streamed.job_id, streamed.call_id);
    let end: Vec<u8> = form.end(&streamed, settled).concat();
    let body = [streamed.events.into_bytes(), end].concat();
    with_ids(event_stream(body.into()), job_id, call_id)
}

fn event_stream(body: Body) -> Response {
    let mut response = body.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // Keeps reverse proxies such as nginx from buffering events.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// Relays a stream, event by event, and settles its call however it ends.
struct Relay {
    call: ActiveCall,
    caller: Sender<Bytes>,
    /// Whether the caller has stopped reading, while a retry may still ask for the answer.
    gone: bool,
    form: Form,
    /// When the first event arrived.
    begun: Instant,
    /// For how long the caller has kept the stream waiting in all.
    waited: Duration,
    /// Whether a piece of the answer has reached the caller.
    delivered: bool,
    /// When the answer began, in seconds since 1970 (UTC).
    created: u64,
    /// The number of chunks with content: an estimate of the tokens of a stream that breaks off before its usage
    /// arrives.
    pieces: i64,
    usage: Option<Usage>,
    finish_reason: Option<String>,
    /// The events that were sent, for retries of the request.
    sent: Vec<u8>,
    /// The text, if messages are stored.
    content: String,
}

/// Why a stream ended before its `[DONE]`.
enum Broken {
    /// The caller stopped reading, or kept the stream waiting for too long.
    CallerLeft,
    /// The model failed.
    Model(Class),
}

impl Relay {
    /// The relay of a call whose stream has begun; `caller` is the sending half of the response body's channel.
    fn new(call: ActiveCall, caller: Sender<Bytes>, form: Form) -> Self {
        Self {
            call,
            caller,
            gone: false,
            form,
            begun: Instant::now(),
            waited: Duration::ZERO,
            delivered: false,
            created: now(),
            pieces: 0,
            usage: None,
            finish_reason: None,
            sent: vec![],
            content: String::new(),
        }
    }

    /// Relays until the end of the stream, and settles the call.
    async fn run(mut self, mut events: Events) {
        let ended = self.pass_on(&mut events).await;
        // Closes the connection, so that LiteLLM stops the model.
        drop(events);
        let counted = Usage { completion_tokens: self.pieces, total_tokens: self.pieces, ..Usage::default() };
        // If a complete answer has no usage, the count of its chunks is the best estimate.
        let usage = self.usage.unwrap_or(counted);
        let settled = match ended {
            Ok(()) => self.finish(usage).await,
            Err(Broken::CallerLeft) => self.break_off(End::Cancelled, &usage, None).await,
            Err(Broken::Model(class)) => {
                let failure = self.call.failure(&class);
                self.break_off(End::Failed, &usage, Some(&failure)).await
            }
        };
        if let Err(error) = settled {
            error.log("settling a call");
        }
    }

    async fn pass_on(&mut self, events: &mut Events) -> Result<(), Broken> {
        loop {
            match self.next(events).await? {
                Event::Done => return Ok(()),
                Event::Chunk(chunk) => self.pass_on_chunk(&chunk).await?,
            }
        }
    }

    /// The model's next event. Until it arrives, the caller gets pings.
    async fn next(&mut self, events: &mut Events) -> Result<Event, Broken> {
        let since = Instant::now();
        loop {
            let idle = self.call.idle_limit().saturating_sub(since.elapsed());
            let of_the_model = self.begun.elapsed().saturating_sub(self.waited);
            let patience = idle.min(self.call.lifetime().saturating_sub(of_the_model));
            if patience.is_zero() {
                return Err(Broken::Model(Class::TimedOut));
            }
            match within(patience.min(PING_AFTER), events.next()).await {
                Some(Ok(event)) => return Ok(event),
                Some(Err(Failure { class, .. })) => return Err(Broken::Model(class)),
                None if patience <= PING_AFTER => return Err(Broken::Model(Class::TimedOut)),
                None => self.send(PING).await?,
            }
        }
    }

    async fn pass_on_chunk(&mut self, chunk: &Chunk) -> Result<(), Broken> {
        self.usage = chunk.usage.or(self.usage);
        let mut spoken = false;
        if let Some(choice) = chunk.choices.first() {
            let says_something = |value: &str| !matches!(value, "null" | "\"\"");
            spoken = choice.delta.iter().any(|(name, value)| name != "role" && says_something(value.get()));
            self.pieces = self.pieces.saturating_add(spoken.into());
            self.finish_reason = choice.finish_reason.clone().or(self.finish_reason.take());
            if let Some(text) = choice.delta.get("content").filter(|_| self.call.keeps_messages()) {
                self.content.push_str(
                    &serde_json::from_str::<Option<String>>(text.get()).ok().flatten().unwrap_or_default(),
                );
            }
        }
        match self.form.chunk(self.call.call_id, &self.call.model_group, self.created, chunk) {
            Some(event) => {
                if self.call.keeps_outcome() {
                    self.sent.extend_from_slice(&event);
                }
                self.send(event).await?;
                self.delivered |= spoken;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Sends an event. A caller that reads nothing for as long as a model may be silent counts as gone, and so does
    /// one that has kept the stream waiting for as long in all as its model may take. If the outcome is stored under
    /// an `Idempotency-Key`, the stream is read to its end all the same, so that a retry gets the complete answer.
    async fn send(&mut self, event: Bytes) -> Result<(), Broken> {
        if self.gone {
            return Ok(());
        }
        let since = Instant::now();
        let patience = self.call.idle_limit().min(self.call.lifetime().saturating_sub(self.waited));
        let sent = within(patience, self.caller.send(event)).await;
        self.waited = self.waited.saturating_add(since.elapsed());
        match sent {
            Some(Ok(())) => Ok(()),
            Some(Err(_)) | None if self.call.keeps_outcome() => {
                self.gone = true;
                Ok(())
            }
            Some(Err(_)) | None => Err(Broken::CallerLeft),
        }
    }

    async fn finish(&mut self, usage: Usage) -> Result<()> {
        let outcome = Outcome::Streamed(Streamed {
            job_id: self.call.job_id,
            call_id: self.call.call_id,
            model_group: self.call.model_group.clone(),
            created: self.created,
            events: String::from_utf8(std::mem::take(&mut self.sent)).map_err(Error::internal)?,
            content: std::mem::take(&mut self.content),
            finish_reason: self.finish_reason.take(),
            usage,
            latency_ms: self.call.latency().as_millis(),
        });
        // Settled first, so that a caller that has seen the end of the stream finds the call in the job.
        let (settled, failure) =
            match self.call.settle(End::Succeeded, &usage, self.delivered, None, &outcome).await {
                Ok(settled) => (settled, Ok(())),
                Err(error) => (Settled::default(), Err(error)),
            };
        if let Outcome::Streamed(streamed) = &outcome {
            for event in self.form.end(streamed, settled) {
                // The call is settled, so it does not matter if the caller is gone.
                _ = self.send(event).await;
            }
        }
        failure
    }

    async fn break_off(&mut self, end: End, usage: &Usage, failure: Option<&Error>) -> Result<()> {
        let settlement = self.call.broken_off(end, usage, self.delivered, failure)?;
        // Written before the caller gets the error, since it may then end the job at once.
        settlement.announce().await;
        if let Some(event) = failure.and_then(|failure| self.form.error(failure)) {
            // The call ends in the same way whether or not the event is read.
            _ = self.send(event).await;
        }
        // The caller need not wait until LiteLLM has recorded the usage.
        self.caller.close_channel();
        settlement.write_from_log().await
    }
}
