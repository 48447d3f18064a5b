//! The secrets by which a team's webhooks are signed.

use axum::Json;
use serde::{Deserialize, Serialize};
use shared::{
    alerts::{Secret, salt},
    error::Result,
    function,
    http::{Body, Mutation, PathTeam},
    values::{TeamId, Whole},
};
use utoipa::ToSchema;

/// How long the replaced secret continues to sign.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"grace_seconds": 3600}))]
pub struct RotateWebhookSecret {
    /// Seconds for which deliveries are signed by the replaced secret, too: 0 to 2,592,000 (30 days); 86,400 (a day) is
    /// the default.
    #[serde(default = "a_day")]
    grace_seconds: Grace,
}

/// Seconds for which a replaced secret continues to sign: 0 to 2,592,000.
type Grace = Whole<0, 2_592_000>;

fn a_day() -> Grace {
    const { Grace::new(86_400) }
}

/// A new secret. Only this answer shows it.
#[derive(Serialize, ToSchema)]
pub struct NewWebhookSecret {
    /// The team.
    team_id: TeamId,
    /// The secret, `whsec_` and the base64 of its 32 bytes, as libraries for Standard Webhooks take it. It is not shown
    /// again.
    webhook_secret: String,
    /// Until when deliveries are signed by the replaced secret, too (RFC 3339, UTC); `null`: they are not.
    previous_valid_until: Option<String>,
}

/// Replace a team's webhook secret
///
/// Only this answer shows the new secret. Until the first one, deliveries to the team's webhook are signed by the
/// deployment's secret, the variable `webhook_secret`. While `grace_seconds` run, each delivery carries two signatures,
/// the new secret's first; a secret that was replaced before ends at once. If the deployment has no `webhook_secret`,
/// which all others are derived from, this is a 400.
#[utoipa::path(post, path = "/api/teams/{team_id}/webhook-secret/rotate", tag = "Teams",
    operation_id = "rotate_webhook_secret", params(("team_id" = TeamId, Path)),
    request_body = RotateWebhookSecret, responses((status = 200, body = NewWebhookSecret)))]
pub async fn rotate(
    mutation: Mutation,
    PathTeam(team_id): PathTeam,
    Body(new): Body<RotateWebhookSecret>,
) -> Result<Json<NewWebhookSecret>> {
    /// The kept answer of a repeated request holds the salt, and the secret is derived from it again.
    #[derive(Deserialize)]
    struct Rotated {
        salt: String,
        previous_valid_until: Option<String>,
    }
    let deployment = Secret::of_configured_deployment().await?;
    let function = function!(rotate_webhook_secret(
        p_team_id: &team_id,
        p_salt: salt()?,
        p_grace_seconds: new.grace_seconds.as_i32(),
    ));
    let Rotated { salt, previous_valid_until } = mutation.run(function).await?;
    let webhook_secret = deployment.of_team(&team_id, &salt)?.expose();
    Ok(Json(NewWebhookSecret { team_id, webhook_secret, previous_valid_until }))
}
