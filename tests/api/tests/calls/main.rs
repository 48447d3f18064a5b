//! What the API promises about calls: answers, fallbacks, costs, streams, and what happens when somebody leaves or
//! something breaks.

mod answers;
mod booking;
mod budgets;
mod costs;
mod delivered;
mod fallbacks;
mod fixtures;
mod hangups;
mod implausible;
mod kept_messages;
mod late_costs;
mod limits;
mod load;
mod openai;
mod openai_errors;
mod own_jobs;
mod parameters;
mod refused;
mod secrecy;
mod statements;
mod stream_failures;
mod streams;
mod traps;
