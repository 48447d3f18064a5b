//! The statements of requests that change something. Each request takes effect once, and the changes that the admin
//! makes are written to the audit log.
//!
//! Both are part of the statement that makes the change (`migrations/functions/requests.sql`), so they take effect if
//! and only if the change does. A change takes one statement ([`Request::run`]), or two with other work in between
//! ([`Request::begin`], [`Request::finish`]).

use super::{
    Function,
    database::{Answer, query},
    parameters::Parameters,
};
use crate::error::{Error, Result};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::value::RawValue;
use spin_sdk::pg::ParameterValue;
use std::sync::Arc;

/// The value of SQL's parameter `p_request`: the JSON of a request that is claimed, stored or audited. If it is `None`,
/// the statements leave out the functions for that.
#[derive(Debug, Clone, Default)]
pub struct Request(Option<Arc<str>>);

/// The answer of a change with one statement.
#[derive(Deserialize)]
pub struct Changed {
    /// Whether this is the stored answer of an earlier request.
    #[serde(default)]
    pub replayed: bool,
    answer: Box<RawValue>,
}

/// The answer of the first of two statements: either `kept` or `begun`.
#[derive(Deserialize)]
pub struct Claimed {
    /// The stored answer, if the same request was answered before.
    pub kept: Option<Kept>,
    begun: Option<Box<RawValue>>,
}

/// The stored answer of a request with two statements.
#[derive(Deserialize)]
pub struct Kept {
    answer: Box<RawValue>,
    /// The secret part of the answer, encrypted.
    pub sealed: Option<String>,
}

impl Changed {
    /// The function's answer.
    pub fn answer<T: DeserializeOwned>(&self) -> Result<T> {
        read(&self.answer)
    }
}

impl Claimed {
    /// The answer of the function that begins the work.
    pub fn begun<T: DeserializeOwned>(&self) -> Result<T> {
        let begun = self.begun.as_ref();
        read(begun.ok_or_else(|| Error::internal("a function that begins something answered nothing"))?)
    }
}

impl Kept {
    /// The answer of the second statement's function.
    pub fn answer<T: DeserializeOwned>(&self) -> Result<T> {
        read(&self.answer)
    }
}

fn read<T: DeserializeOwned>(json: &RawValue) -> Result<T> {
    serde_json::from_slice(json.get().as_bytes())
        .map_err(|error| Error::internal(format!("unexpected answer: {error}")))
}

impl Request {
    /// A request with this value of `p_request`.
    pub fn new(request: Option<String>) -> Self {
        Self(request.map(Arc::from))
    }

    /// Whether the request is claimed, stored or audited.
    pub fn is_some(&self) -> bool {
        self.0.is_some()
    }

    fn parameter(&self) -> ParameterValue {
        self.0.as_ref().map_or(ParameterValue::DbNull, |request| ParameterValue::Str(request.to_string()))
    }

    /// Sends the statement that `around` makes of the request, which is `$1`, and the call of the function; `others`
    /// are its parameters from `$2` on. Without a request, sends a statement that answers the call as `alone`.
    async fn send(
        &self,
        function: Function,
        alone: &str,
        around: &(dyn Fn(&str, &str) -> String + Sync),
        others: Vec<ParameterValue>,
    ) -> Result<Answer> {
        let repeatable = function.is_repeatable();
        let mut parameters = Parameters::default();
        let statement = if self.is_some() {
            let request = format!("{}::text::json", parameters.push_value(self.parameter()));
            others.into_iter().for_each(|other| drop(parameters.push_value(other)));
            around(&request, &function.expression(&mut parameters))
        } else {
            let call = function.expression(&mut parameters);
            format!("SELECT json_build_object('{alone}', {call})::text AS answer")
        };
        query(statement, parameters, repeatable).await
    }

    /// Makes a change with one statement: claims the request, makes the change, and stores the answer.
    pub async fn run(&self, function: Function) -> Result<Changed> {
        let around = |request: &str, call: &str| {
            format!(
                "WITH claimed AS MATERIALIZED (SELECT claim({request}) AS kept) \
                 SELECT json_build_object('replayed', kept IS NOT NULL, 'answer', \
                 CASE WHEN kept IS NULL THEN keep({request}, {call}) ELSE kept END)::text AS answer FROM claimed"
            )
        };
        self.send(function, "answer", &around, vec![]).await?.read()
    }

    /// The first of two statements: claims the request, and begins its work. Until the `deadline` in the function's
    /// answer, the claim is leased, and a retry can't take over.
    pub async fn begin(&self, function: Function) -> Result<Claimed> {
        let around = |request: &str, call: &str| {
            format!(
                "WITH claimed AS MATERIALIZED (SELECT claim({request}) AS kept) \
                 SELECT json_build_object('kept', kept, 'begun', \
                 CASE WHEN kept IS NULL THEN lease({request}, {call}) END)::text AS answer FROM claimed"
            )
        };
        self.send(function, "begun", &around, vec![]).await?.read()
    }

    /// The second of two statements: ends the work, and stores its answer with `sealed`. For a request with an
    /// `Idempotency-Key` but nothing sealed, it releases the claim, and a retry does the work again.
    pub async fn finish(&self, function: Function, sealed: Option<String>) -> Result<Kept> {
        let around = |request: &str, call: &str| {
            format!(
                "WITH done AS MATERIALIZED (SELECT {call} AS answer) \
                 SELECT json_build_object('answer', answer, 'finished', finish({request}, $2, answer))::text AS answer \
                 FROM done"
            )
        };
        let sealed = sealed.map_or(ParameterValue::DbNull, ParameterValue::Str);
        self.send(function, "answer", &around, vec![sealed]).await?.read()
    }

    /// Replaces [`Request::finish`] if the work has failed: `undo` takes back what the first statement did, and a retry
    /// starts again.
    pub async fn release(&self, undo: Function) -> Result<()> {
        let mut parameters = Parameters::default();
        let request = parameters.push_value(self.parameter());
        let undo = undo.expression(&mut parameters);
        let statement =
            format!("SELECT json_build_array({undo}, release({request}::text::json))::text AS answer");
        query(statement, parameters, false).await.map(drop)
    }
}
