//! Amounts of money in answers, digit by digit: read as JSON numbers they would pass through floats.

use rust_decimal::Decimal;
use serde_json::value::RawValue;
use shared::values::Usd;
use std::collections::BTreeMap;

/// The members of a JSON object, as the text that they are.
pub fn members(object: &str) -> BTreeMap<String, Box<RawValue>> {
    serde_json::from_str(object).unwrap_or_else(|error| panic!("{error}: {object}"))
}

/// The amount at this path of a JSON object; `None` where it is `null`.
pub fn known_amount(object: &str, path: &[&str]) -> Option<Decimal> {
    let (name, rest) = path.split_first().expect("a path");
    let value = members(object).remove(*name).unwrap_or_else(|| panic!("no {name}: {object}"));
    match rest {
        [] if value.get() == "null" => None,
        [] => Some(Usd::parse(value.get()).unwrap_or_else(|| panic!("no amount: {value}")).0),
        rest => known_amount(value.get(), rest),
    }
}

/// The amount at this path of a JSON object, where it must be known.
pub fn amount(object: &str, path: &[&str]) -> Decimal {
    known_amount(object, path).unwrap_or_else(|| panic!("{path:?} is null: {object}"))
}

/// A decimal number as it is written.
pub fn decimal(text: &str) -> Decimal {
    Usd::parse(text).unwrap_or_else(|| panic!("no amount: {text}")).0
}
