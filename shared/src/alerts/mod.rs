//! Sending alerts to webhooks.
//!
//! Guarantees: each alert of a team with a webhook is delivered at least once. It stays due until its receiver answers
//! 2xx: deliveries are retried at growing intervals, at most 20 times (about four days), and a crash of the sender
//! loses none. After that it is `undelivered`, until it is to be sent again. A receiver that does not answer takes
//! nothing from others: they wait for it once, for [`LIMIT`] at most.
//!
//! Nothing here runs on a timer: due alerts are sent after a job is completed, credits are corrected, a team is
//! suspended or an alert is to be sent again, and by `POST /api/upkeep`, which a timer should request. The components
//! that make calls can reach only the database and LiteLLM, so the alerts that their calls raise are sent on the next
//! of these occasions.
//!
//! Deliveries have the form of Standard Webhooks: `webhook-id` is the alert's id, by which a receiver can recognize a
//! duplicate, and `webhook-signature` has a signature for each secret of the team that is valid at that time
//! ([`Secret`]).

mod secret;

pub use secret::{Secret, salt};

use crate::{
    error::{Error, Result},
    function,
    platform::{outbound, time::within},
    values::{AlertId, TeamId},
};
use axum::http::{self, Method, header};
use bytes::Bytes;
use futures::future::join_all;
use serde::Deserialize;
use serde_json::value::RawValue;
use spin_sdk::wasip3::spawn;
use std::time::{Duration, Instant, SystemTime};

/// The maximum time that a receiver may take to answer.
const LIMIT: Duration = Duration::from_secs(10);

/// The maximum number of alerts that are sent at once.
const AT_ONCE: i64 = 32;

/// The maximum time in which more alerts are taken. What was not accepted is not due again before it is over.
const RUN: Duration = Duration::from_secs(50);

#[derive(Deserialize)]
struct Due {
    alert_id: AlertId,
    team_id: TeamId,
    url: String,
    body: Box<RawValue>,
    /// In hex; `None`: no salt, but the deployment's secret itself.
    salts: Vec<Option<String>>,
}

/// Sends the due alerts in the background. Without a `webhook_secret` nothing is sent.
pub fn deliver() {
    spawn(async {
        if let Err(error) = deliver_due().await {
            error.log("delivering alerts");
        }
    });
}

/// Sends the due alerts. Returns how many were accepted.
pub async fn deliver_due() -> Result<i64> {
    let Some(deployment) = Secret::of_deployment().await? else { return Ok(0) };
    let began = Instant::now();
    let mut accepted = 0_i64;
    while began.elapsed() < RUN {
        let due: Vec<Due> = function!(take_alerts(p_limit: AT_ONCE)).run().await?;
        if due.is_empty() {
            break;
        }
        // All at once, so that taking the next ones waits for one receiver at most.
        let attempts = join_all(due.into_iter().map(|alert| attempt(&deployment, alert))).await;
        for attempt in attempts {
            match attempt {
                Ok(is_accepted) => accepted = accepted.saturating_add(is_accepted.into()),
                Err(error) => error.log("delivering an alert"),
            }
        }
    }
    Ok(accepted)
}

/// Sends an alert, and writes down whether it was accepted, which it returns. If it was not, it is due again later.
async fn attempt(deployment: &Secret, alert: Due) -> Result<bool> {
    let request = signed(deployment, &alert)?;
    let answer = within(LIMIT, outbound::send(request)).await;
    let accepted = answer.is_some_and(|answer| answer.is_ok_and(|answer| answer.status().is_success()));
    if accepted {
        let function = function!(alert_delivered(p_alert_id: alert.alert_id, p_url: alert.url));
        function.run::<bool>().await?;
    }
    Ok(accepted)
}

fn signed(deployment: &Secret, alert: &Due) -> Result<http::Request<Bytes>> {
    let id = alert.alert_id.to_string();
    let timestamp =
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_err(Error::internal)?.as_secs();
    let body = alert.body.get();
    let signatures: Vec<String> = alert
        .salts
        .iter()
        .map(|salt| match salt {
            None => deployment.sign(&id, timestamp, body),
            Some(salt) => deployment.of_team(&alert.team_id, salt)?.sign(&id, timestamp, body),
        })
        .collect::<Result<_>>()?;
    http::Request::builder()
        .method(Method::POST)
        .uri(&alert.url)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::CONTENT_LENGTH, body.len())
        .header("webhook-id", &id)
        .header("webhook-timestamp", timestamp)
        .header("webhook-signature", signatures.join(" "))
        .body(Bytes::copy_from_slice(body.as_bytes()))
        .map_err(Error::internal)
}
