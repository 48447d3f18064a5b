//! What the SQL functions promise, on a real PostgreSQL. One file for each thing that they promise.

mod booking;
mod budgets;
mod calls;
mod constraints;
mod contention;
mod deadlocks;
mod expiry;
mod failures;
mod foundations;
mod idempotency;
mod keys;
mod late_costs;
mod limits;
mod lost_answers;
mod model;
mod months;
mod numbers;
mod operation;
mod refills;
mod refunds;
mod sequences;
mod teams;
mod usage;
mod whose_fault;
