//! HTTP: routes, callers, requests, and the form of errors.
//!
//! Uses `values`, `platform` and `store`. The components and `calls` use it.

pub mod access;
pub mod api;
mod body;
pub mod caller;
pub mod csv;
pub mod mutation;
pub mod openai;
mod query;

pub use access::Access;
pub use api::{Api, PathOf, PathTeam, VisibleTeam};
pub use body::{Body, Fields, ListBody, MAX_BODY_BYTES, NoFields, Object, RawBody, parse_body};
pub use caller::{Caller, TeamKey};
pub use mutation::Mutation;
pub use query::{Format, Page, PageCursor, PageLimit, PageOffset, Query, default_limit, read_query};
