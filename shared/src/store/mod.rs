//! PostgreSQL and the key-value store.
//!
//! * [`Function`]: a call of one of the functions of `migrations/`, with typed parameters; [`function!`](crate::function!) makes it.
//! * [`idempotency`]: the statements around a function that changes something: each request takes effect once, and leaves a trace.
//! * [`key_cache`]: what the key-value store holds of look-ups of virtual keys.
//!
//! Uses `values` and `platform`. Everything above it may use it.

mod database;
mod function;
pub mod idempotency;
pub mod key_cache;
pub mod parameters;

pub use database::schema_version;
pub use function::Function;
