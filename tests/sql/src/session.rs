//! The functions of `migrations/`, each as one statement outside of any transaction, as the components call them.

use serde_json::Value;
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

    /// `begin_team`.
    pub async fn begin_team(&self, attempt: Uuid, lease_seconds: i32, spec: &Value) -> Answer {
        self.call("SELECT begin_team($1, $2, $3, '{}')::text", &[&attempt, &lease_seconds, &Json(spec)]).await
    }

    /// `activate_team`, with a key whose digest is 32 times this byte.
    pub async fn activate_team(&self, attempt: Uuid, team: &str, key: u8, credits: i64) -> Answer {
        let hash = vec![key; 32];
        self.call("SELECT activate_team($1, $2, $3, 'hint', $4)::text", &[&attempt, &team, &hash, &credits])
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
        self.call(statement, &[&key, &team, &lifetime_seconds]).await
    }

    /// `complete_job`, adding this metadata.
    pub async fn complete_job(&self, key: Uuid, job: Uuid, status: &str, metadata: &Value) -> Answer {
        let statement = "SELECT complete_job($1, $2, $3, $4, NULL)::text";
        self.call(statement, &[&key, &job, &status, &Json(metadata)]).await
    }

    /// `get_job`, as the admin.
    pub async fn get_job(&self, job: Uuid) -> Answer {
        self.call("SELECT get_job($1, NULL)::text", &[&job]).await
    }

    /// `open_call`; no group is the team's default group.
    pub async fn open_call(
        &self,
        key: Uuid,
        job: Uuid,
        group: Option<&str>,
        deadline_seconds: i32,
    ) -> Answer {
        let statement = "SELECT open_call($1, $2, $3, 'purpose', false, '{}', $4)::text";
        self.call(statement, &[&key, &job, &group, &deadline_seconds]).await
    }

    /// `settle_call` with so many tokens, half of them of the prompt, and this cost.
    pub async fn settle_call(
        &self,
        call: Uuid,
        status: &str,
        tokens: i64,
        cost: Option<&str>,
        last: bool,
    ) -> Answer {
        let statement =
            "SELECT settle_call($1, $2, $3::bigint / 2, $3 - $3 / 2, $3, $4::text::numeric, 7, '[]',
                         CASE WHEN $2 = 'failed' THEN 'LLM call failed' END, $5)::text";
        self.call(statement, &[&call, &status, &tokens, &cost, &last]).await
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
        self.call("SELECT sweep_team($1)::text", &[&team]).await
    }

    /// `litellm_told`.
    pub async fn litellm_told(&self, team: &str, version: i64) -> Answer {
        self.call("SELECT litellm_told($1, $2)::text", &[&team, &version]).await
    }
}

fn refusal(error: tokio_postgres::Error) -> Refusal {
    let Some(error) = error.as_db_error() else { panic!("not the server's refusal: {error:?}") };
    Refusal {
        sqlstate: error.code().code().into(),
        message: error.message().into(),
        constraint: error.constraint().map(Into::into),
    }
}
