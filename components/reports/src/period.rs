//! The period that a report covers.

use chrono::{Datelike, Days, Months, NaiveDate, Utc};
use serde::Deserialize;
use shared::{
    error::{Error, Result},
    http::Format,
    store::parameters::Day,
};
use utoipa::IntoParams;

/// The period of a report: a month, a day or a range of days; without any of them, the current month. Days are in UTC,
/// and a job belongs to the day on which it was created.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Asked {
    /// A month, such as `2025-10`, or a day, such as `2025-10-13`. Not together with `from` and `to`.
    #[param(pattern = "^[0-9]{4}-[0-9]{2}(-[0-9]{2})?$", example = "2025-10")]
    period: Option<String>,
    /// The first day of a range, such as `2025-10-01`. Required if `to` is given.
    #[param(pattern = "^[0-9]{4}-[0-9]{2}-[0-9]{2}$", example = "2025-10-01")]
    from: Option<String>,
    /// The last day of a range, such as `2025-10-31`. Required if `from` is given.
    #[param(pattern = "^[0-9]{4}-[0-9]{2}-[0-9]{2}$", example = "2025-10-31")]
    to: Option<String>,
    /// The format of the answer. As `csv` it has a line for each day, team and job type.
    #[serde(default)]
    #[param(inline)]
    pub format: Format,
}

/// A range of days, in UTC.
pub struct Period {
    /// The name of the period in the report.
    pub name: String,
    from: NaiveDate,
    until: NaiveDate,
}

impl Period {
    /// The first day of the period.
    pub fn from(&self) -> Day {
        day_of(self.from)
    }

    /// The day after the last day of the period.
    pub fn to(&self) -> Day {
        day_of(self.until)
    }
}

/// A date as PostgreSQL reads it: for years after 9999 it accepts no `+` sign, which chrono prints.
fn day_of(date: NaiveDate) -> Day {
    Day(date.to_string().trim_start_matches('+').to_owned())
}

impl Asked {
    /// The period that the query asks for.
    pub fn period(&self) -> Result<Period> {
        let expected = || Error::invalid("period", "expected a month like 2025-10 or a day like 2025-10-13");
        match (&self.period, &self.from, &self.to) {
            (Some(name), None, None) => named(name).ok_or_else(expected),
            (None, None, None) => named(&Utc::now().format("%Y-%m").to_string()).ok_or_else(expected),
            (None, Some(from), Some(to)) => {
                let (first, last) = (day("from", from)?, day("to", to)?);
                if first > last {
                    return Err(Error::invalid("to", "expected a day on or after from"));
                }
                let until = last.checked_add_days(Days::new(1)).ok_or_else(expected)?;
                Ok(Period { name: format!("{from}/{to}"), from: first, until })
            }
            (None, Some(_), None) => Err(Error::invalid("to", "required beside from")),
            (None, None, Some(_)) => Err(Error::invalid("from", "required beside to")),
            (Some(_), ..) => {
                Err(Error::invalid("period", "given beside from or to; expected one or the other"))
            }
        }
    }
}

/// The period with a name such as `2025-10` (a month) or `2025-10-13` (a day).
fn named(name: &str) -> Option<Period> {
    let (from, until) = match name.len() {
        7 => {
            let first = parsed(&format!("{name}-01"))?;
            (first, first.checked_add_months(Months::new(1))?)
        }
        _ => {
            let day = parsed(name)?;
            (day, day.checked_add_days(Days::new(1))?)
        }
    };
    Some(Period { name: name.to_owned(), from, until })
}

fn day(field: &str, text: &str) -> Result<NaiveDate> {
    parsed(text).ok_or_else(|| Error::invalid(field, "expected a day like 2025-10-13"))
}

/// Reads exactly `YYYY-MM-DD`; chrono alone would also accept signs, spaces and single digits. PostgreSQL has no year
/// 0.
fn parsed(text: &str) -> Option<NaiveDate> {
    let shaped = text.len() == 10 && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    text.parse().ok().filter(|day: &NaiveDate| shaped && day.year() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(period: Option<&str>, from: Option<&str>, to: Option<&str>) -> Result<String, String> {
        let own = |text: Option<&str>| text.map(str::to_owned);
        Asked { period: own(period), from: own(from), to: own(to), format: Format::Json }
            .period()
            .map(|period| format!("{} {}", period.from, period.until))
            .map_err(|error| error.detail.clone())
    }

    #[test]
    fn a_month_a_day_or_a_range_is_understood() {
        assert_eq!(asked(Some("2025-12"), None, None).unwrap(), "2025-12-01 2026-01-01");
        assert_eq!(asked(Some("2024-02-29"), None, None).unwrap(), "2024-02-29 2024-03-01");
        assert_eq!(asked(None, Some("2025-10-01"), Some("2025-10-31")).unwrap(), "2025-10-01 2025-11-01");
        assert!(asked(None, None, None).is_ok());
    }

    #[test]
    fn anything_else_is_refused_by_the_name_of_its_field() {
        for text in [
            "2025",
            "2025-13",
            "2025-1",
            "2025-02-30",
            "%",
            "2025-10-1x",
            "+025-10-01",
            "2025-10-13T00:00:00Z",
            "0000-12",
            "",
        ] {
            assert!(asked(Some(text), None, None).unwrap_err().starts_with("period: "), "{text}");
        }
        assert_eq!(asked(None, Some("2025-10-01"), None).unwrap_err(), "to: required beside from");
        assert_eq!(asked(None, None, Some("2025-10-01")).unwrap_err(), "from: required beside to");
        assert!(asked(None, Some("2025-10-02"), Some("2025-10-01")).unwrap_err().starts_with("to: "));
        assert!(asked(Some("2025-10"), Some("2025-10-02"), None).unwrap_err().starts_with("period: "));
    }
}
