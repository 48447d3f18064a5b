//! JSON that a caller stores with an object of the API.

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use serde_json::value::RawValue;
use std::fmt;

/// A JSON object of up to 16 KiB, kept as the text in which it arrived. Its strings must be storable by PostgreSQL:
/// without U+0000 and unpaired surrogates.
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
    /// Reads an object; `null` is read as the empty object.
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

/// Refuses JSON whose strings PostgreSQL can't store.
pub fn check_storable(json: &RawValue) -> Result<(), &'static str> {
    if is_storable(json.get()) {
        Ok(())
    } else {
        Err("expected text without U+0000 and without unpaired surrogates")
    }
}

/// Whether PostgreSQL can store the strings of this JSON. Only an escape can stand for what it can't store: U+0000, or
/// one half of a surrogate pair.
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

#[cfg(test)]
mod tests {
    use super::*;

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
