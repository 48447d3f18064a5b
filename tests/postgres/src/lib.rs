//! Private PostgreSQL servers: for `cargo xtask up`, which keeps its data, and for tests, which don't and may crash
//! theirs.
//!
//! A server listens on 127.0.0.1 alone, at a free port, with passwords of its own; it has nothing to do with a server
//! that the machine may run otherwise. [`Home`] is where one lives, [`Server`] one that runs.
//!
//! The modules are what that takes, and what else starts programs uses too: [`processes`], [`ports`], [`secret`],
//! [`progress`].

pub mod ports;
pub mod processes;
mod programs;
pub mod progress;
pub mod secret;
mod server;

pub use server::{Home, Server, run};
