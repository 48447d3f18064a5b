//! Buffered calls.

use super::{Answered, Begun, CallRequest, End, Outcome, Place, Settled, begin, with_ids};
use crate::{
    error::Result,
    http::{Mutation, TeamKey},
};
use axum::response::{IntoResponse, Response};
use std::time::Duration;

/// The maximum time that settling a call may take after a model has answered. A buffered answer is complete when it
/// begins.
const LIFETIME: Duration = Duration::from_secs(60);

/// Makes a buffered call; `form` builds the response from the model's answer.
///
/// It runs to its end even if the caller closes the connection, so the call is always settled.
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
    let settled = call.settle(End::Succeeded, &usage, true, None, &outcome).await?;
    Ok(call.with_headers(form(answered, settled)?.into_response()))
}
