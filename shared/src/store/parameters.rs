//! The names and types of the parameters of the functions of `migrations/`. A name has the same meaning in every
//! function that has it.

use crate::values::{
    AccessGroupName, AlertId, CallId, GroupName, JobId, KeyId, Label, LiteLlmOrganizationId, Metadata, Name,
    OrganizationId, Prose, TeamId, Text, Usd, Whole, Word,
};
use spin_sdk::pg::ParameterValue;
use uuid::Uuid;

/// The actor that a function acts for. SQL gets it as text that names its kind, so that a missing value never means one
/// of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Actor {
    /// The admin.
    Admin,
    /// The team of a key, which SQL checks again.
    Key(KeyId),
    /// A team whose key was looked up before. It can only read.
    Team(TeamId),
}

/// JSON that this code has generated.
pub struct Json(pub String);

/// JSON that this code has generated and that SQL looks into: PostgreSQL parses it once.
pub struct Jsonb(pub String);

/// A day, as `YYYY-MM-DD`.
pub struct Day(pub String);

/// The type of parameters that take one of several kinds of [`Word`].
pub struct AnyWord;

/// A value that can be sent to PostgreSQL.
pub trait Value {
    /// The cast from the type that is sent to the type of the parameter, if they differ.
    const CAST: &'static str = "";

    /// The value as it is sent.
    fn value(&self) -> ParameterValue;
}

/// A value for a parameter of type `T`: a `T`, or an optional one, for which NULL is sent if it is missing.
pub trait Parameter<T> {
    /// The cast from the type that is sent to the type of the parameter, if they differ.
    const CAST: &'static str;

    /// The value as it is sent.
    fn into_value(self) -> ParameterValue;
}

impl<T: Value> Parameter<T> for T {
    const CAST: &'static str = T::CAST;

    fn into_value(self) -> ParameterValue {
        self.value()
    }
}

impl<T: Value> Parameter<T> for &T {
    const CAST: &'static str = T::CAST;

    fn into_value(self) -> ParameterValue {
        self.value()
    }
}

impl<T, P: Parameter<T>> Parameter<T> for Option<P> {
    const CAST: &'static str = P::CAST;

    fn into_value(self) -> ParameterValue {
        self.map_or(ParameterValue::DbNull, P::into_value)
    }
}

impl<const MIN: i64, const MAX: i64> Parameter<i64> for Whole<MIN, MAX> {
    const CAST: &'static str = "";

    fn into_value(self) -> ParameterValue {
        ParameterValue::Int64(self.get())
    }
}

impl<W: Word> Parameter<AnyWord> for W {
    const CAST: &'static str = "";

    fn into_value(self) -> ParameterValue {
        text(self.word())
    }
}

fn text(value: impl ToString) -> ParameterValue {
    ParameterValue::Str(value.to_string())
}

