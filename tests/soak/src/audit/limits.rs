//! Limits hold, and refuse only what they do not allow.

use super::{Audit, rules, told};
use crate::{
    history::{Kind, Micros, NEVER, Record},
    model::Interval,
    state::Call,
    team::{FALLS_BACK, TIMES_OUT, USD_PER_CREDIT},
};
use std::{collections::BTreeMap, time::Duration};

/// What happens within this time may be of the same instant.
pub const SAME_INSTANT: Duration = Duration::from_millis(300);

/// A minute of the clock, over which calls are counted.
const MINUTE: Micros = 60_000_000;

/// How long LiteLLM may take to notice that a call is no longer read.
const UNREAD: Micros = 15_000_000;

/// How many of the requests that end what is overdue pass until one surely has ended it: each leaves out what is
/// locked.
const SWEEPS: usize = 5;

impl<'a> Audit<'a> {
    pub(super) fn limits(&mut self) {
        for record in self.history {
            if record.kind == Kind::CountOpen {
                self.counted(record);
            }
        }
        self.made_and_spent();
        for team in 0..self.teams.len() {
            let open = self.open_calls(team);
            for record in self.history.iter().filter(|record| record.team == team && !record.heard.replayed) {
                match record.heard.limit() {
                    Some(limit) => self.limit_is_reached(&open, record, limit),
                    None if record.heard.call.is_some() => self.litellms_limit_is_reached(&open, record),
                    None => {}
                }
            }
        }
    }

    /// What was counted at one instant.
    fn counted(&mut self, record: &Record) {
        let limits = self.teams[record.team].limits;
        let allowed = [
            ("open_jobs", limits.open_jobs),
            ("open_calls", limits.open_calls),
            ("open_calls_per_job", limits.open_calls_per_job),
        ];
        for (name, limit) in allowed {
            let open = record.heard.body[name].as_i64().unwrap_or(NEVER);
            let more = if name == "open_calls" { self.jobs_of_the_same_instant(record) } else { 0 };
            if limit.is_some_and(|limit| open > limit + more) {
                self.violated(rules::LIMIT_HOLDS, format!("{open} {name} in team {}", record.team));
            }
        }
    }

    /// How many jobs were opened while a call began that was open when it was counted. A call that begins then may not
    /// know of them, and the calls in them not of it.
    fn jobs_of_the_same_instant(&self, record: &Record) -> i64 {
        let instant = Micros::try_from(SAME_INSTANT.as_micros()).unwrap_or(NEVER);
        let of_team = |call: &&Call| call.team == record.team && call.opened <= record.end;
        let open = |call: &&Call| call.ended.is_none_or(|ended| ended >= record.start);
        let begun: Vec<Interval> = self
            .state
            .calls
            .values()
            .filter(of_team)
            .filter(open)
            .map(|call| Interval::new(call.opened - instant, call.opened + instant))
            .collect();
        let jobs = self.state.jobs.values().filter(|job| job.team == record.team);
        let opened = jobs.filter_map(|job| self.opened.get(&job.id));
        opened.filter(|opened| begun.iter().any(|begun| begun.overlaps(**opened))).count() as i64
    }

    /// No job has made more calls than it may, no call was opened in a job that had cost its limit, and no more calls
    /// were opened in a minute than may be.
    fn made_and_spent(&mut self) {
        let mut violations = vec![];
        for (job, calls) in &self.calls_of {
            let Some(team) = calls.first().map(|call| call.team) else { continue };
            let limits = self.teams[team].limits;
            if limits.calls_per_job.is_some_and(|limit| calls.len() as i64 > limit) {
                violations.push(format!("{} calls in {job} of team {team}", calls.len()));
            }
            let Some(limit) = limits.cost_usd_per_job else { continue };
            for call in calls {
                let cost: f64 =
                    calls.iter().filter(|other| self.was_paid(other, call)).filter_map(|c| c.cost).sum();
                if cost > limit + 1e-9 {
                    violations.push(format!("{call:?} was opened when {cost} of {limit} had been spent"));
                }
            }
        }
        let mut minutes: BTreeMap<(usize, Micros), i64> = BTreeMap::new();
        for call in self.state.calls.values() {
            // In a call that lasted over the minute's end it is not known in which one it was counted.
            let minute = call.opened / MINUTE;
            if self.answered(call).is_some_and(|end| end / MINUTE == minute) {
                *minutes.entry((call.team, minute)).or_default() += 1;
            }
        }
        for ((team, minute), calls) in minutes {
            if self.teams[team].limits.calls_a_minute.is_some_and(|limit| calls > limit) {
                violations.push(format!("{calls} calls in the minute {minute} in team {team}"));
            }
        }
        for call in self.state.calls.values() {
            let Some(limit) = self.teams[call.team].limits.tokens_a_minute else { continue };
            let minute = call.opened / MINUTE;
            let in_one_minute = self.answered(call).is_some_and(|end| end / MINUTE == minute);
            let used = self.state.calls.values().filter(|other| {
                other.team == call.team
                    && other.settled.is_some_and(|settled| {
                        settled / MINUTE == minute && self.written(settled).to < call.opened
                    })
            });
            let used: i64 = used.map(|other| other.tokens).sum();
            if in_one_minute && used >= limit {
                violations
                    .push(format!("{call:?} was opened when {used} tokens had been used in its minute"));
            }
        }
        for seen in violations {
            self.violated(rules::LIMIT_HOLDS, seen);
        }
    }

