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

const NO_DURATION: &str = "Invalid duration format";

/// Reads a duration as LiteLLM does: whatever follows the unit is ignored. The error is LiteLLM's complaint.
fn span(text: &str) -> Result<Span, String> {
    let written = match text.trim().to_lowercase().as_str() {
        "hourly" => "1h",
        "daily" => "24h",
        "weekly" => "7d",
        "monthly" => "30d",
        _ => text,
    };
    let digits = written.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(written.len());
    let (count, unit) = written.split_at(digits);
    let count = count.parse().map_err(|_| NO_DURATION)?;
    let unit = match unit.chars().next() {
        Some('m') if unit.starts_with("mo") => Unit::Month,
        Some('s') => Unit::Second,
        Some('m') => Unit::Minute,
        Some('h') => Unit::Hour,
        Some('d') => Unit::Day,
        Some('w') => Unit::Week,
        _ => return Err(format!("Unsupported duration unit, passed duration: {text}")),
    };
    Ok(Span { count, unit })
}

/// When a key expires whose duration is set now: exactly so much later. The error is LiteLLM's complaint about the
/// text.
pub(crate) fn expiry(text: &str, now: DateTime<Utc>) -> Result<DateTime<Utc>, String> {
    later(span(text)?, now).ok_or_else(|| NO_DURATION.to_owned())
}

fn later(Span { count, unit }: Span, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
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

/// When a budget of that duration starts anew: on a boundary of the calendar (UTC). `None` for a text that is no
/// duration.
pub(crate) fn next_reset(text: &str, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let Span { count, unit } = span(text).ok()?;
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
        assert_eq!(expiry("2h", now), Ok(at("2026-11-21T02:20:18Z")));
        assert_eq!(expiry("1mo", now), Ok(at("2026-12-21T00:20:18Z")));
        assert_eq!(expiry("0s", now), Ok(now));
        assert_eq!(expiry("Daily ", now), Ok(at("2026-11-22T00:20:18Z")));
        assert_eq!(expiry("2hours", now), expiry("2h", now));
    }

    #[test]
    fn what_is_no_duration_is_complained_about_in_litellms_words() {
        for text in ["", "-1", "-5s", "+5s", " 5s", "x5", "banana"] {
            assert_eq!(expiry(text, Utc::now()), Err("Invalid duration format".to_owned()), "{text:?}");
        }
        for text in ["5", "5x", "5S", "1.5h", "1y"] {
            let complaint = format!("Unsupported duration unit, passed duration: {text}");
            assert_eq!(expiry(text, Utc::now()), Err(complaint));
        }
    }
}
