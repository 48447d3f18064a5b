//! Whole numbers in a range.

use super::Usd;
use rust_decimal::prelude::ToPrimitive;
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use serde_json::value::RawValue;

/// A whole number from `MIN` to `MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Whole<const MIN: i64, const MAX: i64>(i64);

/// A number of credits that may be 0: 0 to 1,000,000,000.
pub type CreditCount = Whole<0, 1_000_000_000>;

/// A number of credits to add: 1 to 1,000,000,000.
pub type Amount = Whole<1, 1_000_000_000>;

/// A limit of requests, tokens or jobs: 1 to 1,000,000,000.
pub type Limit = Whole<1, 1_000_000_000>;

/// The tokens that a provider says a call has used: 0 to 1,000,000,000.
pub type TokenCount = Whole<0, 1_000_000_000>;

impl<const MIN: i64, const MAX: i64> Whole<MIN, MAX> {
    /// A number that is checked at compile time to be in the range.
    pub const fn new(number: i64) -> Self {
        assert!(MIN <= number && number <= MAX);
        Self(number)
    }

    /// The greatest number of the range.
    pub const MAX: i64 = MAX;

    /// The number.
    pub const fn get(self) -> i64 {
        self.0
    }

    /// The number for a parameter of PostgreSQL's type `integer`. Types with a greater `MAX` have no such parameters.
    pub fn as_i32(self) -> i32 {
        i32::try_from(self.0).unwrap_or(i32::MAX)
    }

    /// All numbers of the range, ascending.
    pub fn all() -> impl Iterator<Item = Self> {
        (MIN..=MAX).map(Self)
    }

    /// Reads the number from text, as it stands in a query.
    pub fn from_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().ok().and_then(Self::checked).ok_or_else(|| D::Error::custom(expected(MIN, MAX)))
    }

    /// [`Whole::from_text`] for a parameter that may be left out.
    pub fn optional_from_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Self>, D::Error> {
        Self::from_text(deserializer).map(Some)
    }

    fn checked(number: i64) -> Option<Self> {
        (MIN..=MAX).contains(&number).then_some(Self(number))
    }
}

impl<'de, const MIN: i64, const MAX: i64> Deserialize<'de> for Whole<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        whole(raw.get()).and_then(Self::checked).ok_or_else(|| D::Error::custom(expected(MIN, MAX)))
    }
}

/// The whole number that a JSON number is, with a fraction of zero or without one: `100.0` is 100, which some clients
/// send.
fn whole(json: &str) -> Option<i64> {
    Usd::parse_exactly(json).filter(|number| number.0.fract().is_zero()).and_then(|number| number.0.to_i64())
}

fn expected(min: i64, max: i64) -> String {
    format!("expected a whole number from {min} to {max}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_whole_and_in_their_range_whatever_their_notation() {
        for (text, expected) in [("100", 100), ("100.0", 100), ("1e2", 100), ("0", 0)] {
            assert_eq!(serde_json::from_str::<CreditCount>(text).unwrap().get(), expected, "{text}");
        }
        for text in ["1.5", "-1", "1e30", "\"5\"", "null", "true", "1000000001"] {
            assert!(serde_json::from_str::<CreditCount>(text).is_err(), "{text}");
        }
    }
}