    /// When somebody had been answered with this call.
    fn answered(&self, call: &Call) -> Option<Micros> {
        let requests = self.requests(&call.tag).iter();
        requests.filter(|record| record.heard.call == Some(call.id)).map(|record| record.end).min()
    }

    /// Whether a call's cost was surely known before the other one was asked for.
    fn was_paid(&self, call: &Call, other: &Call) -> bool {
        let asked = self.requests(&other.tag).iter().map(|record| record.start).min().unwrap_or(Micros::MIN);
        call.settled.is_some_and(|settled| self.written(settled).to < asked)
            || self.answered(call).is_some_and(|answered| {
                call.settled.is_some_and(|settled| settled <= answered) && answered < asked
            })
    }

    /// The calls of a team, each with the time in which it can have been open for the application.
    fn open_calls(&self, team: usize) -> Vec<(Interval, &'a Call)> {
        let sweeps: Vec<&Record> = self
            .history
            .iter()
            .filter(|record| record.heard.is_ok() && !record.heard.replayed)
            .filter(|record| match record.kind {
                Kind::Expire => true,
                Kind::CreateJob | Kind::ReadBalance | Kind::ListJobs => record.team == team,
                _ => false,
            })
            .collect();
        let swept = |deadline: Micros| {
            let after = sweeps.iter().filter(|record| record.start > deadline);
            let ends: Vec<Micros> = after.take(SWEEPS).map(|record| record.end).collect();
            if ends.len() < SWEEPS { NEVER } else { ends.into_iter().max().unwrap_or(NEVER) }
        };
        let state = self.state;
        let calls = state.calls.values().filter(|call| call.team == team);
        calls
            .map(|call| {
                let to = match call.ended {
                    None => NEVER,
                    // That is its deadline.
                    Some(ended) if call.status == "abandoned" => swept(ended),
                    Some(ended) => self.written(ended).to,
                };
                (Interval::new(call.opened, to), call)
            })
            .collect()
    }

    /// Whoever was refused for a limit of the application can have met it.
    fn limit_is_reached(&mut self, open: &[(Interval, &Call)], record: &Record, name: &str) {
        let during = Interval::new(record.start, record.end);
        let limits = self.teams[record.team].limits;
        let of_the_job = |call: &Call| Some(call.job) == record.job;
        let number = |counts: &dyn Fn(Interval, &Call) -> bool| {
            open.iter().filter(|(when, call)| counts(*when, call)).count() as i64
        };
        let reached = match name {
            // Judged where the account is.
            "open_jobs" => true,
            "calls_per_job" => {
                let made = number(&|when, call| of_the_job(call) && when.from <= during.to);
                limits.calls_per_job.is_some_and(|limit| made >= limit)
            }
            "open_calls_per_job" => {
                let most = number(&|when, call| of_the_job(call) && when.overlaps(during));
                limits.open_calls_per_job.is_some_and(|limit| most >= limit)
            }
            "open_calls" => {
                let most = number(&|when, _| when.overlaps(during));
                limits.open_calls.is_some_and(|limit| most >= limit)
            }
            "cost_usd_per_job" => {
                let cost = self.highest_cost(open, during, record);
                limits.cost_usd_per_job.is_some_and(|limit| cost >= limit - 1e-9)
            }
            "rpm_limit" => {
                let minutes = during.from / MINUTE..=during.to / MINUTE;
                let most = minutes.map(|minute| {
                    let minute = Interval::new(minute * MINUTE, (minute + 1) * MINUTE);
                    number(&|_, call| call.opened <= during.to && self.written(call.opened).overlaps(minute))
                });
                limits.calls_a_minute.is_some_and(|limit| most.max().unwrap_or_default() >= limit)
            }
            "tpm_limit" => {
                let minutes = during.from / MINUTE..=during.to / MINUTE;
                let most = minutes.map(|minute| {
                    let minute = Interval::new(minute * MINUTE, (minute + 1) * MINUTE);
                    self.tokens(open, minute, during.to)
                });
                limits.tokens_a_minute.is_some_and(|limit| most.max().unwrap_or_default() >= limit)
            }
            _ => false,
        };
        if !reached {
            self.violated(rules::LIMIT_REACHED, told(record));
        }
    }

