//! What the black-box tests stand on: each test gets an application of its own, which is the real components in the
//! wasmtime host, on a fresh database of a real PostgreSQL, in front of the LiteLLM stand-in.
//!
//! * [`TestApp`] starts all that; its methods are what tests do: act as a persona ([`Client`]), set up what a test is
//!   not about ([`TestApp::team`]), look into the database, and check what must hold after anything
//!   ([`TestApp::check_invariants`]).
//! * [`python`] runs the clients that users write.
//! * `TEST_DATABASE_URL` names a PostgreSQL superuser; `cargo xtask test` sets it.
//! * With `LITELLM_URL` and `LITELLM_MASTER_KEY` the tests run against that LiteLLM, and those that need the stand-in
//!   skip themselves, saying so ([`TestApp::stand_in`]).

mod app;
mod client;
mod database;
mod eventually;
mod invariants;
mod litellm;
pub mod python;
mod setup;

pub use app::{Options, TEST_VARIABLES, TestApp, repository};
pub use client::{ADMIN_KEY, Answer, Client, Sse};
pub use database::Database;
pub use eventually::{PATIENCE, eventually};
pub use invariants::violations;
pub use litellm::behind_our_back;
pub use setup::Team;
