//! From the first event of a stream to the settled call.

use crate::event;
use axum::body::Bytes;
use futures::{SinkExt, channel::mpsc::Sender};
use shared::{
    call::{End, OpenCall},
    error::{Error, Result},
    litellm::{
        chat::{Chunk, Class, Event, Events, Failure, Usage},
        within,
    },
};
use std::time::{Duration, Instant};

/// How long the model may be silent before the caller gets a sign of life.
const PING_AFTER: Duration = Duration::from_secs(15);

/// Passes a stream on, event by event, and settles its call however it ends.
pub struct Relay {
    call: OpenCall,
    caller: Sender<Bytes>,
    /// Pieces with content: about as many tokens, for a stream that breaks off before its usage comes.
    pieces: i64,
    usage: Option<Usage>,
    finish_reason: Option<String>,
}

/// How a stream ended before its `[DONE]`.
enum Broken {
    /// The caller reads no more.
    CallerLeft,
    /// The model failed.
    Model(Class),
}

impl Relay {
    /// For a call that has begun to answer, to a caller that reads the other end of the channel.
    pub fn new(call: OpenCall, caller: Sender<Bytes>) -> Self {
        Self { call, caller, pieces: 0, usage: None, finish_reason: None }
    }

    /// Relays until the end.
    pub async fn run(mut self, mut events: Events) {
        let ended = self.pass_on(&mut events).await;
        // Closes the connection, by which LiteLLM knows that nobody listens any more.
        drop(events);
        let counted = Usage { completion_tokens: self.pieces, total_tokens: self.pieces, ..Usage::default() };
        // Where nobody said what a complete answer used, what was counted is what is known.
        let usage = self.usage.unwrap_or(counted);
        let settled = match ended {
            Ok(()) => self.finish(&usage).await,
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

    /// The model's next event, with signs of life for the caller until it comes.
    async fn next(&mut self, events: &mut Events) -> Result<Event, Broken> {
        let since = Instant::now();
        loop {
            let patience = self.call.idle_limit().saturating_sub(since.elapsed());
            match within(patience.min(PING_AFTER), events.next()).await {
                Some(Ok(event)) => return Ok(event),
                Some(Err(Failure { class, .. })) => return Err(Broken::Model(class)),
                None if patience <= PING_AFTER => return Err(Broken::Model(Class::TimedOut)),
                None => self.send(event::PING).await?,
            }
        }
    }

    async fn pass_on_chunk(&mut self, chunk: &Chunk) -> Result<(), Broken> {
        self.usage = chunk.usage.or(self.usage);
        if let Some(choice) = chunk.choices.first() {
            let says_something = |value: &str| !matches!(value, "null" | "\"\"");
            let spoken =
                choice.delta.iter().any(|(name, value)| name != "role" && says_something(value.get()));
            self.pieces = self.pieces.saturating_add(spoken.into());
            self.finish_reason = choice.finish_reason.clone().or(self.finish_reason.take());
        }
        match event::chunk(self.call.call_id, &self.call.model_group, chunk) {
            Some(event) => self.send(event).await,
            None => Ok(()),
        }
    }

    /// A caller who has left, or takes nothing for as long as a model may be silent, has left.
    async fn send(&mut self, event: Bytes) -> Result<(), Broken> {
        match within(self.call.idle_limit(), self.caller.send(event)).await {
            Some(Ok(())) => Ok(()),
            Some(Err(_)) | None => Err(Broken::CallerLeft),
        }
    }

    async fn finish(&mut self, usage: &Usage) -> Result<()> {
        // Settled first: whoever has seen the end of the stream finds the call in the job.
        let settled = self.call.settle(End::Succeeded, usage, None).await;
        let latency_ms = self.call.latency().as_millis();
        let reason = self.finish_reason.as_deref();
        let summary = event::summary(self.call.call_id, &self.call.model_group, reason, usage, latency_ms);
        for event in summary.into_iter().chain([event::DONE]) {
            // The call is settled; a caller who is gone misses nothing that counts.
            _ = self.send(event).await;
        }
        settled
    }

    async fn break_off(&mut self, end: End, usage: &Usage, failure: Option<&Error>) -> Result<()> {
        let settlement = self.call.settlement(end, usage, failure)?;
        // Before the caller hears of it, who may then end the job at once.
        settlement.announce().await;
        if let Some(event) = failure.and_then(event::error) {
            // Whether it is read makes no difference to the call.
            _ = self.send(event).await;
        }
        // The caller need not wait while LiteLLM is asked what was used.
        self.caller.close_channel();
        settlement.write_from_log().await
    }
}