macro_rules! values {
    ($($type:ty $(as $cast:literal)?: |$value:ident| $parameter:expr),* $(,)?) => { $(
        impl Value for $type {
            $(const CAST: &'static str = $cast;)?

            fn value(&self) -> ParameterValue {
                let $value = self;
                $parameter
            }
        }
    )* };
}

values! {
    Actor: |actor| match actor {
        Actor::Admin => text("admin"),
        Actor::Key(key) => text(format_args!("key:{key}")),
        Actor::Team(team) => text(format_args!("team:{team}")),
    },
    bool: |value| ParameterValue::Boolean(*value),
    i32: |number| ParameterValue::Int32(*number),
    i64: |number| ParameterValue::Int64(*number),
    String: |value| text(value),
    Vec<u8>: |bytes| ParameterValue::Binary(bytes.clone()),
    Uuid: |id| ParameterValue::Uuid(id.to_string()),
    AlertId: |id| ParameterValue::Uuid(id.to_string()),
    JobId: |id| ParameterValue::Uuid(id.to_string()),
    CallId: |id| ParameterValue::Uuid(id.to_string()),
    KeyId: |id| ParameterValue::Uuid(id.to_string()),
    OrganizationId: |id| text(id),
    TeamId: |id| text(id),
    GroupName: |name| text(name),
    AccessGroupName: |name| text(name),
    LiteLlmOrganizationId: |id| text(id),
    Prose: |value| text(value),
    Metadata as "::text::json": |metadata| text(metadata),
    Json as "::text::json": |json| text(&json.0),
    Jsonb as "::text::jsonb": |json| text(&json.0),
    Usd as "::text::numeric": |amount| text(amount),
    Day as "::text::date": |day| text(&day.0),
    Vec<String>: |values| texts(values),
    Vec<GroupName>: |names| texts(names),
    Vec<AccessGroupName>: |names| texts(names),
}

impl<const MAX: usize> Value for Text<MAX> {
    fn value(&self) -> ParameterValue {
        text(self)
    }
}

fn texts<T: ToString>(values: &[T]) -> ParameterValue {
    ParameterValue::ArrayStr(values.iter().map(|value| Some(value.to_string())).collect())
}

/// An argument of a function.
pub struct Argument {
    name: &'static str,
    cast: &'static str,
    value: ParameterValue,
}

/// The parameters of a statement.
#[derive(Default)]
pub(super) struct Parameters(Vec<ParameterValue>);

impl Parameters {
    /// Adds an argument. Returns its text for the statement.
    pub fn push(&mut self, argument: Argument) -> String {
        let place = self.push_value(argument.value);
        format!("{} => {place}{}", argument.name, argument.cast)
    }

    /// Adds a value. Returns its text for the statement.
    pub fn push_value(&mut self, value: ParameterValue) -> String {
        self.0.push(value);
        format!("${}", self.0.len())
    }
}

impl From<Parameters> for Vec<ParameterValue> {
    fn from(parameters: Parameters) -> Self {
        parameters.0
    }
}

macro_rules! parameters {
    ($($name:ident: $type:ty),* $(,)?) => { $(
        /// The parameter of this name.
        pub fn $name<P: Parameter<$type>>(value: P) -> Argument {
            Argument { name: stringify!($name), cast: P::CAST, value: value.into_value() }
        }
    )* };
}

parameters! {
    p_access_group_name: AccessGroupName,
    p_access_groups: Vec<AccessGroupName>,
    p_actor: Actor,
    p_after: String,
    p_after_day: Day,
    p_after_job_type: String,
    p_after_team: TeamId,
    p_alert_id: AlertId,
    p_alias: Label,
    p_amount: i64,
    p_attempt: Uuid,
    p_attempts: Json,
    p_before: i64,
    p_before_call: CallId,
    p_before_job: JobId,
    p_call_id: CallId,
    p_cap: i64,
    p_change: i64,
    p_clean: bool,
    p_completion_tokens: i64,
    p_cost_usd: Usd,
    p_credits: i64,
    p_days: i32,
    p_deadline_seconds: i32,
    p_delivered: bool,
    p_description: Prose,
    p_display_name: String,
    p_enabled: bool,
    p_erased: String,
    p_error: String,
    p_error_message: Prose,
    p_fields: Json,
    p_final: bool,
    p_from: Day,
    p_grace_seconds: i32,
    p_group_name: GroupName,
    p_hint: String,
    p_implausible: bool,
    p_job_id: JobId,
    p_job_metadata: Metadata,
    p_job_type: Label,
    p_key_hash: Vec<u8>,
    p_key_id: KeyId,
    p_last: bool,
    p_latency_ms: i64,
    p_lease_seconds: i32,
    p_lifetime_seconds: i32,
    p_limit: i64,
    p_limits: Jsonb,
    p_litellm_alias: String,
    p_litellm_aliases: Vec<String>,
    p_litellm_organization_id: LiteLlmOrganizationId,
    p_made_from_name: bool,
    p_messages: Json,
    p_metadata: Metadata,
    p_mode: AnyWord,
    p_model_group: GroupName,
    p_model_groups: Vec<GroupName>,
    p_model_seconds: i32,
    p_models: Json,
    p_months: i32,
    p_name: Name,
    p_offset: i64,
    p_organization_id: OrganizationId,
    p_period: AnyWord,
    p_prompt_tokens: i64,
    p_purpose: Label,
    p_reason: Prose,
    p_replaced: KeyId,
    p_required: i64,
    p_response: Json,
    p_revoked: Vec<String>,
    p_rotate: bool,
    p_salt: Vec<u8>,
    p_spec: Json,
    p_status: AnyWord,
    p_steps: Vec<String>,
    p_streamed: bool,
    p_team_id: TeamId,
    p_to: Day,
    p_total_tokens: i64,
    p_url: String,
    p_usd_per_credit: Usd,
    p_user_id: Label,
    p_version: i64,
}
