//! Request bodies.

use crate::{
    error::{Code, Error, Result},
    platform::time::within,
};
use axum::{
    body::Bytes,
    extract::FromRequestParts,
    http::{
        HeaderMap, HeaderValue,
        header::{CONTENT_ENCODING, CONTENT_LENGTH},
        request::Parts,
    },
};
use futures::StreamExt;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{DeserializeOwned, Error as _, MapAccess, Visitor, value::MapAccessDeserializer},
};
use serde_json::value::RawValue;
use std::{collections::BTreeMap, fmt, marker::PhantomData, time::Duration};

/// The maximum size of a body.
pub const MAX_BODY_BYTES: usize = 4 * 1024 * 1024;

/// A body that is a JSON object, read as JSON whatever its content type is.
pub struct Body<T>(pub T);

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for Body<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let RawBody(bytes) = RawBody::from_request_parts(parts, state).await?;
        let Object(value) = parse_body(&bytes)?;
        Ok(Self(value))
    }
}

/// A body that is a JSON list.
pub struct ListBody<T>(pub Vec<T>);

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for ListBody<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let RawBody(bytes) = RawBody::from_request_parts(parts, state).await?;
        parse_body(&bytes).map(Self)
    }
}

/// The bytes of a body. [`crate::api`] reads them, once, before the handler runs.
#[derive(Clone)]
pub struct RawBody(pub Bytes);

impl<S: Sync> FromRequestParts<S> for RawBody {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        parts.extensions.remove().ok_or_else(|| Error::internal("a route that reads a body without one"))
    }
}

/// The body of a route without fields: empty, or an empty object.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoFields {}

/// A `T` that must be written as an object. What serde derives for a struct also accepts a list of the fields' values.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }
        deserializer.deserialize_map(Members(PhantomData))
    }
}

/// An object whose members are kept as the text in which they arrived. No member may be given twice.
pub struct Fields<'a>(pub BTreeMap<String, &'a RawValue>);

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = BTreeMap::new();
                while let Some((name, value)) = map.next_entry::<String, &RawValue>()? {
                    if fields.contains_key(&name) {
                        return Err(A::Error::custom(format!("duplicate field `{name}`")));
                    }
                    fields.insert(name, value);
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

/// The maximum time that a body may take to arrive.
const BODY_LIMIT: Duration = Duration::from_secs(30);

/// Reads a whole body. Refuses it if it is compressed, larger than [`MAX_BODY_BYTES`], or takes longer than
/// [`BODY_LIMIT`].
pub(crate) async fn read(headers: &HeaderMap, body: axum::body::Body) -> Result<Bytes> {
    within(BODY_LIMIT, read_all(headers, body)).await.unwrap_or_else(|| {
        let seconds = BODY_LIMIT.as_secs();
        Err(Error::new(Code::RequestTimeout, format!("body: expected within {seconds} seconds")))
    })
}

async fn read_all(headers: &HeaderMap, body: axum::body::Body) -> Result<Bytes> {
    let too_large = || Error::new(Code::TooLarge, format!("body: expected at most {MAX_BODY_BYTES} bytes"));
    let plain = |encoding: &HeaderValue| encoding.as_bytes().eq_ignore_ascii_case(b"identity");
    if !headers.get_all(CONTENT_ENCODING).iter().all(plain) {
        return Err(Error::new(Code::UnsupportedMediaType, "content-encoding: expected none"));
    }
    // A length that does not fit into a `usize`, which has 32 bits in WebAssembly, is too large as well.
    let announced: u64 = headers
        .get(CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok())
        .and_then(|length| length.parse().ok())
        .unwrap_or_default();
    let announced = usize::try_from(announced).unwrap_or(usize::MAX);
    if announced > MAX_BODY_BYTES {
        return Err(too_large());
    }
    let mut bytes = Vec::with_capacity(announced);
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk =
            chunk.map_err(|_| Error::new(Code::InvalidRequest, "body: it ended before it was complete"))?;
        if bytes.len().saturating_add(chunk.len()) > MAX_BODY_BYTES {
            return Err(too_large());
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes.into())
}

/// Reads JSON as `T`; an empty body is read as `{}`. A failure names the field.
pub fn parse_body<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<T> {
    let bytes = if bytes.trim_ascii().is_empty() { b"{}" } else { bytes };
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        described(&path, &error.into_inner())
    })?;
    deserializer
        .end()
        .map_err(|_| Error::new(Code::InvalidRequest, "body: expected nothing after the JSON value"))?;
    Ok(value)
}

