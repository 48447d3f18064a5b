//! Private PostgreSQL servers: for `up`, which keeps its data, and for the tests, which don't.
//!
//! A server listens on 127.0.0.1 alone, at a free port, with passwords of its own; it has nothing to do with a server
//! that the machine may run otherwise.

mod programs;
mod server;

pub use server::{Home, Server};
