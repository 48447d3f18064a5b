//! What the components share. To read in this order:
//!
//! * [`error`]: the vocabulary of failures, and the one place where they become HTTP answers.
//! * [`input`]: types that are valid once they exist: ids, labels, credits, metadata, and how bodies and queries become them.
//! * [`api`]: how a component declares its routes and who may call them.
//! * [`auth`]: who calls; the cached look-up of virtual keys.
//! * [`change`]: requests that change something: idempotency keys and the audit log.
//! * [`csv`]: tables as text.
//! * [`database`]: one statement at a time, each a function of `migrations/`.
//! * [`settings`]: the component's variables.
//! * [`time`]: how long things may take.
//! * [`outbound`]: requests to other servers.
//! * [`litellm`]: the only client of LiteLLM: administration, and chat completions.
//! * [`call`]: one LLM call, from request to settled row; what the components that make calls have in common.
//! * [`alerts`]: sending alerts to webhooks.
//! * [`openai`]: OpenAI's forms, where this API speaks them.
//! * [`job`]: what SQL answers about jobs.
//! * [`team`]: what SQL answers about teams, and telling LiteLLM about their changes.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

pub mod alerts;
pub mod api;
pub mod auth;
pub mod call;
pub mod change;
pub mod csv;
pub mod database;
pub mod error;
pub mod input;
pub mod job;
pub mod litellm;
pub mod money;
pub mod openai;
pub mod outbound;
pub mod settings;
pub mod team;
pub mod time;
