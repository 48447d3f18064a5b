//! Credits: every ledger row has one request behind it, in the order in which they were answered, and every number that
//! anybody was told was true at some instant.

use super::{Audit, rules, told};
use crate::{
    history::{Kind, Micros, NEVER, Record},
    model::{Changes, Interval, Sums},
    state::Entry,
    team::{REFILL, Refill},
};
use serde_json::Value;
use std::collections::BTreeSet;
use uuid::Uuid;

impl Audit<'_> {
    pub(super) fn credits(&mut self) {
        for kind in [Kind::Add, Kind::Adjust, Kind::Refund] {
            self.numbers_of_changes(kind);
        }
        for team in 0..self.teams.len() {
            let changes = self.changes(team);
            let totals = ["allocated", "used", "held"].map(|name| changes.total(sum(name)));
            let account = self.state.accounts[team];
            if totals != [account.allocated, account.used, account.held] {
                self.violated(rules::ACCOUNT, format!("team {team}: {account:?}, not {totals:?}"));
            }
            for record in
                self.history.iter().filter(|record| record.team == team && record.kind != Kind::Intrude)
            {
                self.told_numbers(team, &changes, record);
            }
        }
    }

    /// Every addition, correction and refund is in the ledger as often as it was done.
    fn numbers_of_changes(&mut self, kind: Kind) {
        let tags: Vec<&str> =
            self.asked.iter().filter(|(_, all)| all[0].kind == kind).map(|(tag, _)| *tag).collect();
        for tag in tags {
            let team = self.requests(tag)[0].team;
            let made = self.state.ledgers[team].iter().filter(|entry| entry.reason == tag).count();
            let (least, most) = self.expected(tag, |record| record.heard.is_ok());
            if made < least || made > most {
                let requests: Vec<String> = self.requests(tag).iter().map(|record| told(record)).collect();
                self.violated(rules::CHANGED_ONCE, format!("{made} rows of {}", requests.join("; ")));
            }
        }
    }

    /// All changes of a team's sums, and the order of its ledger.
    fn changes(&mut self, team: usize) -> Changes {
        let mut changes = Changes::default();
        let state = self.state;
        let mut latest_start = Micros::MIN;
        let mut charged: BTreeSet<Uuid> = BTreeSet::new();
        for (place, entry) in state.ledgers[team].iter().enumerate() {
            let when = match entry.kind.as_str() {
                "allocation" if place == 0 && self.teams[team].credits > 0 => {
                    Some(Interval::new(Micros::MIN, Micros::MIN))
                }
                "allocation" | "adjustment" => self.change(entry),
                "refill" | "expiry" => self.refilled(team, entry),
                "deduction" | "refund" if entry.call.is_some() => self.late_cost(entry),
                "refund" => self.change(entry),
                _ => entry
                    .job
                    .and_then(|job| self.endings.get(&job))
                    .map(|ending| Interval::new(ending.from, ending.to)),
            };
            let Some(when) = when else {
                self.violated(rules::LEDGER_ROW, format!("team {team}: {entry:?}"));
                continue;
            };
            if when.to < latest_start {
                self.violated(rules::LEDGER_ORDER, format!("team {team}: {entry:?} {when:?}"));
            }
            latest_start = latest_start.max(when.from);
            let is_of_a_job = ["deduction", "refund"].contains(&entry.kind.as_str());
            let given = if is_of_a_job { 0 } else { entry.change };
            let first = entry.kind == "deduction" && entry.job.is_some_and(|job| charged.insert(job));
            changes.push(
                when,
                Sums {
                    allocated: given,
                    used: given - entry.change,
                    entries: 1,
                    charged: first.into(),
                    ..Sums::default()
                },
            );
        }
        for job in state.jobs.values().filter(|job| job.team == team) {
            if let Some(opened) = self.opened.get(&job.id) {
                changes.push(*opened, Sums { held: 1, jobs: 1, ..Sums::default() });
            }
            if let Some(ending) = self.endings.get(&job.id) {
                let place = ENDS.iter().position(|end| **end == job.status);
                let mut ended = [0; 4];
                if let Some(place) = place {
                    ended[place] = 1;
                }
                changes
                    .push(Interval::new(ending.from, ending.to), Sums { held: -1, ended, ..Sums::default() });
            }
        }
        for call in state.calls.values().filter(|call| call.team == team && call.status == "refused") {
            if let Some(ended) = call.ended {
                changes.push(self.written(ended), Sums { refused: 1, ..Sums::default() });
            }
        }
        self.refills(team, &changes);
        changes
    }

    /// When a refill was made: when one of its team was due, and never twice for a period. It changes what its team's
    /// terms say of what remained.
    fn refilled(&self, team: usize, entry: &Entry) -> Option<Interval> {
        let refill = self.teams[team].refill?;
        let right = refill.change(entry.balance_after - entry.change) == entry.change
            && (entry.kind == "refill") == (entry.change > 0);
        let made = self.written(entry.written);
        let is_refill = |other: &&Entry| ["refill", "expiry"].contains(&other.kind.as_str());
        let so_far = self.state.ledgers[team].iter().filter(is_refill);
        let so_far = so_far.filter(|other| other.written <= entry.written).count();
        let due = self.periods(team).filter(|period| period.start <= made.to).count();
        // A request that is refused may have made the refill before, which it then undid.
        let began =
            self.periods(team).map(|period| period.start).filter(|start| *start <= entry.written).max();
        (right && so_far <= due).then_some(Interval::new(began.unwrap_or(made.from), made.to))
    }

    /// The periods that passed, in their order.
    fn periods(&self, team: usize) -> impl Iterator<Item = &Record> {
        self.history.iter().filter(move |record| record.kind == Kind::PeriodPasses && record.team == team)
    }

    /// As many refills were made as periods have passed, but for those that passed while the team was suspended, and
    /// those in which there was nothing to change.
    fn refills(&mut self, team: usize, changes: &Changes) {
        let Some(refill) = self.teams[team].refill else { return };
        let is_refill = |entry: &&Entry| ["refill", "expiry"].contains(&entry.kind.as_str());
        let rows: Vec<&Entry> = self.state.ledgers[team].iter().filter(is_refill).collect();
        let suspensions = crate::team::lock(&self.teams[team].suspensions).clone();
        let (mut passed, mut all, mut skipped) = (0, 0, 0);
        for period in self.periods(team) {
            let during = Interval::new(period.start, period.until().max(period.end));
            all += 1;
            passed += usize::from(period.heard.is_ok());
            let (least, most) = changes.bounds(during, sum("remaining"));
            let may_be_nothing = match refill {
                Refill::Add(None) => false,
                Refill::Add(Some(cap)) => most >= cap,
                Refill::ResetTo => least <= REFILL && REFILL <= most,
            };
            let may_be_suspended = suspensions.iter().any(|suspension| suspension.can_refuse(during));
            skipped += usize::from(may_be_nothing || may_be_suspended);
        }
        let made = usize::try_from(self.state.accounts[team].refills).unwrap_or_default();
        if rows.len() + skipped < passed || rows.len() > all || made < passed || made > all {
            let seen = format!("team {team}: {} refills of {made} in {passed} to {all} periods", rows.len());
            self.violated(rules::REFILL, seen);
        }
        // Whoever looked at the balance then made the refill, if there was one to make.
        let while_suspended: Vec<Interval> = self
            .periods(team)
            .filter(|period| period.end != NEVER)
            .map(|period| Interval::new(period.start, period.end))
            .filter(|during| suspensions.iter().any(|suspension| suspension.must_refuse(*during)))
            .collect();
        for row in rows {
            if while_suspended.iter().any(|during| (during.from..=during.to).contains(&row.written)) {
                self.violated(rules::REFILL_SUSPENDED, format!("team {team}: {row:?}"));
            }
        }
    }

    /// When an addition, a correction or a refund was made.
    fn change(&self, entry: &Entry) -> Option<Interval> {
        let request = self.requests(&entry.reason).first()?;
        let right = if entry.kind == "refund" {
            let credits = &request.asked["credits"];
            request.job == entry.job && (credits.is_null() || credits.as_i64() == Some(entry.change))
        } else {
            request.asked["credits_amount"].as_i64() == Some(entry.change)
        };
        self.effect(&entry.reason, |record| record.heard.is_ok()).filter(|_| right)
    }

    /// When a cost that came late was charged: once its call had been made, and its job had ended.
    fn late_cost(&self, entry: &Entry) -> Option<Interval> {
        let call = self.state.calls.get(&entry.call?)?;
        let ended = self.endings.get(&call.job)?;
        let when = self.written(entry.written);
        (Some(call.job) == entry.job && call.opened <= entry.written && ended.from <= when.to).then_some(when)
    }

    fn told_numbers(&mut self, team: usize, changes: &Changes, record: &Record) {
        let heard = &record.heard;
        if heard.replayed {
            return;
        }
        let during = Interval::new(record.start, record.end);
        let numbers: Vec<(&'static str, i64)> = match record.kind {
            Kind::ReadBalance if heard.is_ok() => numbers(&heard.body, &BALANCE),
            Kind::ReadUsage if heard.is_ok() => numbers(&heard.body["summary"], &USAGE),
            Kind::ListJobs if heard.is_ok() => numbers(&heard.body, &[("total", "jobs")]),
            Kind::ReadLedger if heard.is_ok() => {
                self.read_ledger(team, record);
                numbers(&heard.body, &[("total", "entries")])
            }
            _ if heard.code() == "insufficient_credits" => {
                let told = heard.detail().rsplit(' ').next().and_then(|number| number.parse().ok());
                self.refusal(team, record, told);
                told.map(|available| ("available", available)).into_iter().collect()
            }
            Kind::Adjust if heard.is_ok() => {
                self.room_for_a_correction(team, changes, record);
                vec![]
            }
            _ if heard.limit() == Some("open_jobs") => {
                self.open_jobs_are_reached(team, changes, record);
                vec![]
            }
            _ if opens_a_job(record) => {
                self.room_for_a_job(team, changes, record);
                vec![]
            }
            _ => vec![],
        };
        for (name, told_number) in numbers {
            let (mut least, mut most) = changes.bounds(during, sum(name));
            if heard.code() == "insufficient_credits" && self.may_be_due(team, during) {
                (least, most) = self.after_a_refill(team, changes, during, (least, most));
            }
            if told_number < least || told_number > most {
                let seen = format!("{name} {told_number}, but {least} to {most}: {}", told(record));
                self.violated(rules::TRUE_ONCE, seen);
            }
        }
    }

    /// Whether a refill may have been due, which whoever was refused made, and undid.
    fn may_be_due(&self, team: usize, during: Interval) -> bool {
        self.periods(team)
            .any(|period| Interval::new(period.start, period.until().max(period.end)).overlaps(during))
    }

    /// What may be available after a refill, where it may have been this without.
    fn after_a_refill(
        &self,
        team: usize,
        changes: &Changes,
        during: Interval,
        (least, most): (i64, i64),
    ) -> (i64, i64) {
        match self.teams[team].refill {
            None => (least, most),
            Some(Refill::Add(_)) => (least, most + REFILL),
            Some(Refill::ResetTo) => {
                let (fewest, held) = changes.bounds(during, sum("held"));
                (least.min(REFILL - held), most.max(REFILL - fewest))
            }
        }
    }

    /// Whoever is refused for want of credits is told numbers for which that is right.
    fn refusal(&mut self, team: usize, record: &Record, available: Option<i64>) {
        let required = match record.kind {
            Kind::Adjust => -record.asked["credits_amount"].as_i64().unwrap_or_default(),
            _ => 1,
        };
        let right = match (available, self.teams[team].floor) {
            (Some(available), Some(floor)) => available - required < floor,
            _ => false,
        };
        let words = format!("Insufficient credits. Required: {required}, Available: ");
        if !right || !record.heard.detail().starts_with(&words) {
            self.violated(rules::REFUSED_RIGHTLY, told(record));
        }
    }

    /// Whoever opened a job found a credit for it.
    fn room_for_a_job(&mut self, team: usize, changes: &Changes, record: &Record) {
        let during = Interval::new(record.start, record.end);
        let (least, _) = changes.bounds(during, sum("held"));
        if self.teams[team].limits.open_jobs.is_some_and(|limit| least >= limit) {
            self.violated(rules::LIMIT_HOLDS, format!("at least {least} open jobs: {}", told(record)));
        }
        let Some(floor) = self.teams[team].floor else { return };
        // The job itself is among the changes, but only those that add count for the most.
        let (_, most) = changes.bounds(during, Sums::available);
        if most < floor + 1 {
            self.violated(rules::CREDIT_FOR_JOB, format!("at most {most}: {}", told(record)));
        }
    }

    /// Who was refused a job for the number of open ones met as many.
    fn open_jobs_are_reached(&mut self, team: usize, changes: &Changes, record: &Record) {
        let (_, most) = changes.bounds(Interval::new(record.start, record.end), sum("held"));
        if self.teams[team].limits.open_jobs.is_none_or(|limit| most < limit) {
            self.violated(rules::LIMIT_REACHED, format!("at most {most} open jobs: {}", told(record)));
        }
    }

    /// Whoever took credits away found them.
    fn room_for_a_correction(&mut self, team: usize, changes: &Changes, record: &Record) {
        let Some(floor) = self.teams[team].floor else { return };
        let change = record.asked["credits_amount"].as_i64().unwrap_or_default();
        let (_, most) = changes.bounds(Interval::new(record.start, record.end), Sums::available);
        if change < 0 && most + change < floor {
            let seen = format!("at most {most}: {}", told(record));
            self.violated(rules::CREDIT_FOR_CORRECTION, seen);
        }
    }

    /// A ledger that was read is the beginning of the whole one.
    fn read_ledger(&mut self, team: usize, record: &Record) {
        let ledger = &self.state.ledgers[team];
        let rows = record.heard.body["transactions"].as_array().map(Vec::as_slice).unwrap_or_default();
        let total = record.heard.body["total"].as_u64().unwrap_or_default() as usize;
        let same = |row: &Value, entry: &Entry| {
            row["transaction_id"] == entry.id && row["balance_after"] == entry.balance_after
        };
        let is_beginning = total <= ledger.len()
            && rows.len() == total.min(1000)
            && rows.iter().zip(ledger[..total].iter().rev()).all(|(row, entry)| same(row, entry));
        if !is_beginning {
            self.violated(rules::LEDGER_READ, told(record));
        }
    }
}

