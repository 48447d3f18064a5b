//! Money: exact decimals, never floats.

use rust_decimal::Decimal;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use serde_json::value::RawValue;
use std::{fmt, str::FromStr};

/// An amount in US dollars. In JSON it is a number, read from and written as its decimal text, so that no digit passes
/// through a float.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Usd(pub Decimal);

impl Usd {
    /// No money.
    pub const ZERO: Usd = Usd(Decimal::ZERO);

    /// The sum.
    pub fn saturating_add(self, other: Usd) -> Usd {
        Usd(self.0.saturating_add(other.0))
    }

    /// Reads a decimal number, also in scientific notation: LiteLLM prints costs as Python prints floats (`1.32e-05`).
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        // A number with more than the 28 decimals of a `Decimal` is rounded.
        Decimal::from_str_exact(text)
            .or_else(|_| Decimal::from_scientific(text))
            .or_else(|_| text.parse())
            .ok()
            .map(Self)
    }

    /// Reads the cost of a call as LiteLLM tells it: 0 to 1,000,000 US dollars, rounded to twelve decimals, since
    /// LiteLLM calculates with floats.
    pub fn cost(text: &str) -> Option<Self> {
        Usd::parse(text)?.plausible_cost()
    }

    /// The amount as the cost of a call, if it can be one: see [`Usd::cost`].
    pub fn plausible_cost(self) -> Option<Self> {
        let plausible = (Decimal::ZERO..=Decimal::from(1_000_000)).contains(&self.0);
        plausible.then(|| Usd(self.0.round_dp(12).normalize()))
    }

    /// [`Usd::parse`] of a text that is short enough to be read without rounding: a caller's number is accepted exactly
    /// or not at all.
    pub fn parse_exactly(text: &str) -> Option<Self> {
        Usd::parse(text).filter(|_| text.len() <= 28)
    }
}

impl FromStr for Usd {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Usd::parse(text).ok_or("expected an amount in US dollars")
    }
}

impl fmt::Display for Usd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Usd {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        RawValue::from_string(self.0.normalize().to_string())
            .map_err(serde::ser::Error::custom)?
            .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Usd {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        Usd::parse(raw.get()).ok_or_else(|| D::Error::custom("expected an amount in US dollars, as a number"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_read_as_litellm_prints_them() {
        for (text, expected) in
            [("0.00025", "0.00025"), ("1.32e-05", "0.0000132"), ("0", "0"), (" 2.5 ", "2.5")]
        {
            assert_eq!(Usd::parse(text).map(|usd| usd.to_string()).as_deref(), Some(expected));
        }
        for text in ["", "None", "nan", "1,5"] {
            assert_eq!(Usd::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_cost_is_plausible_and_rounded() {
        for (text, expected) in [
            ("0.0000092999999999999995", Some("0.0000093")),
            ("1e6", Some("1000000")),
            ("0", Some("0")),
            ("1e-13", Some("0")),
            ("-0.01", None),
            ("1000000.01", None),
            ("1e300", None),
            ("inf", None),
        ] {
            assert_eq!(Usd::cost(text).map(|usd| usd.to_string()).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn an_amount_passes_through_json_digit_by_digit() {
        let text = "[0.1000000000000000000001,12345678901234567.89,null]";
        let amounts: Vec<Option<Usd>> = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&amounts).unwrap(), text);
    }
}
