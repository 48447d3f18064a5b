//! What holds when PostgreSQL, LiteLLM, the network or a host fails: an honest status within bounded time, nothing lost
//! or counted twice, and afterwards everything works again with no hand.

mod administration;
mod asking;
mod database_away;
mod database_cuts;
mod database_full;
mod database_kills;
mod database_locks;
mod fairness;
mod host_kills;
mod litellm_answers;
mod litellm_streams;
mod sockets;
mod tools;
mod two_hosts;
