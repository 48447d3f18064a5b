//! PostgreSQL: one statement at a time.
//!
//! Every statement is one call of one function of `migrations/`, atomic by itself: Spin's pool hands connections on without
//! ROLLBACK, so nothing ever sends BEGIN. A connection is taken for one statement and given back before anything else is
//! waited for, so that a slow model never holds one. Statements are constants.

use crate::{
    error::{Code, Error, Result},
    settings,
    time::within,
};
use futures::future::BoxFuture;
use serde::de::DeserializeOwned;
use spin_sdk::{
    pg::{Connection, DbError, Error as PgError, ParameterValue, PgError as Failure, QueryError},
    time::sleep,
};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// How long a statement may take with everything before it: waiting for a connection of the pool, connecting, and being run.
/// `spin.toml` bounds the latter two more tightly; only this bounds the first, and a server that says nothing any more.
const LIMIT: Duration = Duration::from_secs(15);

/// For how long a statement that should not be lost is tried again while its caller waits.
const INSISTENCE: Duration = Duration::from_secs(5);

/// Runs a statement that answers one row of one column, text holding JSON, and reads that as `T`.
/// SQL's NULL is read as JSON's `null`.
pub async fn call<T: DeserializeOwned>(
    statement: &'static str,
    parameters: Vec<ParameterValue>,
) -> Result<T> {
    parse(statement, &run(statement, parameters).await?)
}

fn parse<T: DeserializeOwned>(statement: &str, text: &str) -> Result<T> {
    serde_json::from_slice(text.as_bytes())
        .map_err(|error| Error::internal(format!("{statement}: unexpected answer: {error}")))
}

/// The answer's text. Apart from [`call`], which a component has once for each type that it reads, and in a box, so that it is not
/// built into each of those either.
fn run(statement: &'static str, parameters: Vec<ParameterValue>) -> BoxFuture<'static, Result<String>> {
    Box::pin(async move { run_once(statement, parameters).await.map_err(|failed| failed.error) })
}

/// Why a statement has no answer.
struct Failed {
    error: Error,
    /// Whether it may have been carried out all the same: it was sent, and nothing came back.
    lost: bool,
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self { error, lost: false }
    }
}

async fn run_once(statement: &'static str, parameters: Vec<ParameterValue>) -> Result<String, Failed> {
    let address = settings::text("database_address").await?;
    let answer = within(LIMIT, async {
        let connection = Connection::open(address).await?;
        connection.query(statement, parameters).await?.collect().await
    })
    .await;
    let row = match answer {
        Some(Ok(rows)) => rows.into_iter().next(),
        Some(Err(error)) => {
            // The driver's own words: in practice a connection that went away under the statement.
            let lost = matches!(&error, PgError::PgError(Failure::QueryFailed(QueryError::Text(_))));
            return Err(Failed { error: failure(statement, error), lost });
        }
        None => {
            let error =
                Error::unavailable("The database").caused_by(format!("{statement}: no answer in time"));
            return Err(Failed { error, lost: true });
        }
    };
    match row.as_ref().map(|row| row.get::<Option<String>>(COLUMN)) {
        Some(Some(text)) => Ok(text.unwrap_or_else(|| "null".into())),
        _ => Err(Error::internal(format!("{statement}: no row with a text column '{COLUMN}'")).into()),
    }
}

/// [`call`] for a statement that may be repeated without harm and should not be lost: tried again a few times while the database is
/// away, unless that has taken long already.
///
/// Once its answer was lost, a refusal says nothing of what became of it: the key may have been revoked since, or the job ended. Then
/// the failure is the lost answer, [`Code::Unavailable`].
pub async fn insist<T: DeserializeOwned>(
    statement: &'static str,
    parameters: Vec<ParameterValue>,
) -> Result<T> {
    parse(statement, &run_insisting(statement, parameters).await?)
}

async fn run_insisting(statement: &'static str, parameters: Vec<ParameterValue>) -> Result<String> {
    let since = Instant::now();
    let mut lost = None;
    let mut waits = [100, 300, 900].into_iter();
    loop {
        let failed = match run_once(statement, parameters.clone()).await {
            Ok(text) => return Ok(text),
            Err(failed) => failed,
        };
        if failed.error.code != Code::Unavailable {
            return Err(lost.unwrap_or(failed.error));
        }
        match waits.next().filter(|_| since.elapsed() < INSISTENCE) {
            Some(wait) => sleep(Duration::from_millis(wait)).await,
            None => return Err(failed.error),
        }
        if failed.lost {
            lost = Some(failed.error);
        }
    }
}

