//! What the tests of the SQL functions stand on: a fresh database for each test ([`World`]), and the functions
//! themselves as the components call them, one statement each, on any number of connections ([`Session`]).
//!
//! * `TEST_DATABASE_URL` names a PostgreSQL superuser; `cargo xtask test` sets it.
//! * How databases are made and what must hold after anything are the black-box tests' own files, compiled in here
//!   without the runtime that those tests need.

mod crowd;
#[path = "../../api/src/database.rs"]
mod database;
#[path = "../../api/src/invariants.rs"]
mod invariants;
mod session;
mod world;

pub use crowd::Crowd;
pub use database::Database;
pub use session::{Answer, Expect, Refusal, Session, Settling, actor};
pub use world::{Team, World, id};

// The name under which the invariants know what they look into.
use world::World as TestApp;
