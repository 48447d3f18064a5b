//! What is hidden from teams, and whether LiteLLM is put right.

use super::{Audit, rules, told};
use crate::{
    history::{By, Kind, NEVER, Record, StreamEnd},
    model::Interval,
    operations::WRONG,
    storm::Part,
};
use serde_json::Value;

impl Audit<'_> {
    pub(super) fn visibility(&mut self) {
        for record in self.history {
            if let (By::Key(_), false) = (record.by, record.kind == Kind::Intrude) {
                self.costs_are_hidden(record);
            }
            if record.kind == Kind::Resolve && record.heard.is_ok() {
                self.models_are_hidden(record);
            }
            if record.kind == Kind::Resync && record.heard.is_ok() && !record.heard.replayed {
                self.was_put_right(record);
            }
        }
    }

    fn costs_are_hidden(&mut self, record: &Record) {
        let visible = self.teams[record.team].costs_visible;
        let bodies = match &record.heard.stream {
            Some(StreamEnd::Done(body) | StreamEnd::Failed(body)) => body,
            _ => &record.heard.body,
        };
        let usage = record.kind == Kind::ReadUsage && record.heard.is_ok();
        if (shows_costs(bodies) && !visible) || (usage && visible && !shows_costs(bodies)) {
            self.violated(rules::HIDDEN, format!("{}: {bodies}", told(record)));
        }
    }

    fn models_are_hidden(&mut self, record: &Record) {
        let visible = record.by == By::Admin || self.teams[record.team].models_visible;
        let body = &record.heard.body;
        let shown = body["primary_model"].is_string() && body["fallback_models"] != Value::Array(vec![]);
        let hidden = body["primary_model"].is_null() && body["fallback_models"] == Value::Array(vec![]);
        if body["team_has_access"] != true || !(if visible { shown } else { hidden }) {
            self.violated(rules::HIDDEN, format!("{}: {body}", told(record)));
        }
    }

    /// What was wrong on purpose is told, and no key is lost. While nothing else changes LiteLLM, nothing else is
    /// wrong.
    fn was_put_right(&mut self, record: &Record) {
        let body = &record.heard.body;
        let changed: Vec<&str> =
            body["changed"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let team = &self.teams[record.team];
        // What failed earlier may have left LiteLLM behind.
        let began = self.history.iter().map(|record| record.start).min().unwrap_or(record.start);
        let since = Interval::new(began, record.end);
        let failed = self.faults.iter().any(|fault| fault.during.overlaps(since));
        let others = [Kind::Add, Kind::Adjust, Kind::Suspend, Kind::Resume, Kind::Rotate, Kind::Revoke];
        let meanwhile = self.history.iter().any(|other| {
            other.team == record.team
                && others.contains(&other.kind)
                && Interval::new(other.start, if other.heard.is_ok() { other.end } else { NEVER })
                    .overlaps(Interval::new(record.start, record.end))
        });
        if failed || meanwhile || self.meets(record, Part::LiteLlm) {
            return;
        }
        let wrong = record.tag.starts_with(WRONG);
        // What credits are worth is told by the next call.
        let is_budget = |what: &&str| what.ends_with(".max_budget");
        let right = body["keys_to_rotate"] == Value::Array(vec![])
            && (!wrong || changed.contains(&"team.max_budget"))
            && changed.iter().all(|what| is_budget(what) && (wrong || team.derives_budget));
        if !right {
            self.violated(rules::RESYNC, format!("{}: {body}", told(record)));
        }
    }
}

/// Whether a body has a cost or a price anywhere.
fn shows_costs(body: &Value) -> bool {
    match body {
        Value::Object(members) => members.iter().any(|(name, value)| {
            let is_cost = ["cost", "spend", "remaining_budget", "revenue", "margin"]
                .iter()
                .any(|word| name.contains(word));
            (is_cost && (value.is_number() || value.is_string())) || shows_costs(value)
        }),
        Value::Array(elements) => elements.iter().any(shows_costs),
        _ => false,
    }
}
