//! What the SQL functions promise, on a real PostgreSQL. One file for each thing that they promise.

mod calls;
mod constraints;
mod contention;
mod expiry;
mod failures;
mod foundations;
mod model;
mod sequences;
mod teams;
