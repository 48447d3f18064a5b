//! Sending alerts to webhooks.
//!
//! Guarantees: each alert of a team with a webhook is delivered at least once. It stays due until its receiver answers
//! 2xx: deliveries are retried at growing intervals, at most 20 times (about four days), and a crash of the sender
//! loses none. An alert carries its id, by which a receiver can recognize a duplicate, and a signature.
//!
//! Nothing here runs on a timer: due alerts are sent after a job is completed, credits are corrected or a team is
//! suspended, and by `POST /api/upkeep`, which a timer should request. The components that make calls can reach
//! only the database and LiteLLM, so the alerts that their calls raise are sent on the next of these occasions.
//!
//! `x-webhook-signature: sha256=<hex>` is the HMAC-SHA256, with the variable `webhook_secret`, of
//! `x-webhook-timestamp`, a dot, and the body.

use crate::{
    error::Result,
    function,
    platform::{outbound, settings, time::within},
};
use axum::http::{self, Method, header};
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::Sha256;
use spin_sdk::wasip3::spawn;
use std::time::{Duration, SystemTime};
use uuid::Uuid;

/// The maximum time that a receiver may take to answer.
const LIMIT: Duration = Duration::from_secs(10);

#[derive(Deserialize)]
struct Due {
    alert_id: Uuid,
    url: String,
    body: Box<RawValue>,
}

/// Sends the due alerts in the background. Without a `webhook_secret` nothing is sent.
pub fn deliver() {
    spawn(async {
        if let Err(error) = deliver_due().await {
            error.log("delivering alerts");
        }
    });
}

async fn deliver_due() -> Result<()> {
    let secret = settings::text("webhook_secret").await?;
    if secret.is_empty() {
        return Ok(());
    }
    let due: Vec<Due> = function!(take_alerts()).run().await?;
    for alert in due {
        // A failed delivery is due again later.
        if send(&secret, &alert).await == Some(true) {
            function!(alert_delivered(p_alert_id: alert.alert_id)).run::<bool>().await?;
        }
    }
    Ok(())
}

/// Whether the receiver accepted the alert; `None`: there was no answer.
async fn send(secret: &str, alert: &Due) -> Option<bool> {
    let timestamp = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs();
    let body = alert.body.get();
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).ok()?;
    mac.update(format!("{timestamp}.{body}").as_bytes());
    let signature = hex::encode(mac.finalize().into_bytes());
    let request = http::Request::builder()
        .method(Method::POST)
        .uri(&alert.url)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::CONTENT_LENGTH, body.len())
        .header("x-webhook-id", alert.alert_id.to_string())
        .header("x-webhook-timestamp", timestamp)
        .header("x-webhook-signature", format!("sha256={signature}"))
        .body(Bytes::copy_from_slice(body.as_bytes()))
        .ok()?;
    let answer = within(LIMIT, outbound::send(request)).await?.ok()?;
    Some(answer.status().is_success())
}
