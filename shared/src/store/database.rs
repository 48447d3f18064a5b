//! PostgreSQL: one statement at a time.
//!
//! Every statement is one call of one function of `migrations/`, perhaps with the functions of [`super::idempotency`] around it, and
//! atomic by itself: Spin's pool hands connections on without ROLLBACK, so nothing ever sends BEGIN. A connection is taken for one
//! statement and given back before anything else is waited for, so that a slow model never holds one. The text of a statement is made of
//! names in this code alone; what comes from outside is a parameter.

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

/// How long a statement may take with everything before it: waiting for a connection of the pool, connecting, and being run.
/// `spin.toml` bounds the latter two more tightly; only this bounds the first, and a server that says nothing any more.
const LIMIT: Duration = Duration::from_secs(15);

/// For how long a statement that should not be lost is tried again while its caller waits.
const INSISTENCE: Duration = Duration::from_secs(5);

/// Runs a statement that answers one row of one column, `answer`, text holding JSON. SQL's NULL is read as JSON's `null`.
///
/// A `repeatable` statement does no harm when it is sent again, and should not be lost: it is tried again a few times while the database
/// is away, unless that has taken long already. Once its answer was lost, a refusal says nothing of what became of it: the key may have
/// been revoked since, or the job ended. Then the failure is the lost answer, [`Code::Unavailable`].
///
/// In a box, and without the type that the answer is read as, so that it is built once and not into each caller.
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
    /// Reads it.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(self.text.as_bytes())
            .map_err(|error| Error::internal(format!("{}: unexpected answer: {error}", self.statement)))
    }
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

/// The name of the column that is read.
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

/// The release of the database's schema, such as `0.2.0`. Where there is none, [`Code::Internal`].
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
        for code in ["23505", "42883", "XX000", ""] {
            let error = failed(code, "x");
            assert_eq!(error.code, Code::Internal, "{code}");
            assert!(!error.detail.contains('x') || !error.detail.contains("secret"));
        }
    }
}
