//! The guests' parameters as the driver wants them.

use anyhow::{Context as _, Result, bail};
use chrono::{DateTime, NaiveDate, NaiveTime};
use rust_decimal::Decimal;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::types::Null;
use crate::wit::spin::postgres::postgres::ParameterValue;

/// A parameter of any type.
pub(super) type Parameter = Box<dyn ToSql + Send + Sync>;

/// Converts all parameters, or tells which of them can't be.
pub(super) fn convert(values: &[ParameterValue]) -> Result<Vec<Parameter>> {
    values
        .iter()
        .enumerate()
        .map(|(index, value)| parameter(value).with_context(|| format!("parameter ${}", index + 1)))
        .collect()
}

fn parameter(value: &ParameterValue) -> Result<Parameter> {
    Ok(match value {
        ParameterValue::Boolean(value) => Box::new(*value),
        ParameterValue::Int8(value) => Box::new(*value),
        ParameterValue::Int16(value) => Box::new(*value),
        ParameterValue::Int32(value) => Box::new(*value),
        ParameterValue::Int64(value) => Box::new(*value),
        ParameterValue::Floating32(value) => Box::new(*value),
        ParameterValue::Floating64(value) => Box::new(*value),
        ParameterValue::Str(value) => Box::new(value.clone()),
        ParameterValue::Binary(value) => Box::new(value.clone()),
        ParameterValue::Date(value) => Box::new(date(*value)?),
        ParameterValue::Time(value) => Box::new(time(*value)?),
        ParameterValue::Datetime((year, month, day, hour, minute, second, nanosecond)) => {
            Box::new(date((*year, *month, *day))?.and_time(time((*hour, *minute, *second, *nanosecond))?))
        }
        ParameterValue::Timestamp(seconds) => {
            let instant = DateTime::from_timestamp(*seconds, 0);
            Box::new(instant.with_context(|| format!("invalid epoch timestamp {seconds}"))?)
        }
        ParameterValue::Uuid(value) => {
            Box::new(Uuid::parse_str(value).with_context(|| format!("invalid UUID {value}"))?)
        }
        ParameterValue::Jsonb(value) => {
            let json: serde_json::Value = serde_json::from_slice(value)
                .with_context(|| format!("invalid JSON {}", String::from_utf8_lossy(value)))?;
            Box::new(json)
        }
        ParameterValue::Decimal(value) => Box::new(decimal(value)?),
        ParameterValue::ArrayInt32(values) => Box::new(values.clone()),
        ParameterValue::ArrayInt64(values) => Box::new(values.clone()),
        ParameterValue::ArrayDecimal(values) => {
            let decimals: Result<Vec<Option<Decimal>>> =
                values.iter().map(|value| value.as_deref().map(decimal).transpose()).collect();
            Box::new(decimals?)
        }
        ParameterValue::ArrayStr(values) => Box::new(values.clone()),
        ParameterValue::Interval(value) => Box::new(*value),
        ParameterValue::DbNull => Box::new(Null),
        ParameterValue::RangeInt32(_) | ParameterValue::RangeInt64(_) | ParameterValue::RangeDecimal(_) => {
            bail!("ranges are not supported by this host")
        }
    })
}

fn decimal(value: &str) -> Result<Decimal> {
    Decimal::from_str_exact(value).with_context(|| format!("invalid decimal {value}"))
}

fn date((year, month, day): (i32, u8, u8)) -> Result<NaiveDate> {
    NaiveDate::from_ymd_opt(year, month.into(), day.into())
        .with_context(|| format!("invalid date y={year}, m={month}, d={day}"))
}

fn time((hour, minute, second, nanosecond): (u8, u8, u8, u32)) -> Result<NaiveTime> {
    NaiveTime::from_hms_nano_opt(hour.into(), minute.into(), second.into(), nanosecond)
        .with_context(|| format!("invalid time {hour}:{minute}:{second}:{nanosecond}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_that_makes_no_sense_is_named() {
        for (value, expected) in [
            (ParameterValue::Uuid("x".into()), "invalid UUID x"),
            (ParameterValue::Decimal("1.2.3".into()), "invalid decimal 1.2.3"),
            (ParameterValue::Jsonb(b"{".to_vec()), "invalid JSON {"),
            (ParameterValue::Date((2025, 13, 1)), "invalid date"),
            (ParameterValue::Datetime((2025, 2, 1, 24, 0, 0, 0)), "invalid time"),
            (ParameterValue::Timestamp(i64::MAX), "invalid epoch timestamp"),
            (ParameterValue::RangeInt32((None, None)), "ranges are not supported"),
        ] {
            let error = format!("{:#}", convert(&[ParameterValue::DbNull, value]).err().unwrap());
            assert!(error.contains("$2") && error.contains(expected), "{error}");
        }
    }
}