/// Turns a failure of serde into the form `<field>: what is wrong and what is allowed`.
fn described(path: &str, error: &serde_json::Error) -> Error {
    let message = error.to_string();
    // Without the position: the JSON was probably written by a program.
    let message = message.split_once(" at line ").map_or(message.as_str(), |(message, _)| message);
    if !error.is_data() {
        return Error::invalid("body", format!("not valid JSON: {error}"));
    }
    let field = |name: &str| match path.rsplit_once('.') {
        _ if path == "." => name.to_owned(),
        Some((parent, last)) if last == name => format!("{parent}.{name}"),
        _ if path == name => name.to_owned(),
        _ => format!("{path}.{name}"),
    };
    if let Some((name, allowed)) =
        message.strip_prefix("unknown field `").and_then(|rest| rest.split_once('`'))
    {
        let allowed = allowed.trim_start_matches([',', ' ']).replace('`', "");
        Error::invalid(&field(name), format!("unknown field; {allowed}"))
    } else if let Some(name) = message.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`'))
    {
        Error::invalid(&field(name), "required")
    } else if let Some(name) =
        message.strip_prefix("duplicate field `").and_then(|rest| rest.strip_suffix('`'))
    {
        Error::invalid(&field(name), "given more than once")
    } else {
        Error::invalid(if path == "." { "body" } else { path }, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::values::{CreditCount, GroupName, TeamId};
    use serde::Deserialize;

    #[derive(Deserialize, Debug)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only reading matters here")]
    struct Team {
        team_id: TeamId,
        credits: Option<CreditCount>,
        #[serde(default)]
        groups: Vec<Object<Group>>,
    }

    #[derive(Deserialize, Debug)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only reading matters here")]
    struct Group {
        name: GroupName,
    }

    fn refusal(body: &str) -> String {
        parse_body::<Object<Team>>(body.as_bytes()).map(|Object(team)| team).unwrap_err().detail.clone()
    }

    #[test]
    fn a_refusal_names_the_field_and_what_is_allowed() {
        assert_eq!(refusal(""), "team_id: required");
        assert_eq!(refusal(r#"{"team_id": "a b"}"#), "team_id: expected 1 to 128 of A-Z a-z 0-9 _ . -");
        assert_eq!(refusal(r#"{"team_id": 5}"#), "team_id: invalid type: integer `5`, expected a string");
        assert_eq!(
            refusal(r#"{"team_id": "a", "credit": 1}"#),
            "credit: unknown field; expected one of team_id, credits, groups"
        );
        assert_eq!(
            refusal(r#"{"team_id": "a", "credits": 1.5}"#),
            "credits: expected a whole number from 0 to 1000000000"
        );
        assert_eq!(refusal(r#"{"team_id": "a", "groups": [{"name": "b"}, {}]}"#), "groups[1].name: required");
        assert_eq!(
            refusal(r#"{"team_id": "a", "groups": [{"name": "b", "x": 1}]}"#),
            "groups[0].x: unknown field; expected name"
        );
        assert_eq!(refusal(r#"{"team_id": "a", "team_id": "b"}"#), "team_id: given more than once");
        for list in [r#"["a", 1, []]"#, r#"{"team_id": "a", "groups": [["b"]]}"#] {
            assert!(
                refusal(list).ends_with("invalid type: sequence, expected an object"),
                "{}",
                refusal(list)
            );
        }
        assert!(refusal("{").starts_with("body: not valid JSON: "));
        assert!(refusal(r#"{"team_id": "a"} x"#).starts_with("body: "));
    }
}
