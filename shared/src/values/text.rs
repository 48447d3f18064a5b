//! Text.

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use std::fmt;

/// The first characters of a text, at most `most` of them, the last of which is `…` where the text is longer.
pub fn shortened(text: &str, most: usize) -> String {
    if text.chars().nth(most).is_none() {
        return text.to_owned();
    }
    text.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}

/// Text of 1 to `MAX` characters, not all of them blank, without control characters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Text<const MAX: usize>(String);

/// A short text, such as a type, a purpose, a user id or an alias: 1 to 200 characters.
pub type Label = Text<200>;

/// A name for people: 1 to 500 characters.
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

/// Text of 1 to 10,000 characters, not all of them blank, without U+0000: a description, a reason or an error message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Prose(String);

impl Prose {
    /// Reads a field in which blank text counts as none: programs send error messages, which may be blank.
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
