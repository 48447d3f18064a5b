//! The rules, as far as they can be told from outside while many do things at once.
//!
//! Nobody can predict an answer exactly while others change the same team. But every change happened at one instant
//! between its request and its answer, and every answer is true of one instant in its own. So [`Changes`] bounds what a
//! sum can have been during an answer, exactly where nothing was under way, and [`Ending`] says whether one instant
//! fits everything that was heard about a job. Requests without an answer are changes that may have happened at any
//! later time, if the end shows that they did.

use crate::history::{Micros, NEVER};

/// Some time, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval {
    /// The start of the interval.
    pub from: Micros,
    /// The end of the interval.
    pub to: Micros,
}

impl Interval {
    /// From one instant to another.
    pub fn new(from: Micros, to: Micros) -> Self {
        Self { from, to }
    }

    /// Whether they have an instant in common.
    pub fn overlaps(self, other: Interval) -> bool {
        self.from <= other.to && other.from <= self.to
    }

    /// Whether it lies in the other without touching its ends.
    pub fn is_within(self, other: Interval) -> bool {
        other.from < self.from && self.to < other.to
    }
}

/// The numbers of a team that changes add to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Credits that it was given.
    pub allocated: i64,
    /// Credits that it was charged.
    pub used: i64,
    /// Credits that open jobs hold.
    pub held: i64,
    /// Rows of its ledger.
    pub entries: i64,
    /// Jobs that it opened.
    pub jobs: i64,
    /// Of these: charged.
    pub charged: i64,
    /// Calls that were refused.
    pub refused: i64,
    /// Of these: completed, failed, cancelled, expired.
    pub ended: [i64; 4],
}

impl Sums {
    /// What a new job can have.
    pub fn available(&self) -> i64 {
        self.allocated - self.used - self.held
    }
}

/// All changes of a team's sums, each at one instant in its interval.
#[derive(Default)]
pub struct Changes(Vec<(Interval, Sums)>);

impl Changes {
    /// Adds one.
    pub fn push(&mut self, when: Interval, by: Sums) {
        self.0.push((when, by));
    }

    /// The least and the most that `of` the sums can have been at an instant of `window`.
    pub fn bounds(&self, window: Interval, of: impl Fn(&Sums) -> i64) -> (i64, i64) {
        let (mut low, mut high) = (0, 0);
        for (when, by) in &self.0 {
            let by = of(by);
            if when.to < window.from {
                low += by;
                high += by;
            } else if when.from <= window.to {
                low += by.min(0);
                high += by.max(0);
            }
        }
        (low, high)
    }

    /// What the sums are once all has happened.
    pub fn total(&self, of: impl Fn(&Sums) -> i64) -> i64 {
        self.0.iter().map(|(_, by)| of(by)).sum()
    }
}

/// The instant at which a job ended, as far as it can be told.
#[derive(Clone, Copy, Debug)]
pub struct Ending {
    /// The earliest time at which it can have happened.
    pub from: Micros,
    /// The latest time at which it can have happened.
    pub to: Micros,
}

impl Ending {
    /// An end that can have happened at any time.
    pub fn unknown() -> Self {
        Self { from: Micros::MIN, to: NEVER }
    }

    /// Something showed the job open at an instant of `during`.
    pub fn seen_open(&mut self, during: Interval) {
        self.from = self.from.max(during.from);
    }

    /// Something showed the job ended at an instant of `during`.
    pub fn seen_ended(&mut self, during: Interval) {
        self.to = self.to.min(during.to);
    }

    /// It was ended by what happened at an instant of `during`.
    pub fn caused(&mut self, during: Interval) {
        self.from = self.from.max(during.from);
        self.to = self.to.min(during.to);
    }

    /// Whether one instant fits all of that.
    pub fn is_possible(self) -> bool {
        self.from <= self.to
    }
}

