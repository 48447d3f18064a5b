//! The functions of `migrations/`, each as one statement outside of any transaction, as the components call them.

use crate::id;
use serde_json::{Value, json};
use tokio_postgres::{
    Client,
    types::{Json, ToSql},
};
use uuid::Uuid;

/// What a function answered, read as JSON: NULL and void are `null`.
pub type Answer = Result<Value, Refusal>;

/// A statement that PostgreSQL refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Its SQLSTATE.
    pub sqlstate: String,
    /// Its message.
    pub message: String,
    /// The constraint that was violated, if it was one.
    pub constraint: Option<String>,
    /// Where in which functions it happened.
    pub context: Option<String>,
    /// In how many seconds it may be another answer.
    pub detail: Option<String>,
}

/// What tests expect of an [`Answer`].
pub trait Expect {
    /// The answer; fails the test if it is a refusal.
    fn done(self) -> Value;
    /// Fails the test unless the answer is this refusal, in full.
    fn refused(self, sqlstate: &str, message: &str);
}

impl Expect for Answer {
    #[track_caller]
    fn done(self) -> Value {
        match self {
            Ok(value) => value,
            Err(refusal) => panic!("{refusal:?}"),
        }
    }

    #[track_caller]
    fn refused(self, sqlstate: &str, message: &str) {
        let refusal = self.expect_err("a refusal");
        assert_eq!((refusal.sqlstate.as_str(), refusal.message.as_str()), (sqlstate, message));
    }
}

/// What a call's settling says.
#[derive(Debug, Clone, Copy)]
pub struct Settling<'a> {
    /// How it ended.
    pub status: &'a str,
    /// Half of them of the prompt.
    pub tokens: i64,
    /// In USD; `None`: not known.
    pub cost: Option<&'a str>,
    /// How long it took.
    pub latency_ms: i64,
    /// The last one that was tried, if any was.
    pub model: Option<&'a str>,
    /// Whether no other settling follows.
    pub last: bool,
    /// Whether output reached the caller; `None`: it did if the call succeeded.
    pub delivered: Option<bool>,
    /// Whether the model's numbers were out of bounds.
    pub implausible: bool,
}

impl Default for Settling<'_> {
    fn default() -> Self {
        Self {
            status: "succeeded",
            tokens: 0,
            cost: None,
            latency_ms: 7,
            model: None,
            last: true,
            delivered: None,
            implausible: false,
        }
    }
}

/// One connection.
pub struct Session {
    /// For statements that have no method here.
    pub client: Client,
}

impl Session {
    /// Runs a statement that answers one row of one column, `text` holding JSON.
    pub async fn call(&self, statement: &str, parameters: &[&(dyn ToSql + Sync)]) -> Answer {
        let rows = self.client.query(statement, parameters).await.map_err(refusal)?;
        let text: Option<String> = rows.first().unwrap_or_else(|| panic!("{statement}: no row")).get(0);
        Ok(match text.as_deref() {
            None | Some("") => Value::Null,
            Some(text) => {
                serde_json::from_str(text).unwrap_or_else(|error| panic!("{statement}: {error}: {text}"))
            }
        })
    }

    /// Runs a statement whose rows nobody needs.
    pub async fn run(&self, statement: &str) -> Answer {
        self.client.batch_execute(statement).await.map_err(refusal).map(|()| Value::Null)
    }

    /// The one value that a statement answers, as text.
    pub async fn text(&self, statement: &str) -> String {
        let rows = self.client.query(&format!("SELECT ({statement})::text"), &[]).await.expect(statement);
        rows.first().expect(statement).get::<_, Option<String>>(0).unwrap_or_default()
    }

    /// Lets the ids that this connection makes be of so many days from today, where
    /// [that is allowed](crate::World::allow_ids_of_other_days).
    pub async fn make_ids_of(&self, days: i32) {
        self.run(&format!("SET test.days = {days}")).await.done();
    }

    /// `begin_team`.
    pub async fn begin_team(&self, attempt: Uuid, lease_seconds: i32, spec: &Value) -> Answer {
        self.call("SELECT begin_team($1, $2, $3, '{}')::text", &[&attempt, &lease_seconds, &Json(spec)]).await
    }

    /// `activate_team`, with a key whose digest is 32 times this byte.
    pub async fn activate_team(&self, attempt: Uuid, team: &str, key: u8, credits: i64) -> Answer {
        let hash = vec![key; 32];
        self.call(
            "SELECT activate_team($1, $2, 1, 'alias', $3, 'hint', $4)::text",
            &[&attempt, &team, &hash, &credits],
        )
        .await
    }

    /// `abandon_team`.
    pub async fn abandon_team(&self, attempt: Uuid, team: &str, clean: bool) -> Answer {
        self.call("SELECT abandon_team($1, $2, $3)::text", &[&attempt, &team, &clean]).await
    }

