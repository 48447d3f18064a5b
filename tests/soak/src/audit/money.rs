//! What jobs are charged, also late, and refunded.

use super::{Audit, rules, told};
use crate::{
    history::{Kind, Micros, Record},
    model::Interval,
    state::Entry,
};
use serde_json::Value;
use uuid::Uuid;

impl Audit<'_> {
    pub(super) fn charges(&mut self) {
        let jobs: Vec<Uuid> = self.rows_of.keys().copied().collect();
        for job in jobs {
            self.refunds_are_bounded(job);
        }
        for record in self.history {
            let Some(job) = record.job.filter(|_| !record.heard.is_unknown()) else { continue };
            match record.kind {
                Kind::Refund => self.refund(job, record),
                Kind::ReadJob if record.heard.is_ok() => self.told_charge(job, record, &record.heard.body),
                Kind::Complete if record.heard.is_ok() => {
                    self.told_charge(job, record, &record.heard.body["costs"]);
                }
                _ => {}
            }
        }
    }

    fn rows(&self, job: Uuid) -> &[&Entry] {
        self.rows_of.get(&job).map_or(&[], Vec::as_slice)
    }

    fn refunds_are_bounded(&mut self, job: Uuid) {
        let (mut charged, mut refunded) = (0, 0);
        for row in self.rows(job) {
            charged -= row.change.min(0);
            refunded += row.change.max(0);
            if refunded > charged {
                self.violated(rules::REFUND_BOUND, format!("{job}: {:?}", self.rows(job)));
                return;
            }
        }
    }

    /// What was left of a job's charge: the least and the most at an instant of this time.
    fn left(&self, job: Uuid, during: Interval) -> (i64, i64) {
        let (mut least, mut most) = (0, 0);
        for row in self.rows(job) {
            let when = self.written(row.written);
            if when.to < during.from {
                least -= row.change;
                most -= row.change;
            } else if when.from <= during.to {
                least -= row.change.max(0);
                most -= row.change.min(0);
            }
        }
        (least, most)
    }

    fn refund(&mut self, job: Uuid, record: &Record) {
        let (least, _) = self.left(job, during(record));
        let asked = record.asked["credits"].as_i64();
        let refused = record.heard.code() == "refund_exceeds_charge";
        let too_much = asked.map_or(least <= 0, |credits| credits > least);
        if refused && !record.heard.replayed && !too_much {
            self.violated(rules::REFUND_REFUSED, format!("at least {least} left: {}", told(record)));
        }
    }

    /// What somebody was told of a job's charge is the sum of the first of its rows, of those that were written then.
    fn told_charge(&mut self, job: Uuid, record: &Record, told_of: &Value) {
        let heard = [&told_of["credits_charged"], &told_of["credits_refunded"]].map(Value::as_i64);
        let from = if record.heard.replayed { Micros::MIN } else { record.start };
        let rows = self.rows(job);
        let surely = rows.iter().filter(|row| self.written(row.written).to < from).count();
        let at_most = rows.iter().filter(|row| row.written <= record.end).count();
        let sums = |number: usize| {
            let charged: i64 = rows[..number].iter().map(|row| -row.change.min(0)).sum();
            let refunded: i64 = rows[..number].iter().map(|row| row.change.max(0)).sum();
            [charged, refunded].map(Some)
        };
        if !(surely..=at_most).any(|number| sums(number) == heard) {
            let seen = format!("{heard:?} of {surely} to {at_most} rows of {rows:?}: {}", told(record));
            self.violated(rules::CHARGE_TOLD, seen);
            return;
        }
        // Only an admin's refund may follow.
        let late = |row: &&&Entry| row.call.is_some() && row.written > record.end;
        if told_of["charge_is_final"] == true
            && let Some(row) = self.rows(job).iter().find(late)
        {
            self.violated(rules::CHARGE_FINAL, format!("{row:?} after {}", told(record)));
        }
    }
}

fn during(record: &Record) -> Interval {
    Interval::new(record.start, record.end)
}
