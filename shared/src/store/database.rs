//! PostgreSQL: one statement at a time.
//!
//! Every statement is one call of one function of `migrations/`, perhaps together with the functions of
//! [`super::idempotency`], and is atomic by itself: Spin's pool reuses connections without ROLLBACK, so no code here
//! ever sends BEGIN. A connection is taken for one statement and returned before anything else is awaited, so that a
//! slow model never holds one. The text of a statement consists of names in this code only; values from outside are
//! parameters.

use super::parameters::Parameters;
use crate::{
    error::{Code, Error, Result},
    platform::{settings, time::within},
};
use futures::future::BoxFuture;
use serde::de::DeserializeOwned;
use spin_sdk::{
    pg::{Connection, DbError, Error as PgError, ParameterValue, PgError as Failure, QueryError},
    time::sleep,
};
use std::time::{Duration, Instant};

/// The maximum time of a statement, including waiting for a connection of the pool and connecting. `spin.toml` has
/// shorter limits for connecting and for running the statement; only this one covers waiting for the pool, and a server
/// that stops responding.
const LIMIT: Duration = Duration::from_secs(15);

/// How long a repeatable statement is retried while its caller waits.
const INSISTENCE: Duration = Duration::from_secs(5);

/// Runs a statement that returns one row with one column, `answer`: text that is JSON. SQL's NULL is read as JSON's
/// `null`.
///
/// A `repeatable` statement does no harm when it is sent again. It is retried a few times while the database is
/// unavailable, unless that has taken too long already. If the answer to an attempt was lost, a later refusal does not
/// show what that attempt did: the key may have been revoked since, or the job ended. The error is then that of the
/// lost answer, [`Code::Unavailable`].
///
/// The future is boxed and independent of the type that the answer is read as, so that it is compiled once and not into
/// each caller.
pub(super) fn query(
    statement: String,
    parameters: Parameters,
    repeatable: bool,
) -> BoxFuture<'static, Result<Answer>> {
    Box::pin(async move {
        let text = if repeatable {
            insist(&statement, parameters.into()).await?
        } else {
            run(&statement, parameters.into()).await.map_err(|failed| failed.error)?
        };
        Ok(Answer { statement, text })
    })
}

/// The answer of a statement.
pub(super) struct Answer {
    statement: String,
    text: String,
}

impl Answer {
    /// Reads the answer as `T`.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(self.text.as_bytes())
            .map_err(|error| Error::internal(format!("{}: unexpected answer: {error}", self.statement)))
    }
}

/// Why a statement has no answer.
struct Failed {
    error: Error,
    /// Whether the statement may have taken effect: it was sent, and no answer came back.
    lost: bool,
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self { error, lost: false }
    }
}

async fn run(statement: &str, parameters: Vec<ParameterValue>) -> Result<String, Failed> {
    let address = settings::text("database_address").await?;
    let answer = within(LIMIT, async {
        let connection = Connection::open(address).await?;
        connection.query(statement, parameters).await?.collect().await
    })
    .await;
    let row = match answer {
        Some(Ok(rows)) => rows.into_iter().next(),
        Some(Err(error)) => {
            // An error of the driver itself: in practice, the connection broke while the statement was running.
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

async fn insist(statement: &str, parameters: Vec<ParameterValue>) -> Result<String> {
    let since = Instant::now();
    let mut lost = None;
    let mut waits = [100, 300, 900].into_iter();
    loop {
        let failed = match run(statement, parameters.clone()).await {
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

/// The name of the column with the answer.
const COLUMN: &str = "answer";

/// Turns a failure of the driver or the server into the caller's error.
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
        // Of a limit, the detail says after how many seconds a retry may succeed.
        let seconds = error.detail.as_deref().and_then(|detail| detail.parse::<u32>().ok());
        return match (code, seconds) {
            (Code::InProgress | Code::IdempotencyInProgress, _) => failure.retry_after(1),
            (Code::RateLimited | Code::TooManyCalls, Some(seconds)) => failure.retry_after(seconds),
            _ => failure,
        };
    }
    // The error's detail may contain values of the request, so it is not logged.
    let cause = format!("{statement}: {} {}", error.code, error.message);
    match error.code.get(..2).unwrap_or_default() {
        // Connection, transaction rollback (deadlock, serialization), resources, operator intervention (shutdown,
        // statement timeout), system error; below, lock timeout and a read-only server, as one is after a failover.
        "08" | "40" | "53" | "57" | "58" => Error::unavailable("The database").caused_by(cause),
        _ if matches!(error.code.as_str(), "55P03" | "25006") => {
            Error::unavailable("The database").caused_by(cause)
        }
        // Text that PostgreSQL can't hold.
        _ if error.code == "22021" => Error::new(Code::InvalidRequest, "body: U+0000 is not allowed here"),
        // The limit of the depth of nesting, the one limit of the server that a caller can exceed.
        _ if error.code == "54001" => Error::new(Code::InvalidRequest, "body: nested too deeply"),
        _ => Error::internal(cause),
    }
}

/// The release of the database's schema, such as `0.2.0`. Fails with [`Code::Internal`] if there is no schema.
pub async fn schema_version() -> Result<String> {
    let statement = "SELECT to_json(schema_version())::text AS answer".into();
    query(statement, Parameters::default(), false).await?.read()
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
        for code in ["23505", "42883", "XX000", "54000", "22003", ""] {
            let error = failed(code, "x");
            assert_eq!(error.code, Code::Internal, "{code}");
            assert!(!error.detail.contains('x') || !error.detail.contains("secret"));
        }
    }
}
