//! PostgreSQL and the key-value store.
//!
//! * [`Function`]: a call of one of the functions of `migrations/`, with typed parameters;
//!   [`function!`](crate::function!) makes one.
//! * [`idempotency`]: the statements of requests that change something: each request takes effect once, and the admin's
//!   are audited.
//! * [`key_cache`]: the cache of virtual keys in the key-value store.
//!
//! Uses `values` and `platform`. All modules above it may use it.

mod database;
mod function;
pub mod idempotency;
pub mod key_cache;
pub mod parameters;

pub use database::schema_version;
pub use function::Function;
