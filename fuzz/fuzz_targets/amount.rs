//! Amounts of money, as LiteLLM prints them and as callers send them.
//!
//! * What is read, printed and read again is the same amount, also through JSON.
//! * It is the number that was meant: a float, read from the same text, is near.
//! * Every float from 1e-16 to 1e28 can be read, in both notations that programs print.
//! * Whole numbers keep their bounds.
#![no_main]

use libfuzzer_sys::fuzz_target;
use shared::values::{CreditCount, Usd};

fuzz_target!(|text: &str| {
    if let Some(amount) = Usd::parse(text) {
        let printed = amount.to_string();
        assert_eq!(Usd::parse(&printed), Some(amount), "{printed}");
        let json = serde_json::to_string(&amount).expect("JSON");
        assert_eq!(serde_json::from_str::<Usd>(&json).expect("an amount"), amount);
        // Sums don't panic, at the bounds neither.
        _ = amount.saturating_add(amount).saturating_add(Usd::ZERO);
    }
    let Ok(meant) = text.trim().parse::<f64>() else { return };
    // Longer ones have digits that are rounded away.
    if text.len() <= 24
        && let Some(amount) = Usd::parse(text)
    {
        assert_near(amount, meant, text);
    }
    if (1e-16..1e28).contains(&meant.abs()) {
        for printed in [format!("{meant}"), format!("{meant:e}")] {
            let amount = Usd::parse(&printed).unwrap_or_else(|| panic!("{printed} was not read"));
            assert_near(amount, meant, &printed);
        }
    }
    if let Ok(credits) = serde_json::from_str::<CreditCount>(text) {
        let credits = credits.get();
        assert!((0..=1_000_000_000).contains(&credits));
        assert!((meant - credits as f64).abs() < 1e-18, "{text} was read as {credits}");
    }
});

fn assert_near(amount: Usd, meant: f64, text: &str) {
    let amount: f64 = amount.to_string().parse().expect("a number");
    assert!((amount - meant).abs() <= meant.abs() * 1e-11 + 1e-27, "{text} was read as {amount}");
}
