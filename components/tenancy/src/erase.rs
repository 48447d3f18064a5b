//! Erasing an end user of a team.

use axum::Json;
use serde::{Deserialize, Serialize, de::IgnoredAny};
use shared::{
    error::Result,
    function,
    http::{Body, Mutation, PathTeam},
    values::{Label, TeamId},
};
use utoipa::ToSchema;
use uuid::Uuid;

/// The time after which a repeat of a request with an `Idempotency-Key` takes over.
const LEASE_SECONDS: i32 = 300;

/// The user to erase.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"user_id": "user-17"}))]
pub struct EraseUser {
    /// The user's id, as jobs have it.
    user_id: Label,
}

/// What was erased.
#[derive(Serialize, Deserialize, Default, ToSchema)]
pub struct Erased {
    /// The number of jobs that the user was erased from.
    jobs: i64,
    /// The number of calls whose messages were deleted.
    messages: i64,
}

/// Erase a user
///
/// In all jobs of the team for this user, the user's id is replaced by a random one that begins with `erased-`, and
/// what was said of the jobs and their calls is deleted: stored messages, metadata, purposes and error messages, and
/// answers that were kept for an `Idempotency-Key`. Answers of models among them are kept only encrypted, and for a
/// day. Sums and costs stay. A request that breaks off can be repeated. An unknown user is no error.
#[utoipa::path(post, path = "/api/teams/{team_id}/erase-user", tag = "Teams", params(("team_id" = TeamId, Path)),
    request_body = EraseUser, responses((status = 200, body = Erased)))]
pub async fn erase_user(
    mutation: Mutation,
    PathTeam(team_id): PathTeam,
    Body(EraseUser { user_id }): Body<EraseUser>,
) -> Result<Json<Erased>> {
    let lease = || function!(begin_work(p_lease_seconds: LEASE_SECONDS));
    mutation.work(lease(), lease, |_: IgnoredAny| erase(&team_id, &user_id)).await.map(Json)
}

async fn erase(team_id: &TeamId, user_id: &Label) -> Result<Erased> {
    #[derive(Deserialize)]
    struct Batch {
        jobs: i64,
        messages: i64,
        more: bool,
    }
    let erased = format!("erased-{}", Uuid::new_v4());
    let mut sum = Erased::default();
    loop {
        let function = function!(erase_user(p_team_id: team_id, p_user_id: user_id, p_erased: &erased));
        let Batch { jobs, messages, more } = function.run().await?;
        sum.jobs = sum.jobs.saturating_add(jobs);
        sum.messages = sum.messages.saturating_add(messages);
        if !more {
            return Ok(sum);
        }
    }
}
