//! The values that bodies and queries are made of.

use crate::money::Usd;
use rust_decimal::prelude::ToPrimitive;
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use serde_json::value::RawValue;
use std::fmt;

/// Text of 1 to `MAX` characters without control characters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Text<const MAX: usize>(String);

/// A short free text: types, purposes, user ids, aliases.
pub type Label = Text<200>;

/// A name for people.
pub type Name = Text<500>;

impl<const MAX: usize> Text<MAX> {
    /// The text itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<const MAX: usize> TryFrom<String> for Text<MAX> {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let allowed = format!("expected 1 to {MAX} characters, none of them a control character");
        if text.trim().is_empty() || text.chars().count() > MAX || text.chars().any(char::is_control) {
            Err(allowed)
        } else {
            Ok(Self(text))
        }
    }
}

impl<'de, const MAX: usize> Deserialize<'de> for Text<MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.try_into().map_err(D::Error::custom)
    }
}

impl<const MAX: usize> fmt::Display for Text<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Text of 1 to 10,000 characters of any kind but U+0000: descriptions, reasons, what a program caught.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Prose(String);

impl Prose {
    /// For a field in which blank text counts as none: programs send what they caught, which may say nothing.
    pub fn unless_blank<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Self>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?.filter(|text| !text.trim().is_empty());
        text.map(Self::try_from).transpose().map_err(D::Error::custom)
    }
}

impl TryFrom<String> for Prose {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if !text.trim().is_empty() && text.chars().count() <= 10_000 && !text.contains('\0') {
            Ok(Self(text))
        } else {
            Err("expected 1 to 10000 characters, not all of them blank and none of them U+0000")
        }
    }
}

impl<'de> Deserialize<'de> for Prose {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.try_into().map_err(D::Error::custom)
    }
}

impl fmt::Display for Prose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An id that the caller chooses: `organization_id`, `team_id`, `group_name`. 1 to 128 of `A-Z a-z 0-9 _ . -`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Slug(String);

impl Slug {
    /// The id itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// An id made from a name: lower case, and `-` for each run of other characters. Never empty.
    pub fn from_name(name: &str) -> Self {
        let words: Vec<String> = name
            .split(|c: char| !c.is_ascii_alphanumeric())
            .filter(|word| !word.is_empty())
            .map(str::to_ascii_lowercase)
            .collect();
        let id: String = words.join("-").chars().take(100).collect();
        Self(if id.is_empty() { "org".into() } else { id })
    }
}

impl TryFrom<String> for Slug {
    type Error = &'static str;

    fn try_from(id: String) -> Result<Self, Self::Error> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        if (1..=128).contains(&id.len()) && id.chars().all(allowed) {
            Ok(Self(id))
        } else {
            Err("expected 1 to 128 of A-Z a-z 0-9 _ . -")
        }
    }
}

impl<'de> Deserialize<'de> for Slug {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.try_into().map_err(D::Error::custom)
    }
}

impl fmt::Display for Slug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Any JSON object of up to 16 KiB, kept as the text it came as. Its strings are text, so they hold neither U+0000 nor unpaired
/// surrogates.
#[derive(Debug, Clone, Serialize)]
#[serde(transparent)]
pub struct Metadata(Box<RawValue>);

impl Metadata {
    const MAX_BYTES: usize = 16 * 1024;
}

impl Default for Metadata {
    fn default() -> Self {
        Self(RawValue::from_string("{}".into()).unwrap_or_else(|_| RawValue::NULL.to_owned()))
    }
}

impl<'de> Deserialize<'de> for Metadata {
    /// `null` is read as the empty object.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        match raw.get() {
            "null" => Ok(Self::default()),
            text if !text.starts_with('{') => Err(D::Error::custom("expected a JSON object")),
            text if text.len() > Self::MAX_BYTES => {
                Err(D::Error::custom(format!("expected at most {} bytes of JSON", Self::MAX_BYTES)))
            }
            _ => check_storable(&raw).map_err(D::Error::custom).map(|()| Self(raw)),
        }
    }
}

/// Refuses JSON whose strings are no text to PostgreSQL.
pub fn check_storable(json: &RawValue) -> Result<(), &'static str> {
    if is_storable(json.get()) {
        Ok(())
    } else {
        Err("expected text without U+0000 and without unpaired surrogates")
    }
}