/// The name of the column that [`call`] reads.
const COLUMN: &str = "answer";

/// Turns a driver's or the server's failure into what the caller sees.
fn failure(statement: &str, error: PgError) -> Error {
    match error {
        PgError::PgError(Failure::QueryFailed(QueryError::DbError(error))) => {
            server_failure(statement, &error)
        }
        PgError::PgError(Failure::QueryFailed(QueryError::Text(text))) => {
            Error::unavailable("The database").caused_by(format!("{statement}: {text}"))
        }
        PgError::PgError(Failure::ConnectionFailed(text)) => {
            Error::unavailable("The database").caused_by(text)
        }
        other => Error::internal(format!("{statement}: {other}")),
    }
}

fn server_failure(statement: &str, error: &DbError) -> Error {
    if let Some(code) = Code::from_sqlstate(&error.code) {
        let failure = Error::new(code, error.message.clone());
        return if matches!(code, Code::InProgress | Code::IdempotencyInProgress) {
            failure.retry_after(1)
        } else {
            failure
        };
    }
    // The error's detail may hold values of the request, so it is not logged.
    let cause = format!("{statement}: {} {}", error.code, error.message);
    match error.code.get(..2).unwrap_or_default() {
        // Connection, transaction rollback (deadlock, serialization), resources, operator intervention (shutdown, statement
        // timeout), system error; lock timeout; a server that only reads, as one does after it was replaced.
        "08" | "40" | "53" | "57" | "58" => Error::unavailable("The database").caused_by(cause),
        _ if matches!(error.code.as_str(), "55P03" | "25006") => {
            Error::unavailable("The database").caused_by(cause)
        }
        // Text that PostgreSQL can't hold.
        _ if error.code == "22021" => Error::new(Code::InvalidRequest, "body: U+0000 is not allowed here"),
        // Limits of the server; of those only the depth of nesting is in a caller's hands.
        "54" => Error::new(Code::InvalidRequest, "body: nested too deeply"),
        _ => Error::internal(cause),
    }
}

/// A parameter for `uuid`.
pub fn uuid(id: Uuid) -> ParameterValue {
    ParameterValue::Uuid(id.to_string())
}

/// A parameter for `text`, also where the statement goes on with `::json` or `::numeric`.
pub fn text(value: impl ToString) -> ParameterValue {
    ParameterValue::Str(value.to_string())
}

/// A parameter for `text` that may be NULL.
pub fn optional_text(value: Option<impl ToString>) -> ParameterValue {
    value.map_or(ParameterValue::DbNull, text)
}

/// A parameter for `text[]`.
pub fn texts<T: ToString>(values: &[T]) -> ParameterValue {
    ParameterValue::ArrayStr(values.iter().map(|value| Some(value.to_string())).collect())
}

/// The release of the database's schema, such as `0.2.0`. Where there is none, [`Code::Internal`].
pub async fn schema_version() -> Result<String> {
    call("SELECT to_json(schema_version())::text AS answer", vec![]).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(code: &str, message: &str) -> Error {
        server_failure(
            "SELECT",
            &DbError {
                as_text: String::new(),
                severity: "ERROR".into(),
                code: code.into(),
                message: message.into(),
                detail: Some("secret".into()),
                extras: vec![],
            },
        )
    }

    #[test]
    fn a_failure_on_purpose_keeps_its_message() {
        let error = failed("LJ005", "Insufficient credits. Required: 1, Available: 0");
        assert_eq!(error.code, Code::InsufficientCredits);
        assert_eq!(error.detail, "Insufficient credits. Required: 1, Available: 0");
    }

    #[test]
    fn what_passes_is_unavailable_and_what_does_not_is_internal() {
        for code in ["57P01", "57014", "53300", "08006", "40P01", "55P03", "25006"] {
            let error = failed(code, "x");
            assert_eq!((error.code, error.retry_after.as_deref()), (Code::Unavailable, Some("1")), "{code}");
        }
        for code in ["23505", "42883", "XX000", ""] {
            let error = failed(code, "x");
            assert_eq!(error.code, Code::Internal, "{code}");
            assert!(!error.detail.contains('x') || !error.detail.contains("secret"));
        }
    }
}
