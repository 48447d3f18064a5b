//! A randomised driver with a model: many clients at once do everything that the API has to do with credits, jobs,
//! calls and keys, write down what they heard, and an audit then checks that every answer was possible and that the end
//! is what they add up to.
//!
//! * [`driver`] does it, in rounds, each with new [`team`]s on one [`world`]; [`operations`] is what it does, [`storm`]
//!   what fails meanwhile.
//! * [`history`] is what was heard; [`state`] what the database holds at the end.
//! * [`model`] has the rules, [`audit`] applies them.
//! * [`mutants`] are ways to break the product that a run has to notice; [`report`] is what is printed.

pub mod audit;
mod direct;
pub mod driver;
pub mod history;
pub mod model;
pub mod mutants;
pub mod operations;
pub mod report;
pub mod request;
pub mod state;
pub mod storm;
pub mod team;
pub mod world;
