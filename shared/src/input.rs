//! What comes in, as types that are valid once they exist. Reading them from JSON or a query is the validation: a failure names
//! the field, says what is wrong and what is allowed, and becomes a 400.

mod body;
mod query;
mod schema;
mod values;

pub(crate) use body::read;
pub use body::{Body, Fields, ListBody, MAX_BODY_BYTES, NoFields, Object, RawBody, parse_body};
pub use query::{Format, Page, Query, query_integer, read_query};
pub use values::{
    Amount, Credits, Label, Metadata, Name, Prose, Seconds, Slug, Text, check_storable, given, integer,
};
