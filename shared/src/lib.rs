//! What the components share. To read in this order:
//!
//! * [`error`]: the vocabulary of failures, and the one place where they become HTTP answers.
//! * [`input`]: types that are valid once they exist: ids, labels, credits, metadata, and how bodies and queries become them.
//! * [`api`]: how a component declares its routes and who may call them.
//! * [`auth`]: who calls; the cached look-up of virtual keys.
//! * [`database`]: one statement at a time, each a function of `migrations/`.
//! * [`settings`]: the component's variables.
//! * [`litellm`]: the only client of LiteLLM: administration, and chat completions.
//! * [`call`]: one LLM call inside a job, from request to settled row; what the two call components have in common.
//! * [`team`]: what SQL answers about teams, and telling LiteLLM about their changes.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

pub mod api;
pub mod auth;
pub mod call;
pub mod database;
pub mod error;
pub mod input;
pub mod litellm;
pub mod money;
pub mod settings;
pub mod team;