    /// `set_team_status`.
    pub async fn set_team_status(&self, team: &str, status: &str) -> Answer {
        self.call("SELECT set_team_status($1, $2)::text", &[&team, &status]).await
    }

    /// `set_team_model_groups`.
    pub async fn set_team_model_groups(&self, team: &str, groups: &[&str]) -> Answer {
        self.call("SELECT set_team_model_groups($1, $2)::text", &[&team, &groups]).await
    }

    /// `create_job`.
    pub async fn create_job(&self, key: Uuid, team: &str, lifetime_seconds: i32) -> Answer {
        let statement = "SELECT create_job($1, $2, 'somebody', 'test', '{\"kept\": true}', $3)::text";
        self.call(statement, &[&actor(key), &team, &lifetime_seconds]).await
    }

    /// `complete_job`, adding this metadata.
    pub async fn complete_job(&self, key: Uuid, job: Uuid, status: &str, metadata: &Value) -> Answer {
        let statement = "SELECT (complete_job($1, $2, $3, $4, NULL) -> 'completion')::text";
        self.call(statement, &[&actor(key), &job, &status, &Json(metadata)]).await
    }

    /// `get_job`, as the admin.
    pub async fn get_job(&self, job: Uuid) -> Answer {
        self.call("SELECT get_job($1, 'admin')::text", &[&job]).await
    }

    /// `begin_call`; no group is the team's default group.
    pub async fn begin_call(
        &self,
        key: Uuid,
        job: Uuid,
        group: Option<&str>,
        deadline_seconds: i32,
    ) -> Answer {
        let statement = "SELECT begin_call($1, $2, $3, 'purpose', false, '{}', $4)::text";
        self.call(statement, &[&actor(key), &job, &group, &deadline_seconds]).await
    }

    /// `settle_call` with so many tokens and this cost, after seven milliseconds, when no model was tried.
    pub async fn settle_call(
        &self,
        call: Uuid,
        status: &str,
        tokens: i64,
        cost: Option<&str>,
        last: bool,
    ) -> Answer {
        let job = "SELECT job_id FROM calls WHERE call_id = $1 UNION ALL SELECT NULL LIMIT 1";
        let job = self.client.query_one(job, &[&call]).await.expect("a row").get::<_, Option<Uuid>>(0);
        let settling = Settling { status, tokens, cost, last, ..Settling::default() };
        self.settle(job.unwrap_or_default(), call, settling).await
    }