/// The ends of jobs that are counted, in the order of [`Sums::ended`].
const ENDS: [&&str; 4] = [&"completed", &"failed", &"cancelled", &"expired"];

/// The members of a balance, and which sums they are.
const BALANCE: [(&str, &str); 5] = [
    ("credits_allocated", "allocated"),
    ("credits_used", "used"),
    ("credits_reserved", "held"),
    ("credits_available", "available"),
    ("credits_remaining", "remaining"),
];

/// The members of a usage summary, and which sums they are.
const USAGE: [(&str, &str); 8] = [
    ("total_jobs", "jobs"),
    ("charged_jobs", "charged"),
    ("refused_calls", "refused"),
    ("credits_used", "used"),
    ("successful_jobs", "completed"),
    ("failed_jobs", "failed"),
    ("cancelled_jobs", "cancelled"),
    ("expired_jobs", "expired"),
];

/// The numbers that a body tells. A member that is missing is a number that nothing can be.
fn numbers(body: &Value, members: &[(&str, &'static str)]) -> Vec<(&'static str, i64)> {
    members.iter().map(|(member, name)| (*name, body[member].as_i64().unwrap_or(NEVER))).collect()
}

/// A sum by its name.
fn sum(name: &str) -> fn(&Sums) -> i64 {
    match name {
        "allocated" => |sums| sums.allocated,
        "used" => |sums| sums.used,
        "held" => |sums| sums.held,
        "available" => Sums::available,
        "remaining" => |sums| sums.allocated - sums.used,
        "entries" => |sums| sums.entries,
        "jobs" => |sums| sums.jobs,
        "charged" => |sums| sums.charged,
        "refused" => |sums| sums.refused,
        "completed" => |sums| sums.ended[0],
        "failed" => |sums| sums.ended[1],
        "cancelled" => |sums| sums.ended[2],
        _ => |sums| sums.ended[3],
    }
}

fn opens_a_job(record: &Record) -> bool {
    let own = matches!(record.kind, Kind::OwnJob | Kind::OwnStream)
        || (record.kind == Kind::Chat && record.job.is_none());
    (record.kind == Kind::CreateJob && record.heard.is_ok()) || (own && record.heard.call.is_some())
}
