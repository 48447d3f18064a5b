//! A buffered call.

use super::{Answered, Begun, CallRequest, End, Outcome, Place, Settled, begin, with_ids};
use crate::{
    error::Result,
    http::{Mutation, TeamKey},
};
use axum::response::{IntoResponse, Response};
use std::time::Duration;

/// How long it may take to write what became of a call, once a model has answered. An answer that has begun is a whole one.
const LIFETIME: Duration = Duration::from_secs(60);

/// Makes a buffered call; `form` makes the answer of a model's.
///
/// It runs to its end although the caller leaves, so the call is settled all the same.
pub async fn complete<T: IntoResponse>(
    key: &TeamKey,
    mutation: &Mutation,
    place: Place<'_>,
    request: &CallRequest<'_>,
    form: impl Fn(Answered, Settled) -> Result<T>,
) -> Result<Response> {
    let mut call = match begin(key, mutation, place, request, LIFETIME).await? {
        Begun::Call(call) => call,
        Begun::Repeat(kept) => {
            return match *kept {
                (Outcome::Answered(answered), settled) => {
                    let (job_id, call_id) = (answered.job_id, answered.call_id);
                    Ok(with_ids(form(answered, settled)?.into_response(), job_id, call_id))
                }
                (outcome, _) => Ok(outcome.failure()),
            };
        }
    };
    let answer = call.first_answer(key, request, async |attempt, body| attempt.complete(body).await).await;
    let completion = match answer {
        Ok(completion) => completion,
        Err(failure) => return call.settle_failure(failure).await,
    };
    let usage = completion.usage;
    let answered = Answered::new(&call, completion);
    let outcome = Outcome::Answered(answered.clone());
    let settled = call.settle(End::Succeeded, &usage, None, &outcome).await?;
    Ok(call.with_headers(form(answered, settled)?.into_response()))
}
