//! Running statements, and their results in the words of the interface.
//!
//! Each statement is prepared, run and closed: nothing is cached, as in Spin.

use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use anyhow::Result;
use chrono::{Datelike as _, NaiveDate, NaiveDateTime, NaiveTime, Timelike as _};
use futures::{StreamExt as _, TryStreamExt as _};
use rust_decimal::Decimal;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use tokio_postgres::types::{FromSql, Type};
use uuid::Uuid;
use wasmtime::StoreContextMut;
use wasmtime::component::{Destination, StreamProducer, StreamResult, VecBuffer};

use super::errors::query_failed;
use super::parameters::convert;
use super::pools::PooledClient;
use super::types::Raw;
use crate::wit::spin::postgres::postgres::{
    Column, DbDataType, DbValue, Error, Interval, ParameterValue, QueryError, Row, RowSet,
};

/// How many rows wait for the guest before the database has to.
const WAITING_ROWS: usize = 4;

/// The result of a query whose rows are still coming.
pub(super) struct Streamed {
    /// Empty when there is no row: that is all that the driver knows then.
    pub(super) columns: Vec<Column>,
    pub(super) rows: Rows,
    pub(super) outcome: oneshot::Receiver<Result<(), Error>>,
}

/// Runs a statement for its effect and gives the number of rows that it touched.
pub(super) async fn execute(
    client: &PooledClient,
    statement: &str,
    parameters: &[ParameterValue],
) -> Result<u64, Error> {
    let parameters =
        convert(parameters).map_err(|error| Error::ValueConversionFailed(format!("{error:#}")))?;
    client.execute_raw(statement, parameters).await.map_err(|error| query_failed(&error))
}

/// Runs a query and collects all of its rows.
pub(super) async fn query(
    client: &PooledClient,
    statement: &str,
    parameters: &[ParameterValue],
) -> Result<RowSet, Error> {
    let parameters = convert(parameters).map_err(|error| Error::BadParameter(format!("{error:#}")))?;
    let rows = client.query_raw(statement, parameters).await.map_err(|error| query_failed(&error))?;
    let mut rows = pin!(rows);
    let mut result = RowSet { columns: Vec::new(), rows: Vec::new() };
    // From here on Spin gives errors as text only, in this function but not in the streaming one.
    while let Some(row) = rows.try_next().await.map_err(|error| text(error.into()))? {
        if result.rows.is_empty() {
            result.columns = columns(&row);
        }
        result.rows.push(values(&row).map_err(text)?);
    }
    Ok(result)
}

/// Runs a query and returns with its first row; the others follow as the guest takes them.
pub(super) async fn stream(
    client: &PooledClient,
    statement: &str,
    parameters: &[ParameterValue],
) -> Result<Streamed, Error> {
    let parameters = convert(parameters).map_err(|error| Error::BadParameter(format!("{error:#}")))?;
    let rows = client.query_raw(statement, parameters).await.map_err(|error| query_failed(&error))?;
    let mut rows = Box::pin(rows);
    let (row_sender, row_receiver) = mpsc::channel(WAITING_ROWS);
    let (outcome_sender, outcome) = oneshot::channel();
    let first = rows.next().await.transpose().map_err(|error| query_failed(&error))?;
    let columns = first.as_ref().map(columns).unwrap_or_default();
    match first {
        None => _ = outcome_sender.send(Ok(())),
        Some(first) => {
            _ = tokio::spawn(async move {
                let mut next = Some(Ok(first));
                let outcome = loop {
                    let row = match next {
                        None => break Ok(()),
                        Some(Err(error)) => break Err(query_failed(&error)),
                        Some(Ok(row)) => row,
                    };
                    let row = match values(&row) {
                        Err(error) => break Err(text(error)),
                        Ok(row) => row,
                    };
                    if row_sender.send(row).await.is_err() {
                        // The guest has dropped the stream and wants no more.
                        break Ok(());
                    }
                    next = rows.next().await;
                };
                _ = outcome_sender.send(outcome);
            })
        }
    }
    Ok(Streamed { columns, rows: Rows(row_receiver), outcome })
}

fn text(error: anyhow::Error) -> Error {
    Error::QueryFailed(QueryError::Text(format!("{error:#}")))
}

/// The rows that a guest reads from its stream.
pub(super) struct Rows(mpsc::Receiver<Row>);

impl<T> StreamProducer<T> for Rows {
    type Item = Row;
    type Buffer = VecBuffer<Row>;

    fn poll_produce<'a>(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        store: StoreContextMut<'a, T>,
        mut destination: Destination<'a, Row, VecBuffer<Row>>,
        finish: bool,
    ) -> Poll<wasmtime::Result<StreamResult>> {
        if destination.remaining(store) == Some(0) {
            return Poll::Ready(Ok(StreamResult::Completed));
        }
        let mut rows = Vec::with_capacity(WAITING_ROWS);
        match self.0.poll_recv_many(context, &mut rows, WAITING_ROWS) {
            Poll::Ready(0) => Poll::Ready(Ok(StreamResult::Dropped)),
            Poll::Ready(_) => {
                destination.set_buffer(rows.into());
                Poll::Ready(Ok(StreamResult::Completed))
            }
            Poll::Pending if finish => Poll::Ready(Ok(StreamResult::Cancelled)),
            Poll::Pending => Poll::Pending,
        }
    }
}

fn columns(row: &tokio_postgres::Row) -> Vec<Column> {
    row.columns()
        .iter()
        .map(|column| Column { name: column.name().to_owned(), data_type: data_type(column.type_()) })
        .collect()
}

