//! What the SQL functions promise, on a real PostgreSQL. One file for each thing that they promise.

mod calls;
mod constraints;
mod contention;
mod deadlocks;
mod expiry;
mod failures;
mod foundations;
mod idempotency;
mod keys;
mod lost_answers;
mod model;
mod months;
mod operation;
mod sequences;
mod teams;
mod usage;