/// Whether the strings of this JSON are text to PostgreSQL. Only an escape can bring in what is none: U+0000, or half of a pair
/// of surrogates.
fn is_storable(json: &str) -> bool {
    let code_unit = |escape: &str| u16::from_str_radix(escape.get(2..6)?, 16).ok();
    let mut rest = json;
    while let Some(escape) = rest.find('\\').and_then(|at| rest.get(at..)) {
        let length = if !escape.starts_with("\\u") {
            2
        } else {
            match code_unit(escape) {
                None | Some(0 | 0xDC00..=0xDFFF) => return false,
                Some(0xD800..=0xDBFF) => {
                    match escape.get(6..).filter(|low| low.starts_with("\\u")).and_then(code_unit) {
                        Some(0xDC00..=0xDFFF) => 12,
                        _ => return false,
                    }
                }
                Some(_) => 6,
            }
        };
        rest = escape.get(length..).unwrap_or_default();
    }
    true
}

impl fmt::Display for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.get())
    }
}

/// For a field that may be left out, or `null`: which of them it was.
pub fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// A whole number between `min` and `max`, written with a fraction of zero or not (`100.0` is 100: one guide sends amounts so).
pub fn integer<'de, D: Deserializer<'de>>(deserializer: D, min: i64, max: i64) -> Result<i64, D::Error> {
    let raw = Box::<RawValue>::deserialize(deserializer)?;
    Usd::parse_exactly(raw.get())
        .filter(|number| number.0.fract().is_zero())
        .and_then(|number| number.0.to_i64())
        .filter(|number| (min..=max).contains(number))
        .ok_or_else(|| D::Error::custom(format!("expected a whole number from {min} to {max}")))
}

/// A number of credits to allocate or ask for: 0 to 1,000,000,000.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Credits(pub i64);

impl<'de> Deserialize<'de> for Credits {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        integer(deserializer, 0, 1_000_000_000).map(Self)
    }
}

/// A number of credits to add: 1 to 1,000,000,000.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Amount(pub i64);

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        integer(deserializer, 1, 1_000_000_000).map(Self)
    }
}

/// A duration in whole seconds, from one second to `MAX` seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seconds<const MAX: i64>(pub i32);

impl<'de, const MAX: i64> Deserialize<'de> for Seconds<MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let seconds = integer(deserializer, 1, MAX)?;
        i32::try_from(seconds).map(Self).map_err(|_| D::Error::custom("too many seconds"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_1_to_128_of_its_characters() {
        for id in ["a", "org_1.A-b", &"x".repeat(128)] {
            assert!(Slug::try_from(id.to_owned()).is_ok(), "{id}");
        }
        for id in ["", "a b", "a/b", "é", "a\0", &"x".repeat(129)] {
            assert!(Slug::try_from(id.to_owned()).is_err(), "{id}");
        }
    }

    #[test]
    fn an_id_made_from_a_name_is_valid() {
        for (name, id) in [("Acme Corp", "acme-corp"), ("  ACME, Inc.  ", "acme-inc"), ("日本", "org")] {
            assert_eq!(Slug::from_name(name).as_str(), id);
        }
        assert!(Slug::try_from(Slug::from_name(&"long ".repeat(100)).to_string()).is_ok());
    }

    #[test]
    fn amounts_are_whole_whatever_their_notation() {
        for (text, expected) in [("100", 100), ("100.0", 100), ("1e2", 100), ("0", 0)] {
            assert_eq!(serde_json::from_str::<Credits>(text).unwrap(), Credits(expected), "{text}");
        }
        for text in ["1.5", "-1", "1e30", "\"5\"", "null", "true", "1000000001"] {
            assert!(serde_json::from_str::<Credits>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn metadata_keeps_its_text() {
        let text = r#"{"b": 1.0, "a": {"\u00e9\ud83d\ude00": 12345678901234567890}}"#;
        assert_eq!(serde_json::from_str::<Metadata>(text).unwrap().to_string(), text);
        assert_eq!(serde_json::from_str::<Metadata>("null").unwrap().to_string(), "{}");
        for text in [
            "[]",
            "1",
            "\"{}\"",
            r#"{"a":"\u0000"}"#,
            r#"{"\ud800":1}"#,
            &format!("{{\"a\":\"{}\"}}", "x".repeat(16 * 1024)),
        ] {
            assert!(serde_json::from_str::<Metadata>(text).is_err());
        }
    }
}
