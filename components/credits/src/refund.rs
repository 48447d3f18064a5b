//! Refunds of what a job was charged.

use crate::transactions::Transaction;
use axum::Json;
use serde::{Deserialize, Serialize};
use shared::{
    error::Result,
    function,
    http::{Body, Mutation, PathTeam},
    values::{Amount, JobId, Prose, TeamId},
};
use utoipa::ToSchema;

/// What to refund, and why.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"job_id": "0193e7c2-2b3c-7d4e-8f5a-6b7c8d9e0f1a", "reason": "The answer was unusable"}))]
pub struct RefundCredits {
    /// The job that was charged.
    job_id: JobId,
    /// The number of credits to refund, at most what the job was charged less earlier refunds; without it, all of that.
    credits: Option<Amount>,
    /// The reason that the ledger shows.
    reason: Prose,
}

/// The result of a refund.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct Refunded {
    /// The team that got the credits back.
    team_id: TeamId,
    /// The job that was charged.
    job_id: JobId,
    /// The number of credits that were refunded now.
    credits_refunded: i64,
    /// The team's balance afterwards, in credits; negative if it is overdrawn.
    credits_remaining: i64,
    /// The ledger entry of the refund.
    transaction: Transaction,
}

/// Refund credits of a job
///
/// Over all refunds of a job, at most what it was charged. It lowers the team's `credits_used`. A cost of the job that
/// comes late is charged all the same.
#[utoipa::path(post, path = "/api/credits/teams/{team_id}/refund", tag = "Credits", params(("team_id" = TeamId, Path)),
    request_body = RefundCredits,
    responses((status = 200, body = Refunded), (status = 404, description = "`not_found`"),
        (status = 409, description = "`refund_exceeds_charge`")))]
pub async fn refund(
    mutation: Mutation,
    PathTeam(team_id): PathTeam,
    Body(body): Body<RefundCredits>,
) -> Result<Json<Refunded>> {
    let function = function!(refund_credits(
        p_team_id: team_id,
        p_job_id: body.job_id,
        p_credits: body.credits,
        p_reason: body.reason,
    ));
    mutation.run(function).await.map(Json)
}
