//! Bodies of the routes that manage: every kind of value that they are made of.
//!
//! * What is accepted, written again and read again is the same, so nothing is valid on one way only.
//! * Values keep their bounds, whatever notation they came in. Nothing that PostgreSQL can't hold gets through.
//! * A refusal names its field.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde::{Deserialize, Serialize};
use shared::{
    http::{NoFields, Object, parse_body},
    values::{
        Amount, BillingMode, BudgetMode, CreditCount, Label, Limit, Metadata, Name, Prose, TeamId, Whole,
    },
};
use values::{Budget, BudgetDuration, Pricing, Rate};

#[path = "../../components/tenancy/src/teams/values.rs"]
#[allow(dead_code, reason = "what only the component needs")]
mod values;

/// A field of each kind.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    id: Option<TeamId>,
    label: Option<Label>,
    name: Option<Name>,
    prose: Option<Prose>,
    #[serde(default, deserialize_with = "Prose::unless_blank")]
    message: Option<Prose>,
    #[serde(default)]
    ids: Vec<TeamId>,
    #[serde(default)]
    metadata: Metadata,
    credits: Option<CreditCount>,
    #[serde(skip_serializing)]
    amount: Option<Amount>,
    #[serde(skip_serializing)]
    seconds: Option<Whole<1, 2_592_000>>,
    budget_mode: Option<BudgetMode>,
    billing_mode: Option<BillingMode>,
    budget_duration: Option<BudgetDuration>,
    budget: Option<Budget>,
    rate: Option<Rate>,
    limit: Option<Limit>,
    pricing: Option<Pricing>,
}

fuzz_target!(|body: &[u8]| {
    match parse_body::<Object<Fields>>(body) {
        Ok(Object(fields)) => check(&fields),
        Err(refusal) => fuzz::assert_refusal(refusal),
    }
    if let Err(refusal) = parse_body::<Vec<TeamId>>(body) {
        fuzz::assert_refusal(refusal);
    }
    if let Err(refusal) = parse_body::<Object<NoFields>>(body) {
        fuzz::assert_refusal(refusal);
    }
});

fn check(fields: &Fields) {
    let written = serde_json::to_string(fields).expect("JSON");
    let Object(again) = parse_body::<Object<Fields>>(written.as_bytes())
        .unwrap_or_else(|error| panic!("{}: {written}", error.detail));
    assert_eq!(serde_json::to_string(&again).expect("JSON"), written);
    assert!(fields.credits.is_none_or(|credits| (0..=1_000_000_000).contains(&credits.get())));
    assert!(fields.amount.is_none_or(|amount| (1..=1_000_000_000).contains(&amount.get())));
    assert!(fields.seconds.is_none_or(|seconds| (1..=2_592_000).contains(&seconds.get())));
    assert!(fields.limit.is_none_or(|limit| (1..=1_000_000_000).contains(&limit.get())));
    for text in [fields.label.as_ref().map(Label::as_str), fields.name.as_ref().map(Name::as_str)]
        .into_iter()
        .flatten()
    {
        assert!(!text.trim().is_empty() && !text.chars().any(char::is_control));
    }
    // Metadata is kept as it came; everything else came through serde's strings.
    let metadata = fields.metadata.to_string();
    assert!(metadata.len() <= 16 * 1024 && metadata.starts_with('{'));
    assert!(!written.contains("\\u0000"), "{written}");
}