/// When a team's key may and must work.
#[derive(Clone, Copy, Debug, Default)]
pub struct KeyLife {
    /// When it was revoked, with what it may work on after that.
    pub revoked: Option<(Interval, Micros)>,
    /// The host that knows it at once.
    pub known_at: Option<usize>,
}

impl Default for Interval {
    fn default() -> Self {
        Self { from: Micros::MIN, to: NEVER }
    }
}

impl KeyLife {
    /// Whether a request during `window` can have found it working.
    pub fn can_work(self, window: Interval) -> bool {
        self.revoked.is_none_or(|(when, grace)| window.from <= when.to.saturating_add(grace))
    }

    /// Whether a request during `window` can have found it revoked.
    pub fn can_be_refused(self, window: Interval) -> bool {
        self.revoked.is_some_and(|(when, grace)| when.from.saturating_add(grace) <= window.to)
    }
}

/// A suspension: from one request's instant to another's.
#[derive(Clone, Copy, Debug)]
pub struct Suspension {
    /// When the team was suspended.
    pub began: Interval,
    /// When it was resumed.
    pub ended: Interval,
    /// The host that knows of the suspension at once.
    pub known_at: Option<usize>,
}

impl Suspension {
    /// Whether a request during `window` must have found the team suspended.
    pub fn must_refuse(self, window: Interval) -> bool {
        window.is_within(Interval::new(self.began.to, self.ended.from))
    }

    /// Whether a request during `window` can have found the team suspended.
    pub fn can_refuse(self, window: Interval) -> bool {
        window.overlaps(Interval::new(self.began.from, self.ended.to))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(credits: i64) -> Sums {
        Sums { used: credits, ..Sums::default() }
    }

    #[test]
    fn sums_are_exact_between_changes_and_bounded_during_them() {
        let mut changes = Changes::default();
        changes.push(Interval::new(10, 20), used(1));
        changes.push(Interval::new(15, 30), used(-5));
        let bounds = |from, to| changes.bounds(Interval::new(from, to), |sums| sums.used);
        assert_eq!(bounds(0, 5), (0, 0));
        assert_eq!(bounds(12, 13), (0, 1));
        assert_eq!(bounds(16, 18), (-5, 1));
        assert_eq!(bounds(22, 25), (-4, 1));
        assert_eq!(bounds(31, 32), (-4, -4));
        assert_eq!(changes.total(|sums| sums.used), -4);
    }

    #[test]
    fn a_job_that_is_seen_open_after_it_was_seen_ended_is_impossible() {
        let mut ending = Ending::unknown();
        ending.caused(Interval::new(10, 20));
        ending.seen_open(Interval::new(12, 30));
        ending.seen_ended(Interval::new(5, 15));
        assert!(ending.is_possible(), "both can be of the same instants");
        ending.seen_open(Interval::new(16, 18));
        assert!(!ending.is_possible());
    }

    #[test]
    fn a_key_is_certain_only_outside_of_its_revocation() {
        let key = KeyLife { revoked: Some((Interval::new(10, 20), 100)), known_at: None };
        let at = |from, to| {
            let window = Interval::new(from, to);
            (key.can_work(window), key.can_be_refused(window))
        };
        assert_eq!(at(0, 109), (true, false));
        assert_eq!(at(0, 111), (true, true));
        assert_eq!(at(121, 130), (false, true));
    }

    #[test]
    fn a_suspension_is_certain_only_between_its_requests() {
        let suspension =
            Suspension { began: Interval::new(10, 20), ended: Interval::new(30, 40), known_at: None };
        let at = |from, to| {
            let window = Interval::new(from, to);
            (suspension.must_refuse(window), suspension.can_refuse(window))
        };
        assert_eq!(at(0, 9), (false, false));
        assert_eq!(at(5, 12), (false, true));
        assert_eq!(at(21, 29), (true, true));
        assert_eq!(at(21, 31), (false, true));
        assert_eq!(at(41, 50), (false, false));
    }
}
