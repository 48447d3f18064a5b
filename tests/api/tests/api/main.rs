//! The black-box tests: what the API promises, over HTTP, against the real components. One file for each thing that it promises.

mod access_groups;
mod bad_input;
mod bad_values;
mod bodies;
mod conventions;
mod credits;
mod exactness;
mod expiry;
mod fixtures;
mod identity;
mod jobs;
mod ledger;
mod litellm_teams;
mod metadata;
mod model_groups;
mod organizations;
mod outages;
mod stale_keys;
mod team_creation;
mod teams;
