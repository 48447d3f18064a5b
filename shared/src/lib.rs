//! What the components share, floor by floor from the ground. Each says what it promises, and uses only those below it.
//!
//! * [`values`]: ids, words, numbers and text that are valid once they exist.
//! * [`error`]: the vocabulary of failures, and the one place where they become HTTP answers.
//! * [`platform`]: what the host gives: variables, time, requests to other servers, a log.
//! * [`store`]: PostgreSQL, by calls of the functions of `migrations/`, and the key-value store.
//! * [`litellm`]: the only client of LiteLLM: administration, and chat completions.
//! * [`http`]: how a component declares its routes, who calls, what comes in.
//! * [`teams`], [`jobs`], [`alerts`]: what SQL answers about teams and jobs, keeping LiteLLM in step, and sending
//!   alerts.
//! * [`calls`]: one LLM call, from request to settled row.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::too_many_lines
)]

pub mod alerts;
pub mod calls;
pub mod error;
pub mod http;
pub mod jobs;
pub mod litellm;
pub mod platform;
pub mod store;
pub mod teams;
pub mod values;
