//! Metrics for Prometheus.

use axum::{
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
};
use rust_decimal::Decimal;
use serde::Deserialize;
use serde_json::value::RawValue;
use shared::{
    error::{Error, Result},
    function,
    values::Usd,
};
use std::fmt::{self, Write};

#[derive(Deserialize)]
struct Metrics {
    jobs: Jobs,
    credits: Credits,
    /// The upper bounds of the latency histogram's buckets, in milliseconds, ascending.
    latency_bounds: Vec<i64>,
    upkeep: Vec<Upkeep>,
    calls: Vec<Calls>,
}

/// When a step of the upkeep last succeeded.
#[derive(Deserialize)]
struct Upkeep {
    step: String,
    /// Seconds since 1970.
    succeeded_at: i64,
}

#[derive(Deserialize)]
struct Jobs {
    created: i64,
    completed: i64,
    failed: i64,
    cancelled: i64,
    expired: i64,
    free_with_output: i64,
    lost_settlements: i64,
}

#[derive(Deserialize)]
struct Credits {
    allocated: i64,
    used: i64,
    reserved: i64,
}

#[derive(Deserialize)]
struct Calls {
    model_group: String,
    succeeded: i64,
    failed: i64,
    refused: i64,
    cancelled: i64,
    abandoned: i64,
    tokens: Box<RawValue>,
    cost_usd: Usd,
    latency_ms: i64,
    /// The number of calls in each bucket; the last one is for latencies above the highest bound.
    latency_counts: Vec<i64>,
}

/// Read metrics
///
/// The metrics are in Prometheus' text format. A scraper sends the admin key in the header `X-Admin-Key`.
#[utoipa::path(get, path = "/metrics", tag = "Service", operation_id = "metrics",
    responses((status = 200, body = String, content_type = "text/plain", description = "Prometheus' text format")))]
pub async fn get() -> Result<Response> {
    let metrics: Metrics = function!(metrics()).run().await?;
    let mut text = String::new();
    write(&mut text, &metrics).map_err(Error::internal)?;
    Ok(([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response())
}

fn write(out: &mut String, metrics: &Metrics) -> fmt::Result {
    let Metrics { jobs, credits, latency_bounds, upkeep, calls } = metrics;
    family(out, "llm_jobs_jobs_created_total", "counter", "Jobs that were created.")?;
    writeln!(out, "llm_jobs_jobs_created_total {}", jobs.created)?;
    family(out, "llm_jobs_jobs_ended_total", "counter", "Jobs that have ended, by how.")?;
    for (status, number) in [
        ("completed", jobs.completed),
        ("failed", jobs.failed),
        ("cancelled", jobs.cancelled),
        ("expired", jobs.expired),
    ] {
        writeln!(out, "llm_jobs_jobs_ended_total{{status=\"{status}\"}} {number}")?;
    }
    family(
        out,
        "llm_jobs_free_jobs_with_output_total",
        "counter",
        "Jobs that ended without a charge though a call of theirs delivered output.",
    )?;
    writeln!(out, "llm_jobs_free_jobs_with_output_total {}", jobs.free_with_output)?;
    family(
        out,
        "llm_jobs_lost_settlements_total",
        "counter",
        "Usages that were not booked, since the call was not there any more.",
    )?;
    writeln!(out, "llm_jobs_lost_settlements_total {}", jobs.lost_settlements)?;
    family(out, "llm_jobs_credits", "gauge", "Credits of all teams.")?;
    for (state, number) in
        [("allocated", credits.allocated), ("used", credits.used), ("reserved", credits.reserved)]
    {
        writeln!(out, "llm_jobs_credits{{state=\"{state}\"}} {number}")?;
    }
    write_upkeep(out, upkeep)?;
    family(out, "llm_jobs_calls_total", "counter", "Calls that have ended, by how.")?;
    for group in calls {
        for (status, number) in [
            ("succeeded", group.succeeded),
            ("failed", group.failed),
            ("refused", group.refused),
            ("cancelled", group.cancelled),
            ("abandoned", group.abandoned),
        ] {
            let name = &group.model_group;
            writeln!(out, "llm_jobs_calls_total{{model_group=\"{name}\",status=\"{status}\"}} {number}")?;
        }
    }
    family(out, "llm_jobs_tokens_total", "counter", "Tokens of prompts and answers.")?;
    for group in calls {
        writeln!(out, "llm_jobs_tokens_total{{model_group=\"{}\"}} {}", group.model_group, group.tokens)?;
    }
    family(out, "llm_jobs_cost_usd_total", "counter", "What LiteLLM charged for calls, in US dollars.")?;
    for group in calls {
        writeln!(out, "llm_jobs_cost_usd_total{{model_group=\"{}\"}} {}", group.model_group, group.cost_usd)?;
    }
    family(out, "llm_jobs_call_latency_seconds", "histogram", "From a call's arrival to its answer's end.")?;
    for group in calls {
        histogram(out, group, latency_bounds)?;
    }
    Ok(())
}

fn write_upkeep(out: &mut String, steps: &[Upkeep]) -> fmt::Result {
    let name = "llm_jobs_upkeep_last_success_timestamp_seconds";
    family(out, name, "gauge", "When each step of the upkeep last succeeded.")?;
    for Upkeep { step, succeeded_at } in steps {
        writeln!(out, "{name}{{step=\"{step}\"}} {succeeded_at}")?;
    }
    Ok(())
}

fn family(out: &mut String, name: &str, kind: &str, help: &str) -> fmt::Result {
    writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}")
}

fn histogram(out: &mut String, group: &Calls, bounds: &[i64]) -> fmt::Result {
    let name = &group.model_group;
    let mut below = 0_i64;
    for (count, bound) in group.latency_counts.iter().zip(bounds) {
        below = below.saturating_add(*count);
        let bound = seconds(*bound);
        writeln!(
            out,
            "llm_jobs_call_latency_seconds_bucket{{model_group=\"{name}\",le=\"{bound}\"}} {below}"
        )?;
    }
    let all = group.latency_counts.iter().fold(0_i64, |sum, count| sum.saturating_add(*count));
    writeln!(out, "llm_jobs_call_latency_seconds_bucket{{model_group=\"{name}\",le=\"+Inf\"}} {all}")?;
    writeln!(
        out,
        "llm_jobs_call_latency_seconds_sum{{model_group=\"{name}\"}} {}",
        seconds(group.latency_ms)
    )?;
    writeln!(out, "llm_jobs_call_latency_seconds_count{{model_group=\"{name}\"}} {all}")
}

fn seconds(millis: i64) -> Decimal {
    Decimal::new(millis, 3).normalize()
}
