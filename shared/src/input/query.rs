//! Query strings.

use crate::error::{Error, Result};
use axum::{extract::FromRequestParts, http::request::Parts};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error as _},
};
use serde_json::{Map, Value};
use spin_sdk::pg::ParameterValue;
use utoipa::{IntoParams, ToSchema};

/// The parameters of the query, read like the fields of a body: unknown and repeated ones are refused.
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        read_query(parts.uri.query().unwrap_or_default()).map(Self)
    }
}

/// Reads a query string as `T`; every value is a string to it.
pub fn read_query<T: DeserializeOwned>(query: &str) -> Result<T> {
    super::body::parse_body(as_json(query)?.as_bytes())
}

/// Apart from [`read_query`], which a component has once for each type that it reads.
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

/// Which part of a list is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Page {
    /// At most this many entries.
    #[param(minimum = 1, maximum = 1000, default = 50, required = false)]
    pub limit: i64,
    /// Starting after this many.
    #[param(minimum = 0, maximum = 1_000_000_000_000_i64, default = 0, required = false)]
    pub offset: i64,
}

impl Page {
    /// `limit` and `offset` as parameters of a statement.
    pub fn parameters(self) -> Vec<ParameterValue> {
        vec![ParameterValue::Int64(self.limit), ParameterValue::Int64(self.offset)]
    }

    /// For a `limit` in a query: 1 to 1000.
    pub fn limit<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
        query_integer(deserializer, 1, 1000)
    }

    /// For an `offset` in a query: 0 to a million millions.
    pub fn offset<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
        query_integer(deserializer, 0, 1_000_000_000_000)
    }

    /// The same where something else may stand in its place.
    pub fn optional_offset<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
        Page::offset(deserializer).map(Some)
    }

    /// What `limit` is when nothing is said.
    pub fn default_limit() -> i64 {
        50
    }
}

/// As what a list is answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// JSON.
    #[default]
    Json,
    /// Comma-separated values, with a line of column names (RFC 4180).
    Csv,
}

/// A whole number between `min` and `max`, as text.
pub fn query_integer<'de, D: Deserializer<'de>>(
    deserializer: D,
    min: i64,
    max: i64,
) -> Result<i64, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse()
        .ok()
        .filter(|number| (min..=max).contains(number))
        .ok_or_else(|| D::Error::custom(format!("expected a whole number from {min} to {max}")))
}

impl<'de> Deserialize<'de> for Page {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Fields {
            #[serde(default = "Page::default_limit", deserialize_with = "Page::limit")]
            limit: i64,
            #[serde(default, deserialize_with = "Page::offset")]
            offset: i64,
        }
        Fields::deserialize(deserializer).map(|Fields { limit, offset }| Page { limit, offset })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_defaults_and_bounds() {
        assert_eq!(read_query::<Page>("").unwrap(), Page { limit: 50, offset: 0 });
        assert_eq!(read_query::<Page>("limit=1000&offset=7").unwrap(), Page { limit: 1000, offset: 7 });
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
