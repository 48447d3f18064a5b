//! The statements of requests that change something: each takes effect once, and what the admin did is written down.
//!
//! Both happen in the statement that makes the change (`migrations/functions/requests.sql`), so they hold if and only if the change does.
//! A change is one statement ([`Request::run`]), or two with the work of others in between ([`Request::begin`], [`Request::finish`]).

use super::{Function, database::query, parameters::Parameters};
use crate::error::{Error, Result};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::value::RawValue;
use spin_sdk::pg::ParameterValue;
use std::sync::Arc;

/// What SQL takes as `p_request`: the JSON of a request with something to claim, to keep or to write down. Without any, the functions
/// that do so are left out of its statements.
#[derive(Debug, Clone, Default)]
pub struct Request(Option<Arc<str>>);

/// What a change answered.
#[derive(Deserialize)]
pub struct Changed {
    /// The same request was answered so before.
    pub replayed: bool,
    answer: Box<RawValue>,
}

/// What became of a request whose work takes two statements: one of the two.
#[derive(Deserialize)]
pub struct Claimed {
    /// The same request was answered before.
    pub kept: Option<Kept>,
    begun: Option<Box<RawValue>>,
}

/// What is kept of the answer of a request whose work takes two statements.
#[derive(Deserialize)]
pub struct Kept {
    answer: Box<RawValue>,
    /// What of the whole answer must not be stored in the clear, encrypted.
    pub sealed: Option<String>,
}

impl Changed {
    /// The function's answer.
    pub fn answer<T: DeserializeOwned>(&self) -> Result<T> {
        read(&self.answer)
    }
}

impl Claimed {
    /// What the work begins with.
    pub fn begun<T: DeserializeOwned>(&self) -> Result<T> {
        let begun = self.begun.as_ref();
        read(begun.ok_or_else(|| Error::internal("a function that begins something answered nothing"))?)
    }
}

impl Kept {
    /// What the second statement answered.
    pub fn answer<T: DeserializeOwned>(&self) -> Result<T> {
        read(&self.answer)
    }
}

fn read<T: DeserializeOwned>(json: &RawValue) -> Result<T> {
    serde_json::from_slice(json.get().as_bytes())
        .map_err(|error| Error::internal(format!("unexpected answer: {error}")))
}

impl Request {
    /// Of what SQL takes as `p_request`.
    pub fn new(request: Option<String>) -> Self {
        Self(request.map(Arc::from))
    }

    /// Whether there is something to claim, to keep or to write down.
    pub fn is_some(&self) -> bool {
        self.0.is_some()
    }

    fn parameter(&self) -> ParameterValue {
        self.0.as_ref().map_or(ParameterValue::DbNull, |request| ParameterValue::Str(request.to_string()))
    }

    /// Makes a change that is one statement: claims the request, changes, and keeps the answer.
    pub async fn run(&self, function: Function) -> Result<Changed> {
        let repeatable = function.is_repeatable();
        let mut parameters = Parameters::default();
        let statement = if self.is_some() {
            let request = parameters.push_value(self.parameter());
            let call = function.expression(&mut parameters);
            format!(
                "WITH claimed AS MATERIALIZED (SELECT claim({request}::text::json) AS kept) \
                 SELECT json_build_object('replayed', kept IS NOT NULL, 'answer', \
                 CASE WHEN kept IS NULL THEN keep({request}::text::json, {call}) ELSE kept END)::text AS answer \
                 FROM claimed"
            )
        } else {
            let call = function.expression(&mut parameters);
            format!("SELECT json_build_object('replayed', false, 'answer', {call})::text AS answer")
        };
        query(statement, parameters, repeatable).await?.read()
    }

    /// The first of two statements: claims the request, and begins its work. Until the `deadline` that the function answers, no repeat
    /// takes over.
    pub async fn begin(&self, function: Function) -> Result<Claimed> {
        let repeatable = function.is_repeatable();
        let mut parameters = Parameters::default();
        let statement = if self.is_some() {
            let request = parameters.push_value(self.parameter());
            let call = function.expression(&mut parameters);
            format!(
                "WITH claimed AS MATERIALIZED (SELECT claim({request}::text::json) AS kept) \
                 SELECT json_build_object('kept', kept, 'begun', \
                 CASE WHEN kept IS NULL THEN lease({request}::text::json, {call}) END)::text AS answer \
                 FROM claimed"
            )
        } else {
            let call = function.expression(&mut parameters);
            format!("SELECT json_build_object('begun', {call})::text AS answer")
        };
        query(statement, parameters, repeatable).await?.read()
    }

    /// The second of two statements: ends the work, and keeps its answer with `sealed`. With an `Idempotency-Key` and nothing sealed,
    /// the claim is released: a repeat does the work anew.
    pub async fn finish(&self, function: Function, sealed: Option<String>) -> Result<Kept> {
        let repeatable = function.is_repeatable();
        let mut parameters = Parameters::default();
        let statement = if self.is_some() {
            let request = parameters.push_value(self.parameter());
            let sealed = parameters.push_value(sealed.map_or(ParameterValue::DbNull, ParameterValue::Str));
            let call = function.expression(&mut parameters);
            format!(
                "WITH done AS MATERIALIZED (SELECT {call} AS answer) \
                 SELECT json_build_object('answer', answer, \
                 'finished', finish({request}::text::json, {sealed}, answer))::text AS answer FROM done"
            )
        } else {
            let call = function.expression(&mut parameters);
            format!("SELECT json_build_object('answer', {call})::text AS answer")
        };
        query(statement, parameters, repeatable).await?.read()
    }

    /// The work came to nothing: `undo` takes back what began it, and a repeat begins anew.
    pub async fn release(&self, undo: Function) -> Result<()> {
        let mut parameters = Parameters::default();
        let request = parameters.push_value(self.parameter());
        let undo = undo.expression(&mut parameters);
        let statement =
            format!("SELECT json_build_array({undo}, release({request}::text::json))::text AS answer");
        query(statement, parameters, false).await.map(drop)
    }
}
