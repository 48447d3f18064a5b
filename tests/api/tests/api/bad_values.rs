//! Values that are wrong for a field of a route.

use serde_json::{Value, json};

/// Field, bad value, what the refusal mentions.
pub type Bad = (&'static str, Value, &'static str);

/// Values that are wrong for an id that the caller chooses.
fn bad_ids(field: &'static str) -> Vec<Bad> {
    let values = [
        json!(""),
        json!("a b"),
        json!("a/b"),
        json!("é"),
        json!("a\u{0}"),
        json!("x".repeat(129)),
        json!("a\n"),
    ];
    let mut bad: Vec<Bad> =
        values.into_iter().map(|value| (field, value, "1 to 128 of A-Z a-z 0-9 _ . -")).collect();
    bad.extend([json!(5), json!(["a"]), json!({}), json!(true)].map(|value| (field, value, "")));
    bad
}

/// Values that are wrong for a text of at most `most` characters.
fn bad_texts(field: &'static str, most: usize) -> Vec<Bad> {
    let values = [
        json!(""),
        json!("  "),
        json!("a\u{0}b"),
        json!("x".repeat(most + 1)),
        json!(5),
        json!([]),
        json!({}),
    ];
    values.into_iter().map(|value| (field, value, "")).collect()
}

fn bad_metadata(field: &'static str) -> Vec<Bad> {
    let mut bad: Vec<Bad> = [json!([]), json!("{}"), json!(1)].map(|value| (field, value, "object")).to_vec();
    bad.push((field, json!({"a": "x".repeat(16 * 1024)}), "16384"));
    bad
}

/// Values that are wrong for a whole number.
fn bad_integers(field: &'static str, allowed: &'static str) -> Vec<Bad> {
    [json!(-1), json!(1.5), json!("5"), json!(1e12), json!(true), json!([1])]
        .map(|value| (field, value, allowed))
        .to_vec()
}

/// What is wrong for the route of this path.
pub fn bad_values(path: &str) -> Vec<Bad> {
    let models = |models: Value| ("models", models, "");
    let model = |change: Value| {
        let mut model = json!({"model_name": "gpt-4o", "priority": 0});
        model.as_object_mut().expect("an object").extend(change.as_object().expect("an object").clone());
        json!([model])
    };
    let bad: Vec<Vec<Bad>> = match path.rsplit('/').nth(1).unwrap_or_default() {
        "organizations" => vec![
            bad_ids("organization_id"),
            bad_ids("litellm_organization_id"),
            bad_texts("name", 500),
            bad_metadata("metadata"),
        ],
        "model-groups" => vec![
            bad_ids("group_name"),
            bad_texts("display_name", 500),
            bad_texts("description", 10_000),
            bad_metadata("metadata"),
            [json!([]), json!({}), json!("gpt-4o")].map(models).to_vec(),
            vec![
                (
                    "models",
                    json!([{"model_name": "a", "priority": 0}, {"model_name": "b", "priority": 0}]),
                    "priority",
                ),
                ("models[0].model_name", model(json!({"model_name": ""})), ""),
                ("models[0].model_name", json!([{"priority": 0}]), "required"),
                ("models[0].priority", json!([{"model_name": "a"}]), "required"),
                ("models[0].priority", model(json!({"priority": -1})), ""),
                ("models[0].priority", model(json!({"priority": "first"})), ""),
                ("models[0].weight", model(json!({"weight": 1})), "unknown"),
                ("models[0].config.temperature", model(json!({"config": {"temperature": 3}})), "0 to 2"),
                ("models[0].config.timeout_ms", model(json!({"config": {"timeout_ms": 0}})), "1 to 3600000"),
                ("models[0].config.api_base", model(json!({"config": {"api_base": "http://x"}})), "unknown"),
            ],
        ],
        "model-access-groups" => vec![
            bad_ids("group_name"),
            bad_texts("display_name", 500),
            vec![
                ("model_groups[0]", json!(["a b"]), "1 to 128"),
                ("models[0]", json!([""]), ""),
                ("models", json!([]), ""),
            ],
        ],
        "teams" => vec![
            bad_ids("organization_id"),
            bad_ids("team_id"),
            bad_texts("team_alias", 500),
            bad_ids("default_model_group"),
            bad_metadata("metadata"),
            bad_integers("credits_allocated", "0 to 1000000000"),
            bad_integers("credit_limit", "0 to 1000000000"),
            bad_integers("rpm_limit", "1 to 1000000000"),
            bad_integers("tpm_limit", "1 to 1000000000"),
            vec![
                ("rpm_limit", json!(0), "1 to"),
                ("budget_mode", json!("medium"), "hard"),
                ("budget_duration", json!("soon"), "30d"),
                ("budget_duration", json!("0d"), "30d"),
                ("budget_duration", json!(30), ""),
                ("max_budget", json!(-1), "from 0 to 1000000000"),
                ("max_budget", json!("10"), ""),
                ("max_budget", json!([]), ""),
                ("model_groups", json!("Chat"), ""),
                ("model_groups[1]", json!(["a", "a b"]), "1 to 128"),
                ("access_groups[0]", json!([7]), ""),
            ],
        ],
        _ if path.ends_with("/add") => vec![
            bad_integers("credits_amount", "1 to 1000000000"),
            bad_texts("reason", 10_000),
            bad_metadata("metadata"),
            vec![
                ("credits_amount", json!(0), "1 to 1000000000"),
                ("credits_amount", json!(1_000_000_001), "1000000000"),
            ],
        ],
        _ if path.ends_with("/check") => vec![bad_integers("credits_required", "to 1000000000")],
        "jobs" => vec![
            bad_ids("team_id"),
            bad_texts("job_type", 200),
            bad_texts("user_id", 200),
            bad_metadata("metadata"),
            bad_integers("expires_in_seconds", "1 to 2592000"),
            vec![
                ("expires_in_seconds", json!(0), "1 to 2592000"),
                ("expires_in_seconds", json!(2_592_001), "2592000"),
            ],
        ],
        _ if path.ends_with("/complete") => vec![
            bad_metadata("metadata"),
            ["pending", "in_progress", "expired", "done", "Completed", ""]
                .map(|status| ("status", json!(status), "completed"))
                .to_vec(),
            vec![
                ("status", json!(1), ""),
                ("error_message", json!(7), ""),
                ("error_message", json!("a\u{0}b"), ""),
                ("error_message", json!("x".repeat(10_001)), "10000"),
            ],
        ],
        _ => vec![],
    };
    bad.into_iter().flatten().collect()
}
