//! What the host gives: variables, time, requests to other servers, a log.
//!
//! Uses nothing but the error type. Everything above it may use it.

pub mod log;
pub mod outbound;
pub mod settings;
pub mod time;
