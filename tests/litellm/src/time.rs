//! LiteLLM's durations (`30s`, `1h`, `7d`, `1mo`): when a key expires, and when a budget starts anew.

use chrono::{DateTime, Datelike, Days, Months, NaiveTime, TimeDelta, TimeZone, Timelike, Utc};

/// A number with a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    count: u32,
    unit: Unit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Second,
    Minute,
    Hour,
    Day,
    Week,
    Month,
}

fn span(text: &str) -> Option<Span> {
    let digits = text.find(|letter: char| !letter.is_ascii_digit())?;
    let (count, unit) = text.split_at(digits);
    let unit = match unit {
        "s" => Unit::Second,
        "m" => Unit::Minute,
        "h" => Unit::Hour,
        "d" => Unit::Day,
        "w" => Unit::Week,
        "mo" => Unit::Month,
        _ => return None,
    };
    Some(Span { count: count.parse().ok()?, unit })
}

/// When a key that is made now expires: exactly so much later. `None` for a text that is no duration.
pub(crate) fn expiry(text: &str, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let Span { count, unit } = span(text)?;
    let seconds = i64::from(count);
    match unit {
        Unit::Second => now.checked_add_signed(TimeDelta::try_seconds(seconds)?),
        Unit::Minute => now.checked_add_signed(TimeDelta::try_minutes(seconds)?),
        Unit::Hour => now.checked_add_signed(TimeDelta::try_hours(seconds)?),
        Unit::Day => now.checked_add_days(Days::new(u64::from(count))),
        Unit::Week => now.checked_add_days(Days::new(u64::from(count) * 7)),
        Unit::Month => now.checked_add_months(Months::new(count)),
    }
}

/// When a budget of that duration starts anew: on a boundary of the calendar (UTC). `None` for a text that is no duration.
pub(crate) fn next_reset(text: &str, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let Span { count, unit } = span(text)?;
    if count == 0 {
        return None;
    }
    let midnight = now.date_naive().and_time(NaiveTime::MIN).and_utc();
    let days = |count: u32| midnight.checked_add_days(Days::new(u64::from(count)));
    let weekday = now.weekday().num_days_from_monday();
    match (unit, count) {
        (Unit::Second, _) => boundary(now, i64::from(count)),
        (Unit::Minute, _) => boundary(now, i64::from(count) * 60),
        (Unit::Hour, 24) => days(1),
        (Unit::Hour, _) => boundary(now, i64::from(count) * 3600),
        (Unit::Week, 1) | (Unit::Day, 7) => days(7 - weekday),
        (Unit::Week, _) => days(count * 7),
        (Unit::Month, _) => first_of_month(now, count),
        (Unit::Day, 30) => first_of_month(now, 1),
        (Unit::Day, _) => days(count),
    }
}

fn first_of_month(now: DateTime<Utc>, months: u32) -> Option<DateTime<Utc>> {
    let first = Utc.with_ymd_and_hms(now.year(), now.month(), 1, 0, 0, 0).single()?;
    first.checked_add_months(Months::new(months))
}

/// The next multiple of so many seconds in the day.
fn boundary(now: DateTime<Utc>, seconds: i64) -> Option<DateTime<Utc>> {
    let into_day = i64::from(now.num_seconds_from_midnight());
    let left = seconds - into_day % seconds;
    now.with_nanosecond(0)?.checked_add_signed(TimeDelta::try_seconds(left)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().expect("a time")
    }

    #[test]
    fn a_budget_starts_anew_where_the_real_litellm_said() {
        let now = at("2026-11-21T00:20:15Z");
        let recorded = [
            ("30s", "2026-11-21T00:20:30Z"),
            ("1m", "2026-11-21T00:21:00Z"),
            ("1h", "2026-11-21T01:00:00Z"),
            ("24h", "2026-11-22T00:00:00Z"),
            ("1d", "2026-11-22T00:00:00Z"),
            ("2d", "2026-11-23T00:00:00Z"),
            ("7d", "2026-11-23T00:00:00Z"),
            ("14d", "2026-12-05T00:00:00Z"),
            ("30d", "2026-12-01T00:00:00Z"),
            ("31d", "2026-12-22T00:00:00Z"),
            ("60d", "2027-01-20T00:00:00Z"),
            ("90d", "2027-02-19T00:00:00Z"),
            ("1mo", "2026-12-01T00:00:00Z"),
            ("1w", "2026-11-23T00:00:00Z"),
        ];
        for (duration, expected) in recorded {
            assert_eq!(next_reset(duration, now), Some(at(expected)), "{duration}");
        }
        assert_eq!(next_reset("1y", now), None);
        assert_eq!(next_reset("banana", now), None);
    }

    #[test]
    fn a_key_expires_exactly_so_much_later() {
        let now = at("2026-11-21T00:20:18Z");
        assert_eq!(expiry("2h", now), Some(at("2026-11-21T02:20:18Z")));
        assert_eq!(expiry("1mo", now), Some(at("2026-12-21T00:20:18Z")));
        assert_eq!(expiry("0s", now), Some(now));
        assert_eq!(expiry("-1", now), None);
    }
}