    /// `settle_call`.
    pub async fn settle(&self, job: Uuid, call: Uuid, settling: Settling<'_>) -> Answer {
        self.settle_by(
            "SELECT (settle_call($1, $2, $3, $4, $5, $6, $7::text::numeric, $8, $9, $10, $11, $12, $13)
                     -> 'settled')::text",
            job,
            call,
            settling,
        )
        .await
    }

    /// `settle_job_with_call`.
    pub async fn settle_job(&self, job: Uuid, call: Uuid, settling: Settling<'_>) -> Answer {
        let statement = "SELECT (settle_job_with_call($1, $2, $3, $4, $5, $6, $7::text::numeric, $8, $9, \
                         $10, $11, $12, $13) -> 'completion')::text";
        self.settle_by(statement, job, call, settling).await
    }

    async fn settle_by(&self, statement: &str, job: Uuid, call: Uuid, settling: Settling<'_>) -> Answer {
        let Settling { status, tokens, cost, latency_ms, model, last, delivered, implausible } = settling;
        let attempts = Json(model.map(|model| json!({"model": model})).into_iter().collect::<Vec<_>>());
        let error = (status == "failed").then_some("LLM call failed");
        let (prompt, completion) = (tokens / 2, tokens - tokens / 2);
        self.call(
            statement,
            &[
                &job,
                &call,
                &status,
                &prompt,
                &completion,
                &tokens,
                &cost,
                &latency_ms,
                &attempts,
                &error,
                &last,
                &delivered,
                &implausible,
            ],
        )
        .await
    }

    /// `take_unpriced_calls`: each as `(job, call, last)`.
    pub async fn take_unpriced_calls(&self, limit: i64) -> Vec<(Uuid, Uuid, bool)> {
        let taken = self.call("SELECT take_unpriced_calls($1)::text", &[&limit]).await.done();
        let taken = taken.as_array().expect("a list");
        taken.iter().map(|one| (id(one, "job_id"), id(one, "call_id"), one["last"] == json!(true))).collect()
    }

    /// `price_call` with so many tokens, half of them of the prompt, and this cost. Answers whether it had an effect.
    pub async fn price_call(&self, job: Uuid, call: Uuid, tokens: Option<i64>, cost: Option<&str>) -> Answer {
        let statement =
            "SELECT (price_call($1, $2, $3, $4, $5, $6::text::numeric, false) -> 'settled')::text";
        let (prompt, completion) = (tokens.map(|all| all / 2), tokens.map(|all| all - all / 2));
        self.call(statement, &[&job, &call, &prompt, &completion, &tokens, &cost]).await
    }

    /// `refund_credits`; no number is all that is left.
    pub async fn refund_credits(&self, team: &str, job: Uuid, credits: Option<i64>) -> Answer {
        self.call("SELECT refund_credits($1, $2, $3, 'sorry')::text", &[&team, &job, &credits]).await
    }

    /// `begin_call` in the team's default group, in a deployment with these limits.
    pub async fn begin_call_within(&self, key: Uuid, job: Uuid, limits: &Value) -> Answer {
        let statement = "SELECT begin_call($1, $2, NULL, NULL, false, '{}', 3600, p_limits => $3)::text";
        self.call(statement, &[&actor(key), &job, &Json(limits)]).await
    }

    /// `add_credits`, at ten cents for each.
    pub async fn add_credits(&self, team: &str, amount: i64) -> Answer {
        self.call("SELECT add_credits($1, $2, 'more', '{}', 0.10)::text", &[&team, &amount]).await
    }

    /// `get_balance`.
    pub async fn get_balance(&self, team: &str) -> Answer {
        self.call("SELECT get_balance($1)::text", &[&team]).await
    }

    /// `sweep_team`.
    pub async fn sweep_team(&self, team: &str) -> Answer {
        self.call("SELECT to_json(expired)::text FROM sweep_team($1)", &[&team]).await
    }

    /// `adjust_credits`, at ten cents for each.
    pub async fn adjust_credits(&self, team: &str, change: i64) -> Answer {
        self.call("SELECT adjust_credits($1, $2, 'because', '{}', 0.10)::text", &[&team, &change]).await
    }

    /// `configure_auto_refill`, at ten cents for each credit.
    pub async fn configure_auto_refill(
        &self,
        team: &str,
        enabled: bool,
        amount: i64,
        period: &str,
    ) -> Answer {
        self.configure_refill(team, enabled, amount, period, "add", None).await
    }

    /// The same, saying what a refill does.
    pub async fn configure_refill(
        &self,
        team: &str,
        enabled: bool,
        amount: i64,
        period: &str,
        mode: &str,
        cap: Option<i64>,
    ) -> Answer {
        let statement = "SELECT configure_auto_refill($1, $2, $3, $4, 0.10, $5, $6)::text";
        self.call(statement, &[&team, &enabled, &amount, &period, &mode, &cap]).await
    }

    /// `update_team` with these fields.
    pub async fn update_team(&self, team: &str, fields: &Value) -> Answer {
        self.call("SELECT update_team($1, $2)::text", &[&team, &Json(fields)]).await
    }

    /// `delete_team`, and `cancel_open_jobs` after it, as the API has it.
    pub async fn delete_team(&self, team: &str) -> Answer {
        let deleted = self.call("SELECT delete_team($1)::text", &[&team]).await?;
        self.call("SELECT cancel_open_jobs($1)::text", &[&team]).await?;
        Ok(deleted)
    }

    /// `begin_key` and `activate_key`: a new key in place of this one, which works for some seconds more. Answers the
    /// new key's id.
    pub async fn rotate_key(&self, team: &str, replaced: Uuid, grace_seconds: i32) -> Answer {
        let new = Uuid::now_v7();
        self.call("SELECT begin_key($1, $2, NULL, true, $3, 60)::text", &[&team, &new, &replaced]).await?;
        let hash = [new.as_bytes().as_slice(); 2].concat();
        let statement = "SELECT (activate_key($1, $2, 'hint', $3, $4) #> '{key,key_id}')::text";
        self.call(statement, &[&new, &hash, &replaced, &grace_seconds]).await
    }

    /// `revoke_key`.
    pub async fn revoke_key(&self, team: &str, key: Uuid) -> Answer {
        self.call("SELECT revoke_key($1, $2)::text", &[&team, &key]).await
    }

    /// `litellm_synced`.
    pub async fn litellm_synced(&self, team: &str, version: i64) -> Answer {
        self.call("SELECT litellm_synced($1, $2, '{}')::text", &[&team, &version]).await
    }
}

/// The actor that SQL takes for whoever shows this key.
pub fn actor(key: Uuid) -> String {
    format!("key:{key}")
}

fn refusal(error: tokio_postgres::Error) -> Refusal {
    let Some(error) = error.as_db_error() else { panic!("not the server's refusal: {error:?}") };
    Refusal {
        sqlstate: error.code().code().into(),
        message: error.message().into(),
        constraint: error.constraint().map(Into::into),
        context: error.where_().map(Into::into),
        detail: error.detail().map(Into::into),
    }
}
