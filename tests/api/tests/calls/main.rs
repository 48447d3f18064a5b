//! What the API promises about calls: answers, fallbacks, costs, streams, and what happens when somebody leaves or
//! something breaks.

mod answers;
mod budgets;
mod costs;
mod fallbacks;
mod fixtures;
mod hangups;
mod kept_messages;
mod load;
mod openai;
mod openai_errors;
mod own_jobs;
mod parameters;
mod secrecy;
mod statements;
mod stream_failures;
mod streams;
mod traps;
