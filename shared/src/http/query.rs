//! Query strings.

use crate::{
    error::{Error, Result},
    values::Whole,
};
use axum::{extract::FromRequestParts, http::request::Parts};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};

/// The parameters of the query, read like the fields of a body: unknown and repeated parameters are refused.
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        read_query(parts.uri.query().unwrap_or_default()).map(Self)
    }
}

/// Reads a query string as `T`, to which every value is a string.
pub fn read_query<T: DeserializeOwned>(query: &str) -> Result<T> {
    super::body::parse_body(as_json(query)?.as_bytes())
}

/// A separate function, since [`read_query`] is compiled once for each type that a component reads.
fn as_json(query: &str) -> Result<String> {
    let pairs: Vec<(String, String)> = serde_urlencoded::from_str(query)
        .map_err(|_| Error::invalid("query", "expected name=value pairs"))?;
    let mut fields = Map::new();
    for (name, value) in pairs {
        if fields.insert(name.clone(), Value::String(value)).is_some() {
            return Err(Error::invalid(&name, "given more than once"));
        }
    }
    Ok(Value::Object(fields).to_string())
}

/// The maximum number of entries on a page.
pub type PageLimit = Whole<1, 1000>;

/// The number of entries to skip before a page.
pub type PageOffset = Whole<0, 1_000_000_000_000>;

/// The number of the entry that a page comes after.
pub type PageCursor = Whole<1, 1_000_000_000_000>;

/// The maximum number of entries on a page if the query does not say it: 50.
pub fn default_limit() -> PageLimit {
    const { PageLimit::new(50) }
}

/// Which part of a list is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Page {
    /// The maximum number of entries on the page.
    #[serde(default = "default_limit", deserialize_with = "PageLimit::from_text")]
    #[param(value_type = i64, minimum = 1, maximum = 1000, default = 50, required = false)]
    pub limit: PageLimit,
    /// The number of entries to skip.
    #[serde(default = "no_offset", deserialize_with = "PageOffset::from_text")]
    #[param(value_type = i64, minimum = 0, maximum = 1_000_000_000_000_i64, default = 0, required = false)]
    pub offset: PageOffset,
}

fn no_offset() -> PageOffset {
    const { PageOffset::new(0) }
}

/// The format of a list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// JSON.
    #[default]
    Json,
    /// Comma-separated values, with a line of column names (RFC 4180).
    Csv,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_defaults_and_bounds() {
        let page =
            |query| read_query::<Page>(query).map(|page| (page.limit.get(), page.offset.get())).unwrap();
        assert_eq!(page(""), (50, 0));
        assert_eq!(page("limit=1000&offset=7"), (1000, 7));
        for (query, refusal) in [
            ("limit=0", "limit: expected a whole number from 1 to 1000"),
            ("limit=x", "limit: expected a whole number from 1 to 1000"),
            ("offset=-1", "offset: expected a whole number from 0 to 1000000000000"),
            ("page=2", "page: unknown field; expected `limit` or `offset`"),
            ("limit=1&limit=2", "limit: given more than once"),
        ] {
            assert_eq!(
                read_query::<Page>(query).unwrap_err().detail.replace('`', ""),
                refusal.replace('`', "")
            );
        }
    }
}