fn data_type(kind: &Type) -> DbDataType {
    match *kind {
        Type::BOOL => DbDataType::Boolean,
        Type::BYTEA => DbDataType::Binary,
        Type::FLOAT4 => DbDataType::Floating32,
        Type::FLOAT8 => DbDataType::Floating64,
        Type::INT2 => DbDataType::Int16,
        Type::INT4 => DbDataType::Int32,
        Type::INT8 => DbDataType::Int64,
        Type::TEXT | Type::VARCHAR | Type::BPCHAR => DbDataType::Str,
        Type::TIMESTAMP | Type::TIMESTAMPTZ => DbDataType::Datetime,
        Type::DATE => DbDataType::Date,
        Type::TIME => DbDataType::Time,
        Type::UUID => DbDataType::Uuid,
        Type::JSONB => DbDataType::Jsonb,
        Type::NUMERIC => DbDataType::Decimal,
        Type::INT4_RANGE => DbDataType::RangeInt32,
        Type::INT8_RANGE => DbDataType::RangeInt64,
        Type::NUM_RANGE => DbDataType::RangeDecimal,
        Type::INT4_ARRAY => DbDataType::ArrayInt32,
        Type::INT8_ARRAY => DbDataType::ArrayInt64,
        Type::NUMERIC_ARRAY => DbDataType::ArrayDecimal,
        Type::TEXT_ARRAY | Type::VARCHAR_ARRAY | Type::BPCHAR_ARRAY => DbDataType::ArrayStr,
        Type::INTERVAL => DbDataType::Interval,
        _ => DbDataType::Other(kind.name().to_owned()),
    }
}

fn values(row: &tokio_postgres::Row) -> Result<Row> {
    (0..row.len()).map(|index| value(row, index)).collect()
}

fn value(row: &tokio_postgres::Row, index: usize) -> Result<DbValue> {
    match row.columns()[index].type_() {
        &Type::BOOL => get(row, index, DbValue::Boolean),
        &Type::BYTEA => get(row, index, DbValue::Binary),
        &Type::FLOAT4 => get(row, index, DbValue::Floating32),
        &Type::FLOAT8 => get(row, index, DbValue::Floating64),
        &Type::INT2 => get(row, index, DbValue::Int16),
        &Type::INT4 => get(row, index, DbValue::Int32),
        &Type::INT8 => get(row, index, DbValue::Int64),
        &Type::TEXT | &Type::VARCHAR | &Type::BPCHAR => get(row, index, DbValue::Str),
        // Spin takes both for a time without a zone, which the driver refuses for `timestamptz`: reading one is an
        // error.
        &Type::TIMESTAMP | &Type::TIMESTAMPTZ => get(row, index, datetime),
        &Type::DATE => get(row, index, |value: NaiveDate| {
            DbValue::Date((value.year(), value.month() as u8, value.day() as u8))
        }),
        &Type::TIME => get(row, index, |value: NaiveTime| {
            let (hour, minute, second) = (value.hour() as u8, value.minute() as u8, value.second() as u8);
            DbValue::Time((hour, minute, second, value.nanosecond()))
        }),
        &Type::UUID => get(row, index, |value: Uuid| DbValue::Uuid(value.to_string())),
        &Type::JSONB => get(row, index, |value: Value| DbValue::Jsonb(value.to_string().into())),
        &Type::NUMERIC => get(row, index, |value: Decimal| DbValue::Decimal(value.to_string())),
        &Type::INT4_ARRAY => get(row, index, DbValue::ArrayInt32),
        &Type::INT8_ARRAY => get(row, index, DbValue::ArrayInt64),
        &Type::NUMERIC_ARRAY => get(row, index, |values: Vec<Option<Decimal>>| {
            DbValue::ArrayDecimal(values.iter().map(|value| value.map(|value| value.to_string())).collect())
        }),
        &Type::TEXT_ARRAY | &Type::VARCHAR_ARRAY | &Type::BPCHAR_ARRAY => get(row, index, DbValue::ArrayStr),
        &Type::INTERVAL => get(row, index, |value: Interval| DbValue::Interval(value)),
        &Type::INT4_RANGE | &Type::INT8_RANGE | &Type::NUM_RANGE => {
            anyhow::bail!("column {index}: ranges are not supported by this host")
        }
        _ => get(row, index, |value: Raw| DbValue::Unsupported(value.0)),
    }
}

fn get<'a, T: FromSql<'a>>(
    row: &'a tokio_postgres::Row,
    index: usize,
    wrap: impl FnOnce(T) -> DbValue,
) -> Result<DbValue> {
    Ok(row.try_get::<_, Option<T>>(index)?.map_or(DbValue::DbNull, wrap))
}

fn datetime(value: NaiveDateTime) -> DbValue {
    let (date, time) = (value.date(), value.time());
    DbValue::Datetime((
        date.year(),
        date.month() as u8,
        date.day() as u8,
        time.hour() as u8,
        time.minute() as u8,
        time.second() as u8,
        time.nanosecond(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Spin holds a number that is not an integer as a float. Were `serde_json` built here with `arbitrary_precision`,
    /// a component that relies on digits beyond that would work here and fail there.
    #[test]
    fn json_numbers_lose_what_spin_loses() {
        for (json, expected) in [
            (r#"{"a":[1,-2,18446744073709551615]}"#, r#"{"a":[1,-2,18446744073709551615]}"#),
            ("0.10", "0.1"),
            ("1e2", "100.0"),
            ("0.123456789012345678901", "0.12345678901234568"),
            ("36893488147419103232", "3.6893488147419103e+19"),
            (r#"{"b":null,"a":"0.10"}"#, r#"{"a":"0.10","b":null}"#),
        ] {
            assert_eq!(serde_json::from_str::<Value>(json).unwrap().to_string(), expected);
        }
    }
}