    /// The most tokens that can have been counted in some time, before an instant.
    fn tokens(&self, open: &[(Interval, &Call)], during: Interval, before: Micros) -> i64 {
        let counted = |call: &Call| {
            call.settled.is_some_and(|settled| settled <= before && self.written(settled).overlaps(during))
        };
        open.iter().filter(|(_, call)| counted(call)).map(|(_, call)| call.tokens).sum()
    }

    /// The most that the job of a refused call can have been taken to cost with it.
    fn highest_cost(&self, open: &[(Interval, &Call)], during: Interval, record: &Record) -> f64 {
        let dearest = |group: &str| self.state.dearest.get(group).copied().unwrap_or_default();
        let of_call = |call: &Call| {
            let cost = call.cost.unwrap_or_default();
            let known = call.settled.is_some_and(|settled| self.written(settled).to < during.from);
            if known { cost } else { cost.max(dearest(&call.group)) }
        };
        let group = record.asked["model_group"].as_str().or(record.asked["model"].as_str());
        let calls = open.iter().filter(|(when, call)| Some(call.job) == record.job && when.from <= during.to);
        calls.map(|(_, call)| of_call(call)).sum::<f64>()
            + dearest(group.unwrap_or(self.teams[record.team].default_group))
    }

    /// Whoever was refused by LiteLLM for its limits can have met them.
    fn litellms_limit_is_reached(&mut self, open: &[(Interval, &Call)], record: &Record) {
        let during = Interval::new(record.start, record.end);
        let team = &self.teams[record.team];
        let since = |time: Micros| {
            let from = during.from.saturating_sub(time);
            let calls = open.iter().filter(|(_, call)| from <= self.written(call.opened).to);
            let calls = calls.filter(|(_, call)| call.opened <= during.to);
            calls
                .map(|(_, call)| 1 + i64::from([FALLS_BACK, TIMES_OUT].contains(&call.group.as_str())))
                .sum::<i64>()
        };
        match record.heard.code() {
            "rate_limited" => {
                let a_minute = team.limits.calls_a_minute.is_some_and(|limit| since(MINUTE) > limit);
                // It reserves a quarter of the limit for a call that is under way.
                let tokens = team.limits.tokens_a_minute.is_some_and(|limit| {
                    let last = Interval::new(during.from.saturating_sub(MINUTE), during.to);
                    self.tokens(open, last, during.to) + (since(UNREAD) + 1) * (limit / 4) > limit
                });
                let at_once = team.limits.open_calls.is_some_and(|limit| since(UNREAD) > limit);
                if !a_minute && !tokens && !at_once {
                    self.violated(rules::LIMIT_REACHED, told(record));
                }
            }
            "budget_exhausted" => {
                let spent = self.most_spent(open, during);
                let least = self.least_budget(record.team, during);
                if !team.derives_budget || spent < least * (1.0 - 1e-9) {
                    let seen = format!("{spent} of {least} were spent: {}", told(record));
                    self.violated(rules::BUDGET_REACHED, seen);
                }
            }
            _ => {}
        }
    }

    /// The most that a team's calls can have cost until then.
    fn most_spent(&self, open: &[(Interval, &Call)], during: Interval) -> f64 {
        let calls = open.iter().filter(|(when, _)| when.from <= during.to);
        let cost = |call: &Call| {
            call.cost.unwrap_or_else(|| self.state.dearest.get(&call.group).copied().unwrap_or(0.0))
        };
        calls.map(|(_, call)| cost(call)).sum()
    }

    /// The least that LiteLLM's budget of a team can have been until then.
    fn least_budget(&self, team: usize, during: Interval) -> f64 {
        let (mut allocated, mut least) = (0, i64::MAX);
        for entry in self.state.ledgers[team].iter().filter(|entry| entry.written <= during.to) {
            if !["deduction", "refund"].contains(&entry.kind.as_str()) {
                allocated += entry.change;
                least = least.min(allocated);
            }
        }
        least.max(0) as f64 * USD_PER_CREDIT
    }
}
