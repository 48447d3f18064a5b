//! Calls in jobs and in jobs of their own, buffered and streamed.

use crate::{
    driver::{CANARY, Intent, Round},
    history::{By, Kind, StreamEnd},
    team::{BREAKS, DEAR, FALLS_BACK, SHORT_PATIENCE, TIMES_OUT, UNPRICED, WORKS},
};
use fastrand::Rng;
use serde_json::{Value, json};
use uuid::Uuid;

/// The marks of a stream of two seconds.
const LONG: &str = "[[chunks=40]][[delay_ms=50]]";

impl Round {
    /// The body of a call, and how it behaves.
    pub(super) fn call_body(&self, tag: &str, streamed: bool, random: &mut Rng) -> Value {
        let mut marks = String::new();
        let mut group = None;
        match random.u32(..100) {
            0..7 => group = Some(FALLS_BACK),
            7..15 => group = Some(BREAKS),
            15..18 => marks = "[[status=400]]".into(),
            18..22 if streamed => marks = format!("[[error_after={}]]", random.u8(1..4)),
            22..24 if streamed => marks = format!("[[end_after={}]]", random.u8(1..4)),
            24..26 if streamed => marks = format!("[[cut_after={}]]", random.u8(1..4)),
            26..36 => marks = format!("[[first_ms={}]]", random.u16(50..600)),
            36..40 => group = Some(DEAR),
            40..45 => group = Some(WORKS),
            45..49 => group = Some(UNPRICED),
            49..52 => {
                group = Some(TIMES_OUT);
                marks = format!("[[first_ms={}]]", 2 * SHORT_PATIENCE);
            }
            _ => {}
        }
        if streamed && random.u8(..4) == 0 {
            marks += LONG;
        } else if streamed {
            marks += &format!("[[chunks={}]][[delay_ms={}]]", random.u8(3..12), random.u8(..40));
        }
        let mut body = self.call_body_with(tag, &marks);
        if let Some(group) = group {
            body["model_group"] = group.into();
        }
        body
    }

    /// The body of a call of the default group with these marks.
    pub(super) fn call_body_with(&self, tag: &str, marks: &str) -> Value {
        json!({"purpose": tag, "messages": [{"role": "user", "content": format!("{CANARY} {tag} {marks}")}]})
    }

    /// After how many events of the stream somebody leaves: mostly of a long one, which then goes on for a while.
    fn may_leave(body: &Value, random: &mut Rng) -> Option<usize> {
        let prompt = body["messages"][0]["content"].as_str().unwrap_or_default();
        let leaves = if prompt.contains(LONG) { random.u8(..4) > 0 } else { random.u8(..8) == 0 };
        (leaves && prompt.contains("[[chunks=")).then(|| random.usize(1..8))
    }

    pub(super) fn calling(&self, team: usize, by: By, job: Uuid, streamed: bool, random: &mut Rng) -> Intent {
        let (kind, route) =
            if streamed { (Kind::Stream, "llm-call-stream") } else { (Kind::Call, "llm-call") };
        let mut intent = self.intent(kind, team, by, format!("/api/jobs/{job}/{route}"), Value::Null);
        intent.body = self.call_body(&intent.tag, streamed, random);
        intent.job = Some(job);
        intent
    }

    pub(super) async fn call(&self, team: usize, by: By, job: Uuid, streamed: bool, random: &mut Rng) {
        let mut intent = self.calling(team, by, job, streamed, random);
        intent.leave_after = Self::may_leave(&intent.body, random);
        let heard = self.ask_somehow(intent, random).await;
        // Some don't care that a call has failed.
        if heard.status == 502 && random.bool() {
            self.complete(team, by, job, random).await;
        }
    }

    pub(super) async fn own_job(&self, team: usize, by: By, streamed: bool, random: &mut Rng) {
        let (kind, path) = if streamed {
            (Kind::OwnStream, "/api/jobs/create-and-call-stream")
        } else {
            (Kind::OwnJob, "/api/jobs/create-and-call")
        };
        let mut intent = self.intent(kind, team, by, path.into(), Value::Null);
        intent.body = self.call_body(&intent.tag, streamed, random);
        intent.body["job_type"] = "own".into();
        intent.leave_after = Self::may_leave(&intent.body, random);
        let heard = self.ask_somehow(intent, random).await;
        if random.u8(..3) == 0 {
            self.knows_job(team, &heard);
        }
        // Somebody else calls in the job while its own call goes on, at whose end everything in the job ends.
        if let (Some(StreamEnd::Left), Some(job)) = (&heard.stream, heard.job) {
            let other = self.calling(team, by, job, true, random);
            self.ask_somehow(other, random).await;
        }
    }

    pub(super) async fn chat(&self, team: usize, by: By, job: Option<Uuid>, random: &mut Rng) {
        let streamed = random.bool();
        let mut intent = self.intent(Kind::Chat, team, by, "/v1/chat/completions".into(), Value::Null);
        intent.body = self.call_body(&intent.tag, streamed, random);
        intent.body["stream"] = streamed.into();
        intent.job = job.filter(|_| random.bool());
        intent.job_header = true;
        intent.leave_after = Self::may_leave(&intent.body, random);
        self.ask_somehow(intent, random).await;
    }
}
