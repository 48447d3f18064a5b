//! Runs an application from its `spin.toml` on wasmtime, as Spin 4.1 would.
//!
//! This is the project's own host: its tests run on it, in their own process, and `cargo xtask up` starts it where Spin
//! isn't installed. It promises to behave as Spin does in what the application uses; the README lists every difference.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use host::{Application, Settings};
//!
//! let application = Application::load("spin.toml".as_ref())?;
//! let running = application.start(Settings::default()).await?;
//! println!("Serving http://{}", running.addr());
//! running.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! Read on in `application.rs` for what happens at the start, in `server.rs` for the way of a request, and in
//! `instances.rs` for the life of the components that answer it.

mod allowed_hosts;
mod application;
mod component_variables;
mod engine;
mod guest;
mod headers;
mod identifiers;
mod instances;
mod key_value;
mod logs;
mod manifest;
mod outbound_http;
mod postgres;
mod router;
mod server;
mod settings;
mod template;
mod variables;
mod wit;

pub use application::Application;
pub use router::Router;
pub use server::Running;
pub use settings::{Logs, Settings};
